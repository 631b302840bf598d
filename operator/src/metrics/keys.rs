//! What is counted about chains' keys: who is served the labels, how long a bundle takes to be everywhere, what was
//! refused. Labels are namespaces, chains, issuers and workloads, which specs bound; pods are never one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use servicechain_keys::{Generation, KeyState as StateOfKey, NumericDate, Workload};
use tokio::time::Instant;

use crate::key_controller::KeyState;
use crate::key_controller::state::{Falsehood, LAG_WORDS};

/// Chains that have series of their own, the first ones by name: a scrape must stay one that a scraper takes.
const MOST_CHAINS: usize = 500;
/// Bundles of a chain whose way is timed at once.
const MOST_UNDER_WAY: usize = 32;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyMetrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    distribution: Histogram,
    refusals: Family<[(&'static str, &'static str); 2], Counter>,
    chains: Mutex<BTreeMap<Place, Shown>>,
    /// Tells a chain from one of the same name that was deleted before.
    started: AtomicU64,
}

/// Namespace and name.
type Place = (String, String);

#[derive(Debug)]
struct Shown {
    by: u64,
    state: Arc<KeyState>,
    fetches: BTreeMap<String, Fetches>,
}

/// What became of the fetches of an external issuer's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetches {
    pub good: u64,
    pub failed: u64,
    pub last_good: Option<NumericDate>,
}

/// Those of one chain. Its series end when this is dropped.
#[derive(Debug)]
pub struct ChainKeyMetrics {
    all: KeyMetrics,
    place: Place,
    id: u64,
    /// When the bundles were published that not every verifier has acknowledged.
    under_way: Vec<Instant>,
}

impl Default for KeyMetrics {
    fn default() -> Self {
        // From a push on one machine to a pod that is polled half a minute later.
        let bounds = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
        Self(Arc::new(Counted {
            distribution: Histogram::new(bounds),
            refusals: Family::default(),
            chains: Mutex::default(),
            started: AtomicU64::new(0),
        }))
    }
}

impl KeyMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "key_distribution_seconds",
            "Time from a bundle's publication until the last counted verifier acknowledged it or a newer one",
            self.0.distribution.clone(),
        );
        registry.register(
            "key_refusals",
            "What was refused in the key protocol, and why",
            self.0.refusals.clone(),
        );
        registry.register_collector(Box::new(self.clone()));
    }

    #[must_use]
    pub fn of_chain(&self, namespace: String, name: String) -> ChainKeyMetrics {
        ChainKeyMetrics {
            all: self.clone(),
            place: (namespace, name),
            id: self.0.started.fetch_add(1, Ordering::Relaxed),
            under_way: Vec::new(),
        }
    }

    fn chains(&self) -> MutexGuard<'_, BTreeMap<Place, Shown>> {
        self.0.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChainKeyMetrics {
    /// After each round; `was_written` where it published.
    pub fn show(&mut self, state: &Arc<KeyState>, fetches: BTreeMap<String, Fetches>, was_written: bool) {
        // Before there are verifiers nobody is told anything.
        if was_written && state.verifiers > 0 && self.under_way.len() < MOST_UNDER_WAY {
            self.under_way.push(Instant::now());
        }
        if state.verifiers == 0 {
            self.under_way.clear();
        } else if state.acknowledged == state.verifiers {
            for published in self.under_way.drain(..) {
                self.all.0.distribution.observe(published.elapsed().as_secs_f64());
            }
        }
        let shown = Shown {
            by: self.id,
            state: Arc::clone(state),
            fetches,
        };
        self.all.chains().insert(self.place.clone(), shown);
    }

    pub fn refused(&self, what: &'static str, reason: &'static str) {
        let labels = [("what", what), ("reason", reason)];
        self.all.0.refusals.get_or_create(&labels).inc();
    }
}

impl Drop for ChainKeyMetrics {
    fn drop(&mut self) {
        let mut chains = self.all.chains();
        if chains.get(&self.place).is_some_and(|shown| shown.by == self.id) {
            chains.remove(&self.place);
        }
    }
}

const STATES: [(StateOfKey, &str); 4] = [
    (StateOfKey::Staged, "Staged"),
    (StateOfKey::Active, "Active"),
    (StateOfKey::Retiring, "Retiring"),
    (StateOfKey::Withdrawn, "Withdrawn"),
];

type Labels = Vec<(&'static str, String)>;
type Figures = Vec<(Labels, u64)>;

struct Described {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&Shown) -> Figures,
}

