//! What people are shown about a chain's keys after each round. Derived; nothing reads it back. It changes only when
//! something happened: no time in it moves by itself, so that a status made from it is not written again and again.

use std::collections::{BTreeMap, BTreeSet};

use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{
    BundleRefusal, Digest, Generation, HeldBundle, KeyState as State, NumericDate, PodId, Workload,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    /// The bundle that is stored; none before the first.
    pub newest: Option<(Generation, Digest)>,
    /// The kid of the trust key that signed it.
    pub signed_by: Option<String>,
    /// Counted pods that durably hold the newest bundle.
    pub acknowledged: usize,
    pub verifiers: usize,
    pub laggards: Vec<Laggard>,
    pub entries: Vec<KeyEntry>,
    /// Every verifier pod there is, counted or not, by name.
    pub pods: Vec<PodKeys>,
    /// Every pod that may hold a newer bundle was heard since somebody else changed the stored one. Until then nothing is
    /// published, and no knock is answered.
    pub is_settled: bool,
    /// Issuers whose keys come from elsewhere, by name.
    pub issuers: BTreeMap<String, IssuerStanding>,
    /// Every counted pod holds the newest bundle, and nothing is left to be decided.
    pub in_sync: bool,
    /// Why the last round brought nothing, as a sentence.
    pub problem: Option<String>,
}

/// How an issuer stands whose keys are fetched or given. Nothing in it is what somebody else wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerStanding {
    /// Why there is no newer answer than the one that is known. Its keys stay.
    pub problem: Option<IssuerProblem>,
    /// Keys that were left out, a sentence each.
    pub refused: Vec<String>,
}

/// Each says the end of a sentence about the issuer; what is after its last semicolon is what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerProblem {
    /// A `ConfigMap` that the issuer names, or the key in it, is not there.
    MissingConfigMap(String),
    NotFetched(String),
    /// The key set that is given is none.
    Unusable(String),
}

impl IssuerProblem {
    #[must_use]
    pub fn says(&self) -> &str {
        match self {
            Self::MissingConfigMap(says) | Self::NotFetched(says) | Self::Unusable(says) => says,
        }
    }
}

/// A counted pod that does not hold the newest bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// The pod's name.
    pub name: String,
    pub pod: PodId,
    /// None before its first bundle, or where it never answered.
    pub generation: Option<Generation>,
    pub reason: LaggardReason,
    /// What it, or whoever answers for it, says falsely.
    pub falsehood: Option<Falsehood>,
    /// Since when, as far as this operator saw it.
    pub since: NumericDate,
}

/// A verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodKeys {
    /// The pod's name.
    pub name: String,
    pub pod: PodId,
    pub workload: Workload,
    /// Keys wait for it: it has an address, its container runs, and it was not silent and not Ready for a minute.
    pub is_counted: bool,
    /// It durably holds the newest bundle.
    pub acknowledged: bool,
    /// The generation that it said it holds in the last round that heard it.
    pub generation: Option<Generation>,
    /// Why it did not take what it was sent last.
    pub refusal: Option<BundleRefusal>,
    /// Why it did not take bundles since it started, by whomever they came: anyone may deliver.
    pub refused: BTreeSet<BundleRefusal>,
    /// Found out when it was last heard, or last not believed.
    pub falsehood: Option<Falsehood>,
    /// It serves without the operator's word since it started.
    pub unconfirmed: bool,
    /// How many seconds its clock is ahead of the operator's, zero where both are in step: a figure that stays for as long
    /// as it may be true.
    pub clock_offset: Option<i64>,
    /// The kids of the trust keys that it trusts.
    pub anchors: Vec<String>,
}

/// What is not so, and was said all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Falsehood {
    #[error(
        "an answer in its name is not sealed with its key: another pod has its address, or somebody poses as it"
    )]
    NotAuthentic,
    #[error("it says that it holds a bundle which it does not hold")]
    Claim,
}

impl Falsehood {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotAuthentic => "NotAuthentic",
            Self::Claim => "ClaimRefuted",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub issuer: String,
    pub kid: Option<String>,
    pub algorithm: &'static str,
    pub state: State,
    pub since: NumericDate,
}

/// What [`Laggard::word`] may say.
pub const LAG_WORDS: [&str; 6] = [
    "Unreachable",
    "Refuses",
    "NotDurable",
    "Behind",
    Falsehood::NotAuthentic.word(),
    Falsehood::Claim.word(),
];

impl Laggard {
    /// Its reason in one word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        if let Some(falsehood) = self.falsehood {
            return falsehood.word();
        }
        match self.reason {
            LaggardReason::Unreachable => "Unreachable",
            LaggardReason::Refuses(_) => "Refuses",
            LaggardReason::NotDurable => "NotDurable",
            LaggardReason::Behind => "Behind",
        }
    }
}

impl KeyState {
    /// The key that each issuer's pods sign with, by issuer; the newest where pods differ.
    #[must_use]
    pub fn active_key(&self, issuer: &str) -> Option<&KeyEntry> {
        let active = |entry: &&KeyEntry| entry.issuer == issuer && entry.state == State::Active;
        self.entries.iter().filter(active).max_by_key(|entry| entry.since)
    }

    /// The pod of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<&PodKeys> {
        self.pods.iter().find(|pod| pod.name == name)
    }
}

pub(super) fn entries(bundle: &HeldBundle) -> Vec<KeyEntry> {
    let issuers = bundle.bundle().issuers.iter();
    let keys = issuers.flat_map(|issuer| issuer.keys.iter().map(move |key| (issuer, key)));
    keys.map(|(issuer, key)| KeyEntry {
        issuer: issuer.name.clone(),
        kid: key.jwk.kid().map(str::to_owned),
        algorithm: key.jwk.algorithm().name(),
        state: key.state,
        since: key.since,
    })
    .collect()
}
