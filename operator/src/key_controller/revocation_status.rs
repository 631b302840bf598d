//! What a `Revocation` says of itself: how far it has got. Derived from what one round found, and written only where it
//! differs. Once every verifier holds it, later ones take it before they are ready, so what was said then stays.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use servicechain_crds::Revocation;
use servicechain_crds::revocation::RevocationStatus;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{HeldBundle, NumericDate, Revocation as Entry, RevocationKind, ShortDigest};

use super::revocations::Asked;
use super::state::{KeyState, Laggard};
use crate::api_client::{ApiError, WRITE_TIMEOUT, within};
use crate::controller::STATUS_MANAGER;
use crate::controller::status::conditions::{Truth, Verdict, condition};
use crate::controller::status::reason::{Reason, Trouble};

/// The one condition there is.
pub const ENFORCED: &str = "Enforced";
/// Writes at a time, and in one round: a thousand Revocations at once hold up no keys.
const CONCURRENCY: usize = 16;
const MOST_IN_A_ROUND: usize = 128;
/// Verifiers that a sentence names.
const MOST_NAMES: usize = 8;

/// A status that differs from what the object says.
#[derive(Clone, Debug)]
pub(super) struct News<'a> {
    object: &'a Revocation,
    status: RevocationStatus,
}

pub(super) fn news<'a>(
    asked: &'a [Asked],
    newest: Option<&HeldBundle>,
    is_full: bool,
    keys: &KeyState,
    now: NumericDate,
) -> Vec<News<'a>> {
    let Some(bundle) = newest.filter(|_| !asked.is_empty()) else {
        return Vec::new();
    };
    let held: BTreeSet<_> = bundle.bundle().revocations.iter().map(identity).collect();
    let statuses = asked.iter().map(|asked| {
        let is_held = asked
            .entry
            .as_ref()
            .is_ok_and(|entry| held.contains(&identity(entry)));
        News {
            object: &asked.object,
            status: status(asked, is_held, is_full, keys, now),
        }
    });
    statuses
        .filter(|news| news.object.status.as_ref() != Some(&news.status))
        .collect()
}

/// `false` where some are still to be written.
pub(super) async fn write_all(client: &Client, mut news: Vec<News<'_>>) -> bool {
    let is_all = news.len() <= MOST_IN_A_ROUND;
    news.truncate(MOST_IN_A_ROUND);
    let writes: Vec<_> = news
        .iter()
        .map(|news| write(client, news.object, &news.status))
        .collect();
    let written: Vec<_> = stream::iter(writes).buffer_unordered(CONCURRENCY).collect().await;
    let mut is_worth_trying_soon = !is_all;
    for error in written.into_iter().filter_map(Result::err) {
        tracing::warn!(reason = error.message(), "{error}");
        is_worth_trying_soon |= error.code() != Some(403);
    }
    !is_worth_trying_soon
}

/// Of this very object; one that is gone needs no status.
pub(crate) async fn write(
    client: &Client,
    object: &Revocation,
    status: &RevocationStatus,
) -> Result<(), ApiError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<Revocation>::namespaced(client.clone(), &namespace);
    let patch = json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "Revocation",
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(&patch);
    let what = format!("cannot write the status of Revocation {namespace}/{name}");
    match within(WRITE_TIMEOUT, what, api.patch_status(&name, &params, &patch)).await {
        Err(error) if !matches!(error.code(), Some(404 | 409)) => Err(error),
        _ => Ok(()),
    }
}

/// The status of one that no verifier is told of.
pub(crate) fn held_by_nobody(object: &Revocation, trouble: &Trouble, now: Timestamp) -> RevocationStatus {
    let verdict = Verdict::new(Truth::False, trouble.reason, &trouble.sentence);
    RevocationStatus {
        observed_generation: object.metadata.generation,
        conditions: vec![enforced(object, &verdict, now)],
        ..RevocationStatus::default()
    }
}

