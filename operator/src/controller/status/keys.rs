//! What is said about keys: `status.keys`, and whether everybody holds the newest. A leader that has just started knows
//! nobody's acknowledgement; until it has asked, what was said before stays. It must not know how keys are distributed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use servicechain_crds::service_chain::status::{KeyStatus, KeysStatus, LaggardStatus};
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{Digest, Generation, KeyState as StateOfKey, NumericDate};

use super::pods;
use super::reason::{Reason, Trouble};
use super::remarks::{self, ClocksStanding};
use super::words::{bounded, quote};
use crate::controller::observed::Observed;
use crate::key_controller::KeyState;
use crate::key_controller::state::{Falsehood, KeyEntry, Laggard};

/// Bounds of the schema.
const MAX_LAGGARDS: usize = 5;
const MAX_ENTRIES: usize = 64;
const MAX_KID: usize = 256;

/// What is known about keys, if anything is, and whether all is well.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Keys {
    pub status: Option<KeysStatus>,
    pub standing: KeysStanding,
    pub clocks: ClocksStanding,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeysStanding {
    /// As it was said before, whatever that was.
    #[default]
    Unheard,
    InSync,
    /// Nothing is wrong: verifiers are being told, are starting or are on their way out.
    Distributing(String),
    Trouble(Trouble),
}

/// `clock_skew` is the policy's, where a spec was ever accepted.
pub(crate) fn judge(
    keys: Option<&KeyState>,
    said: Option<&KeysStatus>,
    observed: &Observed,
    clock_skew: Option<Duration>,
) -> Keys {
    let before = || Keys {
        status: said.cloned(),
        ..Keys::default()
    };
    let Some(keys) = keys else {
        return before();
    };
    let stuck = keys.problem.as_deref().map(|problem| {
        let what = format!("keys do not move on ({})", quote(problem));
        KeysStanding::Trouble(Trouble::new(
            Reason::KeysStuck,
            what,
            "it is tried again, see the operator's log",
        ))
    });
    let Some(newest) = keys.newest else {
        let standing = stuck.unwrap_or_default();
        return Keys { standing, ..before() };
    };
    let laggards = laggards(keys, said, observed);
    let standing = stuck.unwrap_or_else(|| standing(keys, &laggards));
    let clocks = clock_skew.map(|skew| remarks::clocks(keys, said, skew));
    let status = newest_status(newest, keys, laggards, said);
    Keys {
        status: Some(acknowledged_first(status, said, keys)),
        standing,
        clocks: clocks.unwrap_or_default(),
    }
}

/// Whether it is natural that it lags, what is said of it, and what is known. Those first that somebody must look after.
fn laggards<'a>(
    keys: &'a KeyState,
    said: Option<&KeysStatus>,
    observed: &Observed,
) -> Vec<(bool, LaggardStatus, &'a Laggard)> {
    let laggards = keys.laggards.iter();
    let mut laggards: Vec<_> = laggards
        .map(|laggard| {
            let status = laggard_status(laggard, said);
            (is_excused(laggard, observed), status, laggard)
        })
        .collect();
    laggards.sort_by(|one, other| (one.0, &one.1.pod).cmp(&(other.0, &other.1.pod)));
    laggards.dedup_by(|one, other| one.1.pod == other.1.pod);
    laggards
}

fn newest_status(
    (generation, digest): (Generation, Digest),
    keys: &KeyState,
    laggards: Vec<(bool, LaggardStatus, &Laggard)>,
    said: Option<&KeysStatus>,
) -> KeysStatus {
    let entries = entries(keys);
    let (remarks, remark_count) = remarks::remarks(keys, said);
    KeysStatus {
        generation: i64::try_from(generation.number()).unwrap_or(i64::MAX),
        digest: digest.to_string(),
        acknowledged: count(keys.acknowledged),
        verifiers: count(keys.verifiers),
        laggard_count: count(keys.laggards.len()),
        laggards: laggards
            .into_iter()
            .map(|(_, status, _)| status)
            .take(MAX_LAGGARDS)
            .collect(),
        entry_count: (entries.len() > MAX_ENTRIES).then(|| count(entries.len())),
        entries: entries.into_iter().take(MAX_ENTRIES).collect(),
        signed_by: keys.signed_by.clone(),
        remark_count: (remark_count > remarks.len()).then(|| count(remark_count)),
        remarks,
    }
}

/// A bundle that was published just now nobody can hold yet: until the first verifier says that it does, the one before is
/// what is said, with all that held it.
fn acknowledged_first(new: KeysStatus, said: Option<&KeysStatus>, keys: &KeyState) -> KeysStatus {
    let is_told = |laggard: &Laggard| laggard.reason == LaggardReason::Behind && laggard.falsehood.is_none();
    let is_just_out = keys.acknowledged == 0 && keys.laggards.iter().any(is_told);
    let before = said.filter(|said| is_just_out && said.generation < new.generation);
    before.cloned().unwrap_or(new)
}