const FAMILIES: [Described; 11] = [
    gauge("key_generation", "Generation of the newest key bundle", |shown| {
        one(shown
            .state
            .newest
            .map_or(0, |(generation, _)| generation.number()))
    }),
    gauge(
        "key_generation_acknowledged",
        "Least generation that a counted verifier of the workload says it holds",
        least_held,
    ),
    gauge("key_verifiers", "Verifiers that keys wait for", |shown| {
        one(shown.state.verifiers as u64)
    }),
    gauge(
        "key_laggards",
        "Verifiers that do not hold the newest bundle, by reason",
        |shown| {
            let count = |word: &str| {
                shown
                    .state
                    .laggards
                    .iter()
                    .filter(|lag| lag.word() == word)
                    .count()
            };
            let by_word = LAG_WORDS.map(|word| (vec![("reason", word.to_owned())], count(word) as u64));
            by_word.into()
        },
    ),
    gauge(
        "key_verifiers_unconfirmed",
        "Verifiers that serve without having heard the operator since they started",
        |shown| one(shown.state.pods.iter().filter(|pod| pod.unconfirmed).count() as u64),
    ),
    gauge(
        "key_clock_offset_seconds",
        "Largest distance of a verifier's clock from the operator's",
        |shown| {
            let offsets = shown.state.pods.iter().filter_map(|pod| pod.clock_offset);
            one(offsets.map(i64::unsigned_abs).max().unwrap_or_default())
        },
    ),
    gauge("keys", "Keys in the bundle, by issuer and state", by_state),
    gauge(
        "key_active_since_timestamp_seconds",
        "When the oldest key that an issuer signs with became Active, in seconds after the epoch",
        active_since,
    ),
    gauge(
        "issuer_keys_left_out",
        "Keys of an issuer that somebody else runs which may not be used",
        |shown| {
            let issuers = shown.state.issuers.iter();
            let left_out = issuers.map(|(name, standing)| (of_issuer(name), standing.refused.len() as u64));
            left_out.collect()
        },
    ),
    gauge(
        "issuer_answered_timestamp_seconds",
        "When an external issuer last gave a good answer, in seconds after the epoch",
        |shown| {
            let answered = shown
                .fetches
                .iter()
                .filter_map(|(name, fetches)| Some((of_issuer(name), fetches.last_good?.as_seconds())));
            answered.collect()
        },
    ),
    Described {
        name: "issuer_fetches",
        help: "Fetches of an external issuer's keys, by outcome: good, failed",
        kind: MetricType::Counter,
        of: |shown| {
            let fetches = shown.fetches.iter().flat_map(|(name, fetches)| {
                [("good", fetches.good), ("failed", fetches.failed)].map(|(outcome, count)| {
                    let mut labels = of_issuer(name);
                    labels.push(("outcome", outcome.to_owned()));
                    (labels, count)
                })
            });
            fetches.collect()
        },
    },
];

const fn gauge(name: &'static str, help: &'static str, of: fn(&Shown) -> Figures) -> Described {
    Described {
        name,
        help,
        kind: MetricType::Gauge,
        of,
    }
}

fn one(value: u64) -> Figures {
    vec![(Vec::new(), value)]
}

fn of_issuer(name: &str) -> Labels {
    vec![("issuer", name.to_owned())]
}

fn least_held(shown: &Shown) -> Figures {
    let mut least = BTreeMap::<&Workload, Generation>::new();
    for pod in shown.state.pods.iter().filter(|pod| pod.is_counted) {
        // What was claimed and refuted is held by nobody.
        let claimed = pod.generation.filter(|_| pod.falsehood != Some(Falsehood::Claim));
        let held = claimed.unwrap_or_default();
        let known = least.entry(&pod.workload).or_insert(held);
        *known = held.min(*known);
    }
    let least = least.into_iter();
    least
        .map(|(workload, held)| (vec![("workload", workload.as_str().to_owned())], held.number()))
        .collect()
}

fn by_state(shown: &Shown) -> Figures {
    let mut counts = BTreeMap::<(&str, &str), u64>::new();
    for entry in &shown.state.entries {
        for (state, name) in STATES {
            let count = counts.entry((&entry.issuer, name)).or_default();
            *count += u64::from(entry.state == state);
        }
    }
    let labels = |issuer: &str, state: &str| vec![("issuer", issuer.to_owned()), ("state", state.to_owned())];
    let counts = counts.into_iter();
    counts
        .map(|((issuer, state), count)| (labels(issuer, state), count))
        .collect()
}

fn active_since(shown: &Shown) -> Figures {
    let mut since = BTreeMap::<&str, u64>::new();
    let active = shown
        .state
        .entries
        .iter()
        .filter(|entry| entry.state == StateOfKey::Active);
    for entry in active {
        let began = entry.since.as_seconds();
        let known = since.entry(&entry.issuer).or_insert(began);
        *known = began.min(*known);
    }
    let since = since.into_iter();
    since.map(|(issuer, began)| (of_issuer(issuer), began)).collect()
}

impl Collector for KeyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let chains = self.chains();
        let unnamed = chains.len().saturating_sub(MOST_CHAINS);
        let help = "Chains that have no series of their own, because there are too many";
        let mut family = encoder.encode_descriptor("key_chains_unnamed", help, None, MetricType::Gauge)?;
        family.encode_gauge(&u32::try_from(unnamed).unwrap_or(u32::MAX))?;
        for Described { name, help, kind, of } in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for ((namespace, chain), shown) in chains.iter().take(MOST_CHAINS) {
                for (more, value) in of(shown) {
                    let mut labels = vec![("namespace", namespace.clone()), ("chain", chain.clone())];
                    labels.extend(more);
                    let mut figure = family.encode_family(&labels)?;
                    if matches!(kind, MetricType::Counter) {
                        figure.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
                    } else {
                        figure.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
