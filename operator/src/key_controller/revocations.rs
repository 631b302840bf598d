//! From `Revocation` objects to the entries of a bundle: what each one matches, until when, and which come first where
//! a bundle does not hold them all. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use servicechain_crds::validated::Revoked;
use servicechain_crds::{Revocation, ValidatedChain, ValidatedRevocation, validated_revocation};
use servicechain_keys::rotation::CLOCK_MARGIN;
use servicechain_keys::{NumericDate, Revocation as Entry, RevocationKind, ShortDigest};

/// The entries of those objects that name the chain and one of its issuers, the most important first: what matches more
/// tokens before what matches fewer, then the younger before the older.
#[must_use]
pub fn entries(objects: &[Revocation], chain: &ValidatedChain) -> Vec<Entry> {
    let mut entries: Vec<(NumericDate, Entry)> = objects
        .iter()
        .filter_map(|object| {
            let revocation = validated_revocation(object)
                .inspect_err(|mistakes| {
                    let name = object.metadata.name.as_deref();
                    tracing::warn!(revocation = name, %mistakes, "a Revocation that means nothing is not enforced");
                })
                .ok()?;
            let is_meant = revocation.chain == chain.name && chain.issuer(&revocation.issuer).is_some();
            let created = object.metadata.creation_timestamp.as_ref();
            let created = created.map_or(NumericDate::default(), |time| date(time.0));
            is_meant.then(|| (created, entry(revocation, created, chain)))
        })
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
    entries.into_iter().map(|(_, entry)| entry).collect()
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
    let (kind, digest, issued_before) = match &revocation.revoked {
        Revoked::Key(kid) => (RevocationKind::Key, ShortDigest::of(kid), while_kept),
        Revoked::Session(session) => (RevocationKind::Sid, ShortDigest::of(session), while_kept),
        Revoked::Token(token) => (RevocationKind::Jti, ShortDigest::of(token), while_kept),
        Revoked::Subject {
            subject,
            issued_before,
        } => {
            let given = issued_before.as_ref().map(|time| date(time.0));
            (
                RevocationKind::Sub,
                ShortDigest::of(subject),
                given.unwrap_or(before_creation),
            )
        }
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