/// `is_held`: the newest bundle has it. `is_full`: that bundle does not hold all that was asked for.
fn status(
    asked: &Asked,
    is_held: bool,
    is_full: bool,
    keys: &KeyState,
    now: NumericDate,
) -> RevocationStatus {
    let object = &asked.object;
    let newest = keys.newest.map_or(0, |(generation, _)| generation.number());
    let newest = i64::try_from(newest).unwrap_or(i64::MAX);
    // A chain that was made anew counts from the beginning.
    let known = object.status.as_ref().filter(|said| {
        let is_of_chain = said.bundle_generation.is_some_and(|first| first <= newest);
        is_held && is_of_chain && said.observed_generation == object.metadata.generation
    });
    let is_enforced = |said: &&RevocationStatus| said.conditions.iter().any(|stood| stood.status == "True");
    if let Some(known) = known.filter(is_enforced) {
        return known.clone();
    }
    let instant = timestamp(now);
    let verdict = match &asked.entry {
        Err(trouble) => return held_by_nobody(object, trouble, instant),
        Ok(_) if is_held => progress(keys),
        Ok(entry) => not_held(entry, is_full, now),
    };
    RevocationStatus {
        observed_generation: object.metadata.generation,
        bundle_generation: known
            .and_then(|known| known.bundle_generation)
            .or(is_held.then_some(newest)),
        acknowledged: if is_held { count(keys.acknowledged) } else { 0 },
        verifiers: count(keys.verifiers),
        conditions: vec![enforced(object, &verdict, instant)],
    }
}

/// How many hold a bundle that has it.
fn progress(keys: &KeyState) -> Verdict {
    let KeyState {
        acknowledged,
        verifiers,
        ..
    } = *keys;
    if keys.is_settled && acknowledged >= verifiers {
        return Verdict::new(
            Truth::True,
            Reason::Enforced,
            "every verifier refuses what it names",
        );
    }
    let mut laggards: Vec<&Laggard> = keys.laggards.iter().collect();
    laggards.sort_by_key(|laggard| &laggard.name);
    let mut names: Vec<String> = laggards
        .iter()
        .take(MOST_NAMES)
        .map(|laggard| match laggard.reason {
            LaggardReason::Behind => laggard.name.clone(),
            reason => format!("{} ({reason})", laggard.name),
        })
        .collect();
    match laggards.len().saturating_sub(MOST_NAMES) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    let names = names.join(", ");
    let what = format!("{acknowledged} of {verifiers} verifiers refuse what it names; not yet: {names}");
    let is_on_its_way = laggards
        .iter()
        .all(|laggard| laggard.reason == LaggardReason::Behind);
    if is_on_its_way {
        return Verdict::new(Truth::False, Reason::Distributing, what);
    }
    let remedy = "a pod that does not recover is replaced by kubectl delete pod";
    Verdict::new(Truth::False, Reason::Laggards, format!("{what}; {remedy}"))
}

fn not_held(entry: &Entry, is_full: bool, now: NumericDate) -> Verdict {
    if entry.expires.is_some_and(|expires| expires < now) {
        let says = "whatever it names has expired; delete it";
        return Verdict::new(Truth::True, Reason::Expired, says);
    }
    if is_full {
        let says = "the key bundle holds no more revocations, so nobody is told of it; delete expired ones";
        return Verdict::new(Truth::False, Reason::BundleFull, says);
    }
    Verdict::new(
        Truth::False,
        Reason::Distributing,
        "the next key bundle will have it",
    )
}

fn enforced(object: &Revocation, verdict: &Verdict, now: Timestamp) -> Condition {
    let before = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    condition(ENFORCED, verdict, object.metadata.generation, before, now)
}

/// What tells one entry from another.
fn identity(entry: &Entry) -> (RevocationKind, ShortDigest, NumericDate, &str) {
    (entry.kind, entry.digest, entry.issued_before, &entry.issuer)
}

