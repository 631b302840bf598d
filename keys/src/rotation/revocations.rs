//! Which revocations the next bundle carries. A revoked key is named twice, by kid and by thumbprint, so that it can
//! re-enter under no other name.

use crate::bundle::{Bundle, MAX_REVOCATIONS, Revocation, RevocationKind, ShortDigest};
use crate::jwk::Jwk;
use crate::numeric_date::NumericDate;

use super::Desired;

/// What is asked for and has not expired on `earliest_clock`, and how many of these do not fit.
pub(super) fn next(
    base: Option<&Bundle>,
    desired: &Desired,
    earliest_clock: NumericDate,
) -> (Vec<Revocation>, usize) {
    // A key can come back for as long as its pod or its issuer offers it: its entry ends with its object.
    let in_force = |revocation: &&Revocation| {
        revocation.kind == RevocationKind::Key
            || revocation.expires.is_none_or(|expires| earliest_clock <= expires)
    };
    let mut revocations: Vec<Revocation> = Vec::new();
    let asked = desired.revocations.iter().filter(in_force);
    let other_names = asked.clone().flat_map(|revocation| other_names(base, revocation));
    for revocation in asked.cloned().chain(other_names) {
        if !revocations.contains(&revocation) {
            revocations.push(revocation);
        }
    }
    let left_out = revocations.len().saturating_sub(MAX_REVOCATIONS);
    revocations.truncate(MAX_REVOCATIONS);
    (revocations, left_out)
}

pub(super) fn names_key(revocations: &[Revocation], issuer: &str, jwk: &Jwk) -> bool {
    let mut of_keys = revocations
        .iter()
        .filter(|revocation| revocation.kind == RevocationKind::Key && revocation.issuer == issuer)
        .peekable();
    if of_keys.peek().is_none() {
        return false;
    }
    let names = names(jwk);
    of_keys.any(|revocation| names.contains(&revocation.digest))
}

/// The entries that follow from a revoked key while it is in the bundle, and those that followed before it left: they
/// are told by having all but the digest in common with what is asked for.
fn other_names<'a>(base: Option<&'a Bundle>, asked: &'a Revocation) -> impl Iterator<Item = Revocation> + 'a {
    let is_key = asked.kind == RevocationKind::Key;
    let base = base.filter(move |_| is_key);
    let following = base
        .into_iter()
        .flat_map(|base| &base.issuers)
        .filter(|issuer| issuer.name == asked.issuer)
        .flat_map(|issuer| &issuer.keys)
        .map(|key| names(&key.jwk))
        .filter(|names| names.contains(&asked.digest))
        .flatten()
        .map(|digest| Revocation {
            digest,
            ..asked.clone()
        });
    let followed = base
        .into_iter()
        .flat_map(|base| &base.revocations)
        .filter(|known| {
            Revocation {
                digest: asked.digest,
                ..(*known).clone()
            } == *asked
        })
        .cloned();
    following.chain(followed)
}

fn names(jwk: &Jwk) -> [ShortDigest; 2] {
    let by_thumbprint = ShortDigest::of(&jwk.thumbprint().to_string());
    [jwk.kid().map_or(by_thumbprint, ShortDigest::of), by_thumbprint]
}
