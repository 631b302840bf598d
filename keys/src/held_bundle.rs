//! Signing a bundle, opening one, and taking one instead of the one held: the order of the checks is the protocol's
//! (docs: key protocol, line 16). It must not know where bytes come from or where they are kept.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::bundle::{
    Bundle, Digest, Generation, Issuer, IssuerKind, IssuerState, KeyState, MAX_ISSUERS, MAX_KEYS_PER_ISSUER,
    MAX_REVOCATIONS, RevocationKind, VERSION,
};
use crate::envelope::{self, BundleRefusal, Envelope};
use crate::identity::ChainId;
use crate::jwk::Jwk;
use crate::key_set::{KeySet, VerificationKey};
use crate::numeric_date::NumericDate;
use crate::revocation_index::RevocationIndex;
use crate::strict_json;
use crate::trust::{SigningFailed, Trust, TrustKey};

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("a value in the bundle cannot be written")]
    Unwritable(#[from] serde_json::Error),
    #[error("the trust key did not sign")]
    Signing(#[from] SigningFailed),
    /// What this code would refuse as a verifier never leaves it as a signer.
    #[error("verifiers would refuse the bundle")]
    Refused(#[from] BundleRefusal),
}

/// An authentic bundle: its bytes, its content, and every issuer's keys parsed once.
pub struct HeldBundle {
    bytes: Arc<[u8]>,
    digest: Digest,
    bundle: Bundle,
    issuers: Vec<TrustedIssuer>,
    signed_by: String,
}

/// One issuer as a verifier needs it.
#[derive(Debug)]
pub struct TrustedIssuer {
    pub name: String,
    pub iss: String,
    pub kind: IssuerKind,
    pub audiences: Vec<String>,
    /// Accepted `typ`; an empty string allows a token without one.
    pub token_types: Vec<String>,
    /// The claim that lists what a token grants.
    pub scopes_claim: String,
    /// The narrower of the issuer's and the policy's.
    pub max_token_lifetime: Duration,
    pub state: IssuerState,
    pub keys: KeySet,
    revocations: RevocationIndex,
}

impl TrustedIssuer {
    /// Whether a token issued at `issued_at` with this value is revoked. The value of `RevocationKind::Issuer` is empty.
    #[must_use]
    pub fn revokes(&self, kind: RevocationKind, value: &str, issued_at: Option<NumericDate>) -> bool {
        self.revocations.matches(kind, value, issued_at)
    }

    /// The last moment at which a token with this value is revoked from its birth, if any: what [`Self::revokes`] goes by.
    #[must_use]
    pub fn revoked_until(&self, kind: RevocationKind, value: &str) -> Option<NumericDate> {
        self.revocations.latest(kind, value)
    }
}

/// What became of a bundle that was delivered.
#[derive(Debug)]
pub enum Taken {
    Accepted(Arc<HeldBundle>),
    /// The very bundle that is held.
    Unchanged,
    Refused(BundleRefusal),
}

/// Decides about delivered bytes: size, then the header's chain, generation and kid, then the signature, then the content.
/// A lower generation costs no signature check; a fork is only called so when it is authentic.
#[must_use]
pub fn take(held: Option<&HeldBundle>, bytes: &[u8], trust: &Trust) -> Taken {
    match decide(held, bytes, trust) {
        Ok(Some(bundle)) => Taken::Accepted(Arc::new(bundle)),
        Ok(None) => Taken::Unchanged,
        Err(refusal) => Taken::Refused(refusal),
    }
}

fn decide(
    held: Option<&HeldBundle>,
    bytes: &[u8],
    trust: &Trust,
) -> Result<Option<HeldBundle>, BundleRefusal> {
    let envelope = Envelope::read(bytes, trust)?;
    let Some(held) = held else {
        return open(&envelope).map(Some);
    };
    if envelope.generation < held.generation() {
        return Err(BundleRefusal::Lower);
    }
    if envelope.generation > held.generation() {
        return open(&envelope).map(Some);
    }
    if Digest::of(bytes) == held.digest {
        return Ok(None);
    }
    envelope.verify()?;
    Err(BundleRefusal::Fork)
}

fn open(envelope: &Envelope<'_>) -> Result<HeldBundle, BundleRefusal> {
    envelope.verify()?;
    let bundle = parse_payload(&envelope.payload()?)?;
    if bundle.generation != envelope.generation || bundle.chain != envelope.trust.chain {
        return Err(BundleRefusal::Format);
    }
    let issuers = trusted_issuers(&bundle)?;
    Ok(HeldBundle {
        bytes: envelope.bytes.into(),
        digest: Digest::of(envelope.bytes),
        bundle,
        issuers,
        signed_by: envelope.anchor.kid().to_owned(),
    })
}

fn parse_payload(payload: &[u8]) -> Result<Bundle, BundleRefusal> {
    let value = strict_json::value(payload).map_err(|_| BundleRefusal::Format)?;
    let Ok(bundle) = Bundle::deserialize(&value) else {
        return Err(if has_bad_key(&value) {
            BundleRefusal::BadKey
        } else {
            BundleRefusal::Format
        });
    };
    if bundle.v != VERSION || !bundle.crit.is_empty() {
        return Err(BundleRefusal::Format);
    }
    let too_many = bundle.issuers.len() > MAX_ISSUERS
        || bundle.revocations.len() > MAX_REVOCATIONS
        || bundle
            .issuers
            .iter()
            .any(|issuer| issuer.keys.len() > MAX_KEYS_PER_ISSUER);
    if too_many {
        return Err(BundleRefusal::TooLarge);
    }
    Ok(bundle)
}

fn has_bad_key(bundle: &Value) -> bool {
    let items = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let keys = items(bundle, "issuers")
        .into_iter()
        .flat_map(|issuer| items(&issuer, "keys"));
    keys.filter_map(|key| key.get("jwk").and_then(Value::as_object).cloned())
        .any(|jwk| Jwk::parse(&jwk, &Algorithm::ALL).is_err())
}

fn trusted_issuers(bundle: &Bundle) -> Result<Vec<TrustedIssuer>, BundleRefusal> {
    for (index, issuer) in bundle.issuers.iter().enumerate() {
        let twice = |other: &Issuer| other.iss == issuer.iss || other.name == issuer.name;
        if issuer.iss.is_empty() || bundle.issuers[..index].iter().any(twice) {
            return Err(BundleRefusal::Format);
        }
    }
    bundle
        .issuers
        .iter()
        .map(|issuer| trusted_issuer(issuer, bundle))
        .collect()
}

fn trusted_issuer(issuer: &Issuer, bundle: &Bundle) -> Result<TrustedIssuer, BundleRefusal> {
    for (index, key) in issuer.keys.iter().enumerate() {
        let twice = issuer.keys[..index]
            .iter()
            .any(|other| other.jwk.kid() == key.jwk.kid());
        let endless = key.state == KeyState::Withdrawn && key.until.is_none();
        if key.jwk.kid().is_none() || twice || endless {
            return Err(BundleRefusal::BadKey);
        }
    }
    let keys = issuer.keys.iter().map(|key| {
        let until = key.until.filter(|_| key.state == KeyState::Withdrawn);
        VerificationKey::new(&key.jwk).bounded(until, key.max_lifetime)
    });
    let policy = bundle.policy.max_token_lifetime;
    Ok(TrustedIssuer {
        name: issuer.name.clone(),
        iss: issuer.iss.clone(),
        kind: issuer.kind,
        audiences: issuer.audiences.clone(),
        token_types: issuer.token_types.clone(),
        scopes_claim: issuer.scopes_claim.clone(),
        max_token_lifetime: issuer.max_token_lifetime.map_or(policy, |own| own.min(policy)),
        state: issuer.state,
        keys: KeySet::new(keys),
        revocations: RevocationIndex::new(
            bundle
                .revocations
                .iter()
                .filter(|revocation| revocation.issuer == issuer.name),
        ),
    })
}

impl HeldBundle {
    /// As [`take`] with nothing held.
    pub fn open(bytes: &[u8], trust: &Trust) -> Result<Self, BundleRefusal> {
        open(&Envelope::read(bytes, trust)?)
    }

    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The kid of the trust key that signed it.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        &self.signed_by
    }

    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.bundle.generation
    }

    #[must_use]
    pub const fn chain(&self) -> &ChainId {
        &self.bundle.chain
    }

    #[must_use]
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// By a token's `iss`, compared exactly.
    #[must_use]
    pub fn issuer(&self, iss: &str) -> Option<&TrustedIssuer> {
        self.issuers.iter().find(|issuer| issuer.iss == iss)
    }

    #[must_use]
    pub fn issuers(&self) -> &[TrustedIssuer] {
        &self.issuers
    }
}

impl fmt::Debug for HeldBundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HeldBundle")
            .field("generation", &self.bundle.generation)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Signs the bundle, and opens it again with the code of the verifiers before anybody else sees it.
    pub fn sign(&self, key: &TrustKey) -> Result<HeldBundle, SignError> {
        let header = envelope::header(self, key);
        let payload = serde_json::to_vec(self)?;
        let signed = key.sign_compact(&header, &payload)?;
        let trust = Trust::new(self.chain.clone(), vec![key.anchor().clone()]);
        Ok(HeldBundle::open(signed.as_bytes(), &trust)?)
    }
}
