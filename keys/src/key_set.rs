//! The keys of one issuer, parsed once, and how a token finds its own among them. A key set never mixes issuers, and
//! it must not know what a token claims.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::bundle::{MAX_BUNDLE_BYTES, MAX_KEYS_PER_ISSUER};
use crate::jwk::{Jwk, KeyRefusal, Thumbprint};
use crate::numeric_date::NumericDate;
use crate::strict_json::{self, NotStrictJson};

/// The signature does not verify with this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad signature")]
pub struct BadSignature;

/// A public key, ready to verify with.
pub struct VerificationKey {
    kid: Option<String>,
    algorithm: Algorithm,
    thumbprint: Thumbprint,
    accepted_until: Option<NumericDate>,
    max_lifetime: Option<Duration>,
    parsed: ParsedPublicKey,
}

impl VerificationKey {
    #[must_use]
    pub fn new(jwk: &Jwk) -> Self {
        Self {
            kid: jwk.kid().map(str::to_owned),
            algorithm: jwk.algorithm(),
            thumbprint: jwk.thumbprint(),
            accepted_until: None,
            max_lifetime: None,
            parsed: jwk.parsed().clone(),
        }
    }

    pub(crate) fn bounded(mut self, accepted_until: Option<NumericDate>, max_lifetime: Duration) -> Self {
        self.accepted_until = accepted_until;
        self.max_lifetime = Some(max_lifetime);
        self
    }

    /// Keys of a bundle always have one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// False once a key that its issuer withdrew has outlived its grace.
    #[must_use]
    pub fn is_accepted_at(&self, now: NumericDate) -> bool {
        self.accepted_until.is_none_or(|until| now < until)
    }

    /// When that grace ends, for a key that was withdrawn.
    #[must_use]
    pub const fn accepted_until(&self) -> Option<NumericDate> {
        self.accepted_until
    }

    /// The longest life of a token signed by it, where the bundle bounds that.
    #[must_use]
    pub const fn max_lifetime(&self) -> Option<Duration> {
        self.max_lifetime
    }

    /// `signing_input` is the first two parts of a compact JWS with their dot (RFC 7515 section 5.2). ECDSA signatures
    /// are the fixed-length R and S of RFC 7518 section 3.4.
    pub fn verify(&self, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.parsed
            .verify_sig(signing_input, signature)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

/// The keys of one issuer, as a verifier uses them.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
}

/// What a token's `kid` and `alg` lead to.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    Key(&'a Arc<VerificationKey>),
    /// No key has this `kid`.
    UnknownKid,
    /// No `kid`, and more than one key fits.
    Ambiguous,
    /// The key is pinned to another algorithm, or without a `kid` no key has this one.
    AlgorithmMismatch,
    /// The set has no key at all.
    Empty,
}

/// A key of a JWKS that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// Its place in the document, from 0.
    pub index: usize,
    pub kid: Option<String>,
    pub reason: KeyRefusal,
}

/// The document as a whole says nothing.
#[derive(Debug, thiserror::Error)]
pub enum MalformedKeySet {
    #[error("larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    #[error("not a JSON object")]
    Json(#[from] NotStrictJson),
    #[error("no array `keys`")]
    NoKeys,
}

impl KeySet {
    /// Reads a JWKS (RFC 7517 section 5). Odd keys are left out one by one; what remains is used.
    ///
    /// # Errors
    /// The document itself is no JWKS.
    pub fn from_jwks(
        bytes: &[u8],
        allowed: &[Algorithm],
    ) -> Result<(Self, Vec<RefusedKey>), MalformedKeySet> {
        let (accepted, refused) = accept_jwks(bytes, allowed)?;
        Ok((Self::new(accepted.iter().map(VerificationKey::new)), refused))
    }

    pub(crate) fn new(keys: impl IntoIterator<Item = VerificationKey>) -> Self {
        Self {
            keys: keys.into_iter().map(Arc::new).collect(),
        }
    }

    /// The one key that may verify a token: among this issuer's, by its `kid`, and only for the algorithm that it is
    /// pinned to (RFC 8725 section 3.1).
    #[must_use]
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        if self.keys.is_empty() {
            return Found::Empty;
        }
        if let Some(kid) = kid {
            return match self.keys.iter().find(|key| key.kid() == Some(kid)) {
                None => Found::UnknownKid,
                Some(key) if key.algorithm == algorithm => Found::Key(key),
                Some(_) => Found::AlgorithmMismatch,
            };
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key),
            (Some(_), Some(_)) => Found::Ambiguous,
            (None, _) => Found::AlgorithmMismatch,
        }
    }

    /// Whether this very key is still in the set: what keeps a verdict that it gave.
    #[must_use]
    pub fn contains(&self, kid: Option<&str>, thumbprint: Thumbprint) -> bool {
        self.keys
            .iter()
            .any(|key| key.thumbprint == thumbprint && key.kid() == kid)
    }

    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<VerificationKey>> {
        self.keys.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The keys of a JWKS that may enter a bundle, and those that may not, each with its reason.
///
/// # Errors
/// The document itself is no JWKS.
pub fn accept_jwks(
    bytes: &[u8],
    allowed: &[Algorithm],
) -> Result<(Vec<Jwk>, Vec<RefusedKey>), MalformedKeySet> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(MalformedKeySet::TooLarge);
    }
    let document = strict_json::object(bytes)?;
    let Some(Value::Array(entries)) = document.get("keys") else {
        return Err(MalformedKeySet::NoKeys);
    };
    let mut accepted: Vec<(usize, Jwk)> = Vec::new();
    let mut refused = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let parsed = entry
            .as_object()
            .ok_or(KeyRefusal::Member("kty"))
            .and_then(|members| Jwk::parse(members, allowed));
        match parsed {
            Ok(jwk) => accepted.push((index, jwk)),
            Err(reason) => {
                let kid = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
                refused.push(RefusedKey { index, kid, reason });
            }
        }
    }
    let mut uses: HashMap<String, usize> = HashMap::new();
    for kid in accepted.iter().filter_map(|(_, jwk)| jwk.kid()) {
        *uses.entry(kid.to_owned()).or_default() += 1;
    }
    let mut kept = Vec::new();
    for (index, jwk) in accepted {
        let reason = if jwk
            .kid()
            .is_some_and(|kid| uses.get(kid).is_some_and(|uses| *uses > 1))
        {
            KeyRefusal::DuplicateKid
        } else if kept.len() == MAX_KEYS_PER_ISSUER {
            KeyRefusal::TooMany
        } else {
            kept.push(jwk);
            continue;
        };
        refused.push(RefusedKey {
            index,
            kid: jwk.kid().map(str::to_owned),
            reason,
        });
    }
    Ok((kept, refused))
}
