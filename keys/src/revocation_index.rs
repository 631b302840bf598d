//! Revocations of one issuer, found by digest: five thousand of them cost a verification one hash per kind in use.

use std::collections::{HashMap, HashSet};

use crate::bundle::{Revocation, RevocationKind, ShortDigest};
use crate::numeric_date::NumericDate;

#[derive(Debug, Default)]
pub(crate) struct RevocationIndex {
    kinds: HashSet<RevocationKind>,
    issued_before: HashMap<(RevocationKind, ShortDigest), NumericDate>,
}

impl RevocationIndex {
    pub(crate) fn new<'a>(revocations: impl IntoIterator<Item = &'a Revocation>) -> Self {
        let mut index = Self::default();
        for revocation in revocations {
            index.kinds.insert(revocation.kind);
            let latest = index
                .issued_before
                .entry((revocation.kind, revocation.digest))
                .or_insert(revocation.issued_before);
            *latest = revocation.issued_before.max(*latest);
        }
        index
    }

    /// `expires` plays no part: it is the publisher's, who removes an entry when all it can match has expired.
    pub(crate) fn matches(&self, kind: RevocationKind, value: &str, issued_at: Option<NumericDate>) -> bool {
        self.latest(kind, value)
            .is_some_and(|latest| issued_at.is_none_or(|issued_at| issued_at <= latest))
    }

    /// The last moment at which an issued token with this value is revoked.
    pub(crate) fn latest(&self, kind: RevocationKind, value: &str) -> Option<NumericDate> {
        let is_in_use = self.kinds.contains(&kind);
        let latest = is_in_use.then(|| self.issued_before.get(&(kind, ShortDigest::of(value))))?;
        latest.copied()
    }
}
