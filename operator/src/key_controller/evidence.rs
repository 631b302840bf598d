//! What the rounds of a chain know of it, for those who answer knocks beside them: the leader's memory, and the bundle in
//! the version that it was read or written in last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use servicechain_keys::HeldBundle;
use servicechain_keys::rotation::Memory;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Evidence {
    /// The rounds' monotonic clock counts from here.
    pub started: Instant,
    known: Mutex<Known>,
    /// When the newest round began to read what is asked for that decided about it and wrote what followed.
    pub decided: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub memory: Memory,
    /// The authentic bundle in the version of the store that it was last seen in.
    pub stored: Option<(String, Arc<HeldBundle>)>,
}

impl Evidence {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            known: Mutex::default(),
            decided: watch::Sender::default(),
        })
    }

    /// Returns once a round has taken in what was known at `then`.
    pub(super) async fn decided_after(&self, then: Instant) {
        let mut decided = self.decided.subscribe();
        // The sender lives as long as `self`.
        let _ = decided
            .wait_for(|decided| decided.is_some_and(|decided| decided > then))
            .await;
    }

    /// Never held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The bundle in this version of the store, where a knock may be answered with it (ADR 3, rule 3).
    pub(super) fn settled_at(&self, version: &str) -> Option<&Arc<HeldBundle>> {
        let (known, bundle) = self.stored.as_ref()?;
        (known == version && self.memory.is_settled_at(version)).then_some(bundle)
    }
}