/// Whether the issuer has a key that it signs with.
pub(crate) fn signs(keys: Option<&KeysStatus>, issuer: &str) -> bool {
    let entries = keys.iter().flat_map(|keys| &keys.entries);
    let active = state_word(StateOfKey::Active);
    entries
        .into_iter()
        .any(|entry| entry.issuer == issuer && entry.state == active)
}

/// Whether it is natural that the pod is not up to date: it is being told, it is starting, or it is on its way out.
fn is_excused(laggard: &Laggard, observed: &Observed) -> bool {
    let pod = observed
        .pods
        .iter()
        .find(|pod| pod.metadata.uid.as_deref() == Some(laggard.pod.as_str()));
    let is_settled = pod.is_some_and(|pod| pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
    match laggard.reason {
        _ if laggard.falsehood == Some(Falsehood::Claim) => false,
        LaggardReason::Behind => true,
        LaggardReason::Unreachable => !is_settled,
        LaggardReason::Refuses(_) | LaggardReason::NotDurable => false,
    }
}

fn standing(keys: &KeyState, laggards: &[(bool, LaggardStatus, &Laggard)]) -> KeysStanding {
    let (acknowledged, verifiers) = (keys.acknowledged, keys.verifiers);
    if let Some((false, status, laggard)) = laggards.first() {
        let falsehood = laggard
            .falsehood
            .map(|falsehood| format!("is not believed ({falsehood})"));
        let why = falsehood.unwrap_or_else(|| match laggard.reason {
            LaggardReason::Refuses(refusal) => format!("refuses the newest keys ({refusal})"),
            LaggardReason::NotDurable => "cannot keep the newest keys on its disk".to_owned(),
            reason => format!("{reason} on its keys port"),
        });
        let others = match laggards.iter().filter(|(is_excused, ..)| !is_excused).count() - 1 {
            0 => String::new(),
            others => format!(", nor are {others} other pods up to date"),
        };
        let pod = &status.pod;
        return KeysStanding::Trouble(Trouble::new(
            Reason::Laggards,
            format_args!("{pod} {why}{others}"),
            format_args!("see kubectl logs {pod}, and delete the pod if it does not recover"),
        ));
    }
    if acknowledged >= verifiers && verifiers > 0 {
        return KeysStanding::InSync;
    }
    KeysStanding::Distributing(format!(
        "{acknowledged} of {verifiers} verifiers hold the newest keys"
    ))
}

fn laggard_status(laggard: &Laggard, said: Option<&KeysStatus>) -> LaggardStatus {
    // Another leader counts from when it began; what was said first stands.
    let pod = if laggard.name.is_empty() {
        laggard.pod.as_str()
    } else {
        &laggard.name
    };
    let mut known = said.into_iter().flat_map(|said| &said.laggards);
    let known = known.find(|known| known.pod == pod && known.reason == laggard.word());
    LaggardStatus {
        pod: pod.to_owned(),
        generation: laggard
            .generation
            .map(|generation| i64::try_from(generation.number()).unwrap_or(i64::MAX)),
        reason: laggard.word().to_owned(),
        since: known.map_or_else(|| Time(timestamp(laggard.since)), |known| known.since.clone()),
    }
}

fn entries(keys: &KeyState) -> Vec<KeyStatus> {
    let entry = |entry: &KeyEntry| KeyStatus {
        issuer: entry.issuer.clone(),
        kid: bounded(entry.kid.as_deref().unwrap_or_default(), MAX_KID),
        state: state_word(entry.state).to_owned(),
        since: Time(timestamp(entry.since)),
    };
    // A map by issuer and kid: two of the same would be refused by the API server.
    let entries = keys.entries.iter().map(entry);
    let unique: BTreeMap<_, _> = entries
        .map(|entry| ((entry.issuer.clone(), entry.kid.clone()), entry))
        .collect();
    let mut entries: Vec<KeyStatus> = unique.into_values().collect();
    if entries.len() > MAX_ENTRIES {
        most_telling_first(&mut entries);
    }
    entries
}

/// Not all fit: of every issuer one that signs comes first, then by state, the youngest first.
fn most_telling_first(entries: &mut [KeyStatus]) {
    entries.sort_by_key(|entry| (rank(&entry.state), std::cmp::Reverse(entry.since.0)));
    let mut seen = BTreeSet::new();
    let is_more: Vec<bool> = entries
        .iter()
        .map(|entry| !seen.insert(entry.issuer.clone()))
        .collect();
    let mut order = is_more.into_iter();
    entries.sort_by_cached_key(|_| order.next());
}

fn rank(state: &str) -> usize {
    let states = [
        StateOfKey::Active,
        StateOfKey::Staged,
        StateOfKey::Retiring,
        StateOfKey::Withdrawn,
    ];
    states
        .iter()
        .position(|known| state_word(*known) == state)
        .unwrap_or(states.len())
}

const fn state_word(state: StateOfKey) -> &'static str {
    match state {
        StateOfKey::Staged => "Staged",
        StateOfKey::Active => "Active",
        StateOfKey::Retiring => "Retiring",
        StateOfKey::Withdrawn => "Withdrawn",
    }
}

fn timestamp(date: NumericDate) -> Timestamp {
    let seconds = i64::try_from(date.as_seconds()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// What the API server keeps of a time.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
