//! What the service counts about its items, for the scraper. No label has a value that a request chose.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use servicechain_runtime::metrics::Metrics;

use crate::cache::{LookUp, Put};
use crate::item::Stored;
use crate::store::{StoreError, Written};

type ByOutcome = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters of one hop. Clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct ItemMetrics {
    look_ups: ByOutcome,
    puts: ByOutcome,
    reads: ByOutcome,
    writes: ByOutcome,
    shared_reads: Counter,
    next_hop: ByOutcome,
    disagreements: Family<[(&'static str, String); 1], Counter>,
}

impl ItemMetrics {
    /// Registers them for this hop.
    pub fn register(metrics: &mut Metrics, hop: &str) -> Self {
        let this = Self::default();
        let registry = metrics.registry().sub_registry_with_prefix("servicechain");
        let registry = registry.sub_registry_with_label(("hop".into(), hop.to_owned().into()));
        registry.register(
            "cache_look_ups",
            "Cache look-ups, by what was found",
            this.look_ups.clone(),
        );
        registry.register(
            "cache_puts",
            "Cache writes, by what became of them",
            this.puts.clone(),
        );
        registry.register("database_reads", "Database reads, by outcome", this.reads.clone());
        registry.register(
            "database_writes",
            "Database writes, by outcome",
            this.writes.clone(),
        );
        registry.register(
            "shared_reads",
            "Misses that waited for another's read",
            this.shared_reads.clone(),
        );
        registry.register(
            "next_hop_calls",
            "Calls of the next hop, by outcome",
            this.next_hop.clone(),
        );
        registry.register(
            "verdict_disagreements",
            "Answers of the next hop that refuse a token which is good here; stays 0",
            this.disagreements.clone(),
        );
        this
    }

    pub(crate) fn looked_up(&self, found: &LookUp) {
        count(
            &self.look_ups,
            match found {
                LookUp::Hit(_) => "hit",
                LookUp::Miss(_) => "miss",
                LookUp::Unavailable => "unavailable",
            },
        );
    }

    pub(crate) fn put(&self, put: Put) {
        count(
            &self.puts,
            match put {
                Put::Stored => "stored",
                Put::NotNewer => "not_newer",
                Put::TooLate => "too_late",
                Put::Unavailable => "unavailable",
            },
        );
    }

    pub(crate) fn read(&self, read: &Result<Stored, StoreError>) {
        count(&self.reads, read.as_ref().map_or_else(outcome, |_| "ok"));
    }

    pub(crate) fn wrote(&self, written: &Result<Written, StoreError>) {
        count(&self.writes, written.as_ref().map_or_else(outcome, |_| "ok"));
    }

    pub(crate) fn shared_a_read(&self) {
        self.shared_reads.inc();
    }

    /// Shown from the start, so that whoever watches it sees a 0.
    pub(crate) fn knows_next_hop(&self, next: &str) {
        drop(self.disagreements.get_or_create(&[("next", next.to_owned())]));
    }

    pub(crate) fn disagrees(&self, next: &str) {
        self.disagreements
            .get_or_create(&[("next", next.to_owned())])
            .inc();
    }

    pub(crate) fn called(&self, outcome: &'static str) {
        count(&self.next_hop, outcome);
    }
}

fn count(family: &ByOutcome, outcome: &'static str) {
    family.get_or_create(&[("outcome", outcome)]).inc();
}

fn outcome(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Slow => "slow",
        StoreError::OutcomeUnknown => "unknown",
        StoreError::Broken(_) => "broken",
        StoreError::ConditionFailed(_) => "condition_failed",
    }
}
