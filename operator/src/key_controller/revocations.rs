//! From `Revocation` objects to the entries of a bundle: what each one matches, until when, and which come first where
//! a bundle does not hold them all. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use servicechain_crds::validated::Revoked;
use servicechain_crds::{Revocation, ValidatedChain, ValidatedRevocation, validated_revocation};
use servicechain_keys::rotation::CLOCK_MARGIN;
use servicechain_keys::{NumericDate, Revocation as Entry, RevocationKind, ShortDigest};

use crate::controller::status::reason::{Reason, Trouble};
use crate::controller::status::words::quote;

/// A `Revocation` that names the chain, and the entry it comes to or why it comes to none.
#[derive(Clone, Debug)]
pub struct Asked {
    pub object: Revocation,
    pub entry: Result<Entry, Trouble>,
}

/// Those of the objects that name the chain.
#[must_use]
pub fn of_chain(objects: Vec<Revocation>, chain: &ValidatedChain) -> Vec<Asked> {
    let of_chain = objects
        .into_iter()
        .filter(|object| object.spec.chain_ref.name == chain.name);
    of_chain
        .map(|object| Asked {
            entry: asked_entry(&object, chain),
            object,
        })
        .collect()
}

/// What is asked for, the most important first: what matches more tokens before what matches fewer, then the younger
/// before the older.
#[must_use]
pub fn entries(asked: &[Asked]) -> Vec<Entry> {
    let mut entries: Vec<(NumericDate, &Entry)> = asked
        .iter()
        .filter_map(|asked| Some((created(&asked.object), asked.entry.as_ref().ok()?)))
        .collect();
    // To the end the same whatever the order of the objects: another order would be another bundle.
    entries.sort_by(|(created, entry), (other_created, other)| {
        let key = |created: NumericDate, entry: &Entry| {
            (
                rank(entry.kind),
                Reverse(created),
                entry.digest,
                entry.issued_before,
            )
        };
        key(*created, entry)
            .cmp(&key(*other_created, other))
            .then_with(|| entry.issuer.cmp(&other.issuer))
    });
    entries.into_iter().map(|(_, entry)| entry.clone()).collect()
}

fn asked_entry(object: &Revocation, chain: &ValidatedChain) -> Result<Entry, Trouble> {
    let revocation = validated_revocation(object).map_err(|mistakes| {
        let what = format!("it means nothing ({})", quote(&mistakes.to_string()));
        Trouble::new(Reason::Invalid, what, "delete it and create another one")
    })?;
    if chain.issuer(&revocation.issuer).is_none() {
        let what = format!("chain {} has no issuer {}", chain.name, revocation.issuer);
        return Err(Trouble::new(
            Reason::NoSuchIssuer,
            what,
            "name one of spec.issuers of the chain",
        ));
    }
    Ok(entry(revocation, created(object), chain))
}

fn created(object: &Revocation) -> NumericDate {
    let created = object.metadata.creation_timestamp.as_ref();
    created.map_or(NumericDate::default(), |time| date(time.0))
}

fn entry(revocation: ValidatedRevocation, created: NumericDate, chain: &ValidatedChain) -> Entry {
    let policy = &chain.token_policy;
    // So long after a token was issued, no clock takes it any more.
    let longest = policy.max_token_lifetime + policy.clock_skew + CLOCK_MARGIN;
    // An issuer whose clock is ahead stamps tokens of before with a time of after; how far it may be ahead is known.
    let before_creation = created.plus(policy.clock_skew);
    let asked = created.plus(revocation.expires_after.unwrap_or(Duration::ZERO));
    let kept = asked.max(before_creation.plus(longest));
    // What names one thing matches every token of it for which it is kept long enough.
    let while_kept = kept.minus(longest);
    let given_or_creation =
        |given: &Option<Time>| given.as_ref().map_or(before_creation, |time| date(time.0));
    let (kind, digest, issued_before) = match &revocation.revoked {
        Revoked::Key(kid) => (RevocationKind::Key, ShortDigest::of(kid), while_kept),
        Revoked::Session(session) => (RevocationKind::Sid, ShortDigest::of(session), while_kept),
        Revoked::Token(token) => (RevocationKind::Jti, ShortDigest::of(token), while_kept),
        Revoked::Subject {
            subject,
            issued_before,
        } => (
            RevocationKind::Sub,
            ShortDigest::of(subject),
            given_or_creation(issued_before),
        ),
        Revoked::Client {
            client_id,
            issued_before,
        } => (
            RevocationKind::ClientId,
            ShortDigest::of(client_id),
            given_or_creation(issued_before),
        ),
        Revoked::Everything { issued_before } => {
            (RevocationKind::Issuer, ShortDigest::of(""), date(issued_before.0))
        }
    };
    Entry {
        issuer: revocation.issuer,
        kind,
        digest,
        issued_before,
        // A key could come back for as long as anybody offers it: its entry ends with its object.
        expires: (kind != RevocationKind::Key).then(|| kept.max(issued_before.plus(longest))),
    }
}

const fn rank(kind: RevocationKind) -> u8 {
    match kind {
        RevocationKind::Key => 0,
        RevocationKind::Issuer => 1,
        RevocationKind::ClientId => 2,
        RevocationKind::Sub => 3,
        RevocationKind::Sid => 4,
        RevocationKind::Jti => 5,
    }
}

