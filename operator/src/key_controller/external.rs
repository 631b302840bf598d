//! The keys of issuers that somebody else runs: each is fetched by a task of its own, so that none waits for another and
//! no round of keys waits for any. It must not know what becomes of the keys.

mod answer;
mod fetch;
mod issuer;
mod rules;
mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use servicechain_keys::Fetched;
use servicechain_keys::rotation::{Desired, KeySource};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use answer::published_keys;
pub use rules::{FetchRules, NotPublic};

use super::state::{IssuerProblem, IssuerStanding};
use crate::clock::Clock;
use crate::metrics::keys::Fetches;
use issuer::Issuer;
pub(crate) use issuer::Source;

/// The issuers of one chain that are not its own.
pub(super) struct ExternalIssuers {
    rules: FetchRules,
    clock: Clock,
    /// Told when something else is known of one of them.
    changed: Arc<Notify>,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    external: BTreeMap<String, Following>,
    /// Those whose key set is given: every round reads it.
    given: BTreeMap<String, IssuerStanding>,
}

/// It ends when dropped.
struct Following {
    issuer: Arc<Issuer>,
    task: JoinHandle<()>,
}

/// What was found out for somebody who met an unknown key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub fetched: Fetched,
    /// A bundle counts only if it was decided after this.
    pub decided_after: Option<Instant>,
}

impl ExternalIssuers {
    pub(super) fn new(rules: FetchRules, clock: Clock, changed: Arc<Notify>) -> Self {
        Self {
            rules,
            clock,
            changed,
            followed: Mutex::default(),
        }
    }

    /// From now on these are fetched, on the current tokio runtime, and no others. `given` are those whose keys are given.
    pub(super) fn follow(&self, sources: Vec<Source>, given: BTreeMap<String, IssuerStanding>) {
        let mut followed = self.lock();
        followed.given = given;
        let mut before = std::mem::take(&mut followed.external);
        for source in sources {
            let name = source.name.clone();
            let following = before
                .remove(&name)
                .filter(|following| *following.issuer.source() == source);
            let following = following.unwrap_or_else(|| self.begin(source));
            followed.external.insert(name, following);
        }
    }

    /// Gives every external issuer its newest answer. Its last good one stands for as long as this process leads: nobody
    /// else has a newer one.
    pub(super) fn fill(&self, desired: &mut Desired) {
        let followed = self.lock();
        for issuer in &mut desired.issuers {
            if let KeySource::External { answer, .. } = &mut issuer.keys {
                let known = followed
                    .external
                    .get(&issuer.name)
                    .map(|following| following.issuer.known());
                *answer = known
                    .and_then(|known| known.published)
                    .map(|published| published.keys);
            }
        }
    }

    /// How each of them stands.
    pub(super) fn standings(&self) -> BTreeMap<String, IssuerStanding> {
        let followed = self.lock();
        let mut standings = followed.given.clone();
        standings.extend(followed.external.iter().map(|(name, following)| {
            let known = following.issuer.known();
            let refused = known
                .published
                .map_or(known.refused, |published| published.refused);
            let is_missing = following.issuer.source().ca_bundle.is_err();
            let kind = if is_missing {
                IssuerProblem::MissingConfigMap
            } else {
                IssuerProblem::NotFetched
            };
            let standing = IssuerStanding {
                problem: known.problem.map(kind),
                refused,
            };
            (name.clone(), standing)
        }));
        standings
    }

    pub(super) fn fetches(&self) -> BTreeMap<String, Fetches> {
        let followed = self.lock();
        let external = followed.external.iter();
        external
            .map(|(name, following)| (name.clone(), following.issuer.known().fetches))
            .collect()
    }

    /// What there is to say to a verifier that met an unknown key of an issuer now: after a fetch that begins from now on.
    /// None for an issuer that is asked itself.
    pub(super) async fn ask(&self, name: &str) -> Option<Word> {
        let issuer = {
            let followed = self.lock();
            if followed.given.contains_key(name) {
                // A round reads it that begins from now on.
                self.changed.notify_one();
                return Some(Word {
                    fetched: Fetched::Same,
                    decided_after: Some(Instant::now()),
                });
            }
            Arc::clone(&followed.external.get(name)?.issuer)
        };
        let fetched = issuer.fetch_now().await;
        Some(Word {
            fetched,
            decided_after: issuer.known().changed,
        })
    }

    fn begin(&self, source: Source) -> Following {
        let issuer = Issuer::new(source);
        let run = Arc::clone(&issuer).run(
            self.rules.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.changed),
        );
        Following {
            task: tokio::spawn(run),
            issuer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for ExternalIssuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let followed = self.lock();
        formatter
            .debug_struct("ExternalIssuers")
            .field("external", &followed.external.keys())
            .field("given", &followed.given.keys())
            .finish_non_exhaustive()
    }
}
