//! What a verifier counts, and how a scraper reads it. Plain atomics: whoever owns the metrics endpoint prints them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use servicechain_keys::BundleRefusal;

use super::Verifier;
use crate::rejected::{Rejected, TokenFault};

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

/// Why requests are refused with 400 or 401, in a word for each kind; every one of them may be watched by itself.
const REJECTIONS: [&str; 9] = [
    "request",
    "malformed",
    "issuer",
    "audience",
    "time",
    "claims",
    "revoked",
    "unknown-key",
    "signature",
];
/// Why bundles are refused.
const BUNDLE_REFUSALS: [BundleRefusal; 9] = [
    BundleRefusal::WrongPod,
    BundleRefusal::Lower,
    BundleRefusal::Fork,
    BundleRefusal::Signature,
    BundleRefusal::Anchor,
    BundleRefusal::Chain,
    BundleRefusal::Format,
    BundleRefusal::BadKey,
    BundleRefusal::TooLarge,
];

/// Refusals, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    tokens: [Counter; REJECTIONS.len()],
    bundles: [Counter; BUNDLE_REFUSALS.len()],
}

impl Refusals {
    pub(crate) fn token(&self, rejected: &Rejected) {
        let kind = kind(rejected);
        let counter = REJECTIONS
            .iter()
            .position(|known| *known == kind)
            .map(|index| &self.tokens[index]);
        if let Some(counter) = counter {
            counter.increment();
        }
    }

    pub(crate) fn bundle(&self, reason: BundleRefusal) {
        let index = BUNDLE_REFUSALS.iter().position(|known| *known == reason);
        if let Some(index) = index {
            self.bundles[index].increment();
        }
    }
}

fn kind(rejected: &Rejected) -> &'static str {
    let Rejected::Token(fault) = rejected else {
        return "request";
    };
    match fault {
        TokenFault::NotB64Token
        | TokenFault::TooLarge
        | TokenFault::Jws(_)
        | TokenFault::ClaimsSyntax
        | TokenFault::ClaimType(_) => "malformed",
        TokenFault::UnknownIssuer | TokenFault::IssuerNotAccepted => "issuer",
        TokenFault::Audience => "audience",
        TokenFault::Expired
        | TokenFault::NotYetValid
        | TokenFault::IssuedInFuture
        | TokenFault::LivesTooLong
        | TokenFault::ExpiresTooSoon => "time",
        TokenFault::ClaimMissing(_)
        | TokenFault::Confirmation
        | TokenFault::TokenType
        | TokenFault::RequiredClaim => "claims",
        TokenFault::Revoked => "revoked",
        TokenFault::UnknownKey => "unknown-key",
        TokenFault::AmbiguousKey | TokenFault::AlgorithmMismatch | TokenFault::Signature => "signature",
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
    /// Those of `rejected` and of `bundles_refused`, by reason.
    pub refusals: Refusals,
}

impl Verifier {
    /// Everything counted, as families of `OpenMetrics` text. The line that ends a page is for whoever prints one.
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
            let name = format!("servicechain_auth_{name}");
            let value = counter.get();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name}_total {value}"
            );
        }
        let refusals = &counters.refusals;
        let tokens = REJECTIONS.into_iter().zip(&refusals.tokens);
        let bundles = BUNDLE_REFUSALS.map(BundleRefusal::word);
        let bundles = bundles.into_iter().zip(&refusals.bundles);
        write_by_reason(
            &mut text,
            "token_refusals",
            "Requests refused with 400 or 401, by reason.",
            tokens,
        );
        write_by_reason(
            &mut text,
            "bundle_refusals",
            "Key bundles refused, by reason.",
            bundles,
        );
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

fn write_by_reason<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    counts: impl Iterator<Item = (&'static str, &'a Counter)>,
) {
    let name = format!("servicechain_auth_{name}");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (reason, counter) in counts {
        let _ = writeln!(text, "{name}_total{{reason=\"{reason}\"}} {}", counter.get());
    }
}
