//! What the operator counts, for the scraper. Names of pods and Secrets are no labels, since there may be thousands; those
//! of chains only where a question about keys has no answer without them (`keys`).

pub mod keys;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::keys::KeyMetrics;

type Labelled<const N: usize> = Family<[(&'static str, &'static str); N], Counter>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    registry: Registry,
    reconciles: Labelled<1>,
    reconcile_duration: Histogram,
    writes: Labelled<3>,
    watches: Labelled<2>,
    leads: Gauge,
    chains: Gauge,
    keys: KeyMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("servicechain_operator");
        let counted = Counted {
            reconciles: Family::default(),
            // From a pass that reads little to one that waits for a slow API server.
            reconcile_duration: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            writes: Family::default(),
            watches: Family::default(),
            leads: Gauge::default(),
            chains: Gauge::default(),
            keys: KeyMetrics::default(),
            registry: Registry::default(),
        };
        all.register(
            "reconciles",
            "Passes over a chain, by outcome: done, failed, timeout",
            counted.reconciles.clone(),
        );
        all.register(
            "reconcile_duration_seconds",
            "Time of a pass over a chain",
            counted.reconcile_duration.clone(),
        );
        all.register(
            "writes",
            "Writes to the API server, by kind, verb and outcome (done, refused)",
            counted.writes.clone(),
        );
        all.register(
            "watch_restarts",
            "Watches begun again, by kind and why: failed, expired",
            counted.watches.clone(),
        );
        all.register(
            "leads",
            "1 while this replica holds the lease",
            counted.leads.clone(),
        );
        all.register("chains", "Chains that are looked after", counted.chains.clone());
        counted.keys.register(&mut all);
        Self(Arc::new(Counted {
            registry: all,
            ..counted
        }))
    }
}

impl Metrics {
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        let labels = [("outcome", outcome)];
        self.0.reconciles.get_or_create(&labels).inc();
        self.0.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Passes over chains that were done.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.0.reconciles.get_or_create(&[("outcome", "done")]).get()
    }

    pub fn wrote(&self, kind: &'static str, verb: &'static str, outcome: &'static str) {
        let labels = [("kind", kind), ("verb", verb), ("outcome", outcome)];
        self.0.writes.get_or_create(&labels).inc();
    }

    pub fn watch_restarted(&self, kind: &'static str, why: &'static str) {
        self.0
            .watches
            .get_or_create(&[("kind", kind), ("why", why)])
            .inc();
    }

    pub fn leads(&self, leads: bool) {
        self.0.leads.set(i64::from(leads));
    }

    pub fn chains(&self, count: usize) {
        self.0.chains.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    #[must_use]
    pub fn keys(&self) -> KeyMetrics {
        self.0.keys.clone()
    }

    /// The page of a scrape.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which is a mistake in its definition.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}