fn timestamp(date: NumericDate) -> Timestamp {
    let seconds = i64::try_from(date.as_seconds()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use servicechain_keys::{Digest, Generation, PodId};

    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn now() -> NumericDate {
        NumericDate::from_seconds(NOW)
    }

    fn asked(status: Option<RevocationStatus>) -> Asked {
        let object = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "Revocation",
            "metadata": {"name": "r", "namespace": "shop", "uid": "1", "generation": 1},
            "spec": {"chainRef": {"name": "shop"}, "issuer": "platform", "tokenID": "t"},
        });
        let mut object: Revocation = serde_json::from_value(object).unwrap();
        object.status = status;
        Asked {
            object,
            entry: Ok(Entry {
                issuer: "platform".to_owned(),
                kind: RevocationKind::Jti,
                digest: ShortDigest::of("t"),
                issued_before: now(),
                expires: Some(now()),
            }),
        }
    }

    fn keys(generation: u64, laggards: &[(&str, LaggardReason)]) -> KeyState {
        let laggards: Vec<_> = laggards
            .iter()
            .map(|(name, reason)| Laggard {
                name: (*name).to_owned(),
                pod: PodId::new((*name).to_owned()).unwrap(),
                generation: None,
                reason: *reason,
                falsehood: None,
                since: now(),
            })
            .collect();
        KeyState {
            newest: Some((Generation::new(generation), Digest::of(b""))),
            acknowledged: 4 - laggards.len(),
            verifiers: 4,
            laggards,
            is_settled: true,
            ..KeyState::default()
        }
    }

    fn said(status: &RevocationStatus) -> (&str, &str, &str) {
        let condition = &status.conditions[0];
        (&condition.status, &condition.reason, &condition.message)
    }

    #[test]
    fn it_is_enforced_once_every_verifier_holds_it_and_names_those_who_do_not() {
        let silent = [
            ("b-1", LaggardReason::Unreachable),
            ("a-1", LaggardReason::Behind),
        ];
        let some = status(&asked(None), true, false, &keys(9, &silent), now());
        assert_eq!(
            said(&some),
            (
                "False",
                "Laggards",
                "2 of 4 verifiers refuse what it names; not yet: a-1, b-1 (does not answer); a pod that does not \
                 recover is replaced by kubectl delete pod"
            )
        );
        assert_eq!(
            (some.bundle_generation, some.acknowledged, some.verifiers),
            (Some(9), 2, 4)
        );
        let behind = status(&asked(None), true, false, &keys(9, &silent[1..]), now());
        assert_eq!(said(&behind).1, "Distributing");
        // The bundle that was the first to have it stays so.
        let all = status(&asked(Some(some)), true, false, &keys(10, &[]), now());
        assert_eq!((said(&all).0, said(&all).1), ("True", "Enforced"));
        assert_eq!((all.bundle_generation, all.acknowledged), (Some(9), 4));
        let unsettled = KeyState {
            is_settled: false,
            ..keys(9, &[])
        };
        let heard_of_nobody = status(&asked(None), true, false, &unsettled, now());
        assert_eq!(said(&heard_of_nobody).0, "False");
    }

    #[test]
    fn what_was_enforced_stays_said_until_the_bundle_lacks_it() {
        let enforced = status(&asked(None), true, false, &keys(9, &[]), now());
        let silent = keys(12, &[("b-1", LaggardReason::Unreachable)]);
        let later = status(&asked(Some(enforced.clone())), true, false, &silent, now());
        assert_eq!(later, enforced);
        let lost = status(&asked(Some(enforced.clone())), false, false, &silent, now());
        assert_eq!(said(&lost).1, "Distributing");
        let made_anew = keys(2, &[("b-1", LaggardReason::Behind)]);
        let anew = status(&asked(Some(enforced)), true, false, &made_anew, now());
        assert_eq!((said(&anew).0, anew.bundle_generation), ("False", Some(2)));
    }

    #[test]
    fn what_no_bundle_has_says_why() {
        let said_of = |asked: &Asked, is_full, seconds| {
            let status = status(
                asked,
                false,
                is_full,
                &keys(9, &[]),
                NumericDate::from_seconds(seconds),
            );
            let (truth, reason, _) = said(&status);
            (truth.to_owned(), reason.to_owned(), status.bundle_generation)
        };
        let mut asked = asked(None);
        let expected = |truth: &str, reason: &str| (truth.to_owned(), reason.to_owned(), None);
        assert_eq!(said_of(&asked, false, NOW), expected("False", "Distributing"));
        assert_eq!(said_of(&asked, true, NOW), expected("False", "BundleFull"));
        assert_eq!(said_of(&asked, true, NOW + 1), expected("True", "Expired"));
        asked.entry = Err(Trouble::new(Reason::NoSuchIssuer, "x", "y"));
        assert_eq!(said_of(&asked, false, NOW), expected("False", "NoSuchIssuer"));
    }
}
