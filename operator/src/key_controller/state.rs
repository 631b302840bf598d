//! What people are shown about a chain's keys after each round. Derived; nothing reads it back.

use servicechain_keys::rotation::{Laggard, Standing};
use servicechain_keys::{Digest, Generation, HeldBundle, KeyState as State, NumericDate};

#[derive(Clone, Debug, Default)]
pub struct KeyState {
    /// None before the first bundle.
    pub newest: Option<(Generation, Digest)>,
    /// Counted pods that durably hold the newest bundle.
    pub acknowledged: usize,
    pub verifiers: usize,
    pub laggards: Vec<Laggard>,
    pub entries: Vec<KeyEntry>,
    /// Every counted pod holds the newest bundle, and nothing is left to be decided.
    pub in_sync: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub issuer: String,
    pub kid: Option<String>,
    pub algorithm: &'static str,
    pub state: State,
    pub since: NumericDate,
}

impl KeyState {
    pub(super) fn of(bundle: Option<&HeldBundle>, standing: Standing, in_sync: bool) -> Self {
        let issuers = bundle.into_iter().flat_map(|bundle| &bundle.bundle().issuers);
        let entry = |issuer: &servicechain_keys::Issuer, key: &servicechain_keys::IssuerKey| KeyEntry {
            issuer: issuer.name.clone(),
            kid: key.jwk.kid().map(str::to_owned),
            algorithm: key.jwk.algorithm().name(),
            state: key.state,
            since: key.since,
        };
        Self {
            newest: bundle.map(|bundle| (bundle.generation(), bundle.digest())),
            acknowledged: standing.acknowledged,
            verifiers: standing.verifiers,
            laggards: standing.laggards,
            entries: issuers
                .flat_map(|issuer| issuer.keys.iter().map(move |key| entry(issuer, key)))
                .collect(),
            in_sync,
        }
    }

    /// The key that each issuer's pods sign with, by issuer; the newest where pods differ.
    #[must_use]
    pub fn active_key(&self, issuer: &str) -> Option<&KeyEntry> {
        let active = |entry: &&KeyEntry| entry.issuer == issuer && entry.state == State::Active;
        self.entries.iter().filter(active).max_by_key(|entry| entry.since)
    }
}
