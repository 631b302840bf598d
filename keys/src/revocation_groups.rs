//! How a bundle writes its revocations: neighbours of one issuer and kind share those two words. Five thousand objects
//! with every name spelled out would be half as large again as a bundle may be; so they are about 330 of its 512 KiB.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bundle::{Revocation, RevocationKind, ShortDigest};
use crate::numeric_date::NumericDate;

#[derive(Serialize, Deserialize)]
struct Group {
    issuer: String,
    kind: RevocationKind,
    /// digest, `issuedBefore`, expires or null.
    entries: Vec<(ShortDigest, NumericDate, Option<NumericDate>)>,
}

pub(crate) fn serialize<S: Serializer>(revocations: &[Revocation], serializer: S) -> Result<S::Ok, S::Error> {
    let neighbours = revocations.chunk_by(|one, next| one.issuer == next.issuer && one.kind == next.kind);
    let groups = neighbours.filter_map(|group| {
        let first = group.first()?;
        let entries = group
            .iter()
            .map(|entry| (entry.digest, entry.issued_before, entry.expires));
        Some(Group {
            issuer: first.issuer.clone(),
            kind: first.kind,
            entries: entries.collect(),
        })
    });
    serializer.collect_seq(groups)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Revocation>, D::Error> {
    let groups = Vec::<Group>::deserialize(deserializer)?;
    let flat = groups.into_iter().flat_map(
        |Group {
             issuer,
             kind,
             entries,
         }| {
            entries
                .into_iter()
                .map(move |(digest, issued_before, expires)| Revocation {
                    issuer: issuer.clone(),
                    kind,
                    digest,
                    issued_before,
                    expires,
                })
        },
    );
    Ok(flat.collect())
}