/// A time before 1970 counts as 1970.
pub(super) fn date(time: jiff::Timestamp) -> NumericDate {
    NumericDate::from_seconds(u64::try_from(time.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use servicechain_crds::{ServiceChain, validated};

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const CREATED: u64 = 1_767_225_600;
    const DAY: u64 = 86_400;
    const SKEW: u64 = 30;

    fn entries(objects: &[Revocation], chain: &ValidatedChain) -> Vec<Entry> {
        super::entries(&of_chain(objects.to_vec(), chain))
    }

    fn chain() -> ValidatedChain {
        let chain: ServiceChain = serde_json::from_value(json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop", "uid": "1"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [{"name": "platform", "managed": {}}],
                "tokenPolicy": {"maxTokenLifetime": "24h", "clockSkew": "30s"},
                "gateway": {"routes": [{"name": "items", "service": "a"}]},
                "services": [{"name": "a", "database": {"managed": {}}}],
            },
        }))
        .unwrap();
        validated(&chain).unwrap()
    }

    fn object(name: &str, created: &str, what: &Value) -> Revocation {
        let mut spec = json!({"chainRef": {"name": "shop"}, "issuer": "platform"});
        spec.as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "Revocation",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": spec,
        }))
        .unwrap()
    }

    fn one(what: &Value) -> Entry {
        let mut found = entries(&[object("r", "2026-01-01T00:00:00Z", what)], &chain());
        assert_eq!(found.len(), 1, "{what}");
        found.remove(0)
    }

    fn at(seconds: u64) -> NumericDate {
        NumericDate::from_seconds(seconds)
    }

    #[test]
    fn an_entry_matches_what_was_issued_before_its_object_on_any_allowed_clock() {
        let entry = one(&json!({"subject": "mallory"}));
        assert_eq!(
            (entry.kind, entry.digest),
            (RevocationKind::Sub, ShortDigest::of("mallory"))
        );
        assert_eq!(entry.issued_before, at(CREATED + SKEW));
        let given = one(&json!({"subject": "mallory", "issuedBefore": "2025-12-31T00:00:00Z"}));
        assert_eq!(given.issued_before, at(CREATED - DAY));
        let client = one(&json!({"clientID": "demo"}));
        assert_eq!(
            (client.kind, client.digest, client.issued_before),
            (
                RevocationKind::ClientId,
                ShortDigest::of("demo"),
                at(CREATED + SKEW)
            )
        );
        let to_come = one(&json!({"clientID": "demo", "issuedBefore": "2026-01-02T00:00:00Z"}));
        assert_eq!(to_come.issued_before, at(CREATED + DAY));
        let everything = one(&json!({"issuedBefore": "2026-01-02T00:00:00Z"}));
        assert_eq!(
            (everything.kind, everything.digest),
            (RevocationKind::Issuer, ShortDigest::of(""))
        );
        assert_eq!(everything.issued_before, at(CREATED + DAY));
    }

    #[test]
    fn an_entry_is_kept_until_all_it_can_match_has_expired_whatever_was_asked_for() {
        let margin = CLOCK_MARGIN.as_secs();
        let least = SKEW + DAY + SKEW + margin;
        let what = json!({"subject": "mallory", "expiresAfter": "1m"});
        assert_eq!(one(&what).expires, Some(at(CREATED + least)));
        let longer = one(&json!({"tokenID": "t", "expiresAfter": "48h"}));
        assert_eq!(
            (longer.kind, longer.expires),
            (RevocationKind::Jti, Some(at(CREATED + 2 * DAY)))
        );
        assert_eq!(longer.issued_before, at(CREATED + 2 * DAY - DAY - SKEW - margin));
        let future = one(&json!({"issuedBefore": "2026-01-11T00:00:00Z"}));
        assert_eq!(future.expires, Some(at(CREATED + 10 * DAY + DAY + SKEW + margin)));
        assert_eq!(one(&json!({"key": "k1", "expiresAfter": "1m"})).expires, None);
    }

    #[test]
    fn what_matches_more_comes_first_and_the_order_of_the_objects_means_nothing() {
        let kinds = [
            ("a", "2026-01-01T00:00:00Z", json!({"tokenID": "t"})),
            ("b", "2026-01-01T00:00:00Z", json!({"subject": "old"})),
            ("c", "2026-01-02T00:00:00Z", json!({"subject": "new"})),
            (
                "d",
                "2026-01-01T00:00:00Z",
                json!({"issuedBefore": "2026-01-01T00:00:00Z"}),
            ),
            ("e", "2026-01-01T00:00:00Z", json!({"sessionID": "s"})),
            ("g", "2026-01-01T00:00:00Z", json!({"clientID": "c"})),
            ("f", "2026-01-01T00:00:00Z", json!({"key": "k"})),
        ];
        let mut objects: Vec<_> = kinds
            .iter()
            .map(|(name, created, what)| object(name, created, what))
            .collect();
        let found = entries(&objects, &chain());
        let digests: Vec<_> = found.iter().map(|entry| entry.digest).collect();
        assert_eq!(
            digests,
            ["k", "", "c", "new", "old", "s", "t"].map(ShortDigest::of)
        );
        objects.reverse();
        assert_eq!(entries(&objects, &chain()), found);
    }

    #[test]
    fn what_names_another_chain_or_an_issuer_that_is_gone_takes_no_place() {
        let other_chain = json!({"chainRef": {"name": "other"}, "subject": "mallory"});
        let other_issuer = json!({"issuer": "corp", "subject": "mallory"});
        let objects = [other_chain, other_issuer].map(|what| object("r", "2026-01-01T00:00:00Z", &what));
        assert_eq!(entries(&objects, &chain()), []);
        let asked = of_chain(objects.to_vec(), &chain());
        let reasons: Vec<_> = asked
            .iter()
            .map(|asked| asked.entry.as_ref().unwrap_err())
            .collect();
        assert_eq!(reasons.len(), 1, "another chain's is not this chain's to judge");
        assert_eq!(
            (reasons[0].reason, reasons[0].what()),
            (Reason::NoSuchIssuer, "chain shop has no issuer corp")
        );
    }
}
