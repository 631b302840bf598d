//! What a verifier counts, and how a scraper reads it. Plain atomics: whoever owns the metrics endpoint prints them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Verifier;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counted since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests whose token was found in the cache and still held.
    pub cache_hits: Counter,
    /// Tokens whose signature was checked and held.
    pub verified: Counter,
    /// Requests refused with 400 or 401.
    pub rejected: Counter,
    /// Requests answered 503.
    pub unavailable: Counter,
    /// Times an authority was asked about an unknown key.
    pub inquiries: Counter,
    /// Bundles taken.
    pub bundles_accepted: Counter,
    /// Bundles refused.
    pub bundles_refused: Counter,
    /// Bundles that could not be made durable.
    pub not_durable: Counter,
}

impl Verifier {
    /// Everything counted, in the Prometheus text format.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let counters = &self.counters;
        let counted = [
            (
                "cache_hits",
                "Requests whose token was found verified.",
                &counters.cache_hits,
            ),
            (
                "verified",
                "Tokens whose signature was checked and held.",
                &counters.verified,
            ),
            (
                "rejected",
                "Requests refused with 400 or 401.",
                &counters.rejected,
            ),
            ("unavailable", "Requests answered 503.", &counters.unavailable),
            (
                "inquiries",
                "Times an authority was asked about an unknown key.",
                &counters.inquiries,
            ),
            (
                "bundles_accepted",
                "Key bundles taken.",
                &counters.bundles_accepted,
            ),
            (
                "bundles_refused",
                "Key bundles refused.",
                &counters.bundles_refused,
            ),
            (
                "bundles_not_durable",
                "Key bundles that could not be made durable.",
                &counters.not_durable,
            ),
        ];
        let mut text = String::new();
        for (name, help, counter) in counted {
            let name = format!("servicechain_auth_{name}_total");
            let value = counter.get();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}"
            );
        }
        let gauges = [
            (
                "key_generation",
                "Generation of the key bundle held.",
                self.generation().number(),
            ),
            (
                "cached_tokens",
                "Verified tokens in the cache.",
                self.cached_tokens() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            let name = format!("servicechain_auth_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        text
    }
}
