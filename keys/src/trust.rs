//! Who is trusted: the trust key that signs bundles, its public anchors in every pod, and the root secret from which
//! each workload's acknowledgement key comes. Secrets are wiped on drop and never shown.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hkdf, hmac};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::acknowledgement::Nonce;
use crate::base64url::{self, NotBase64url};
use crate::identity::{ChainId, PodId, Workload};
use crate::jwk::{Jwk, KeyRefusal, Thumbprint};
use crate::jws;
use crate::key_set::{BadSignature, VerificationKey};

/// The chain a verifier belongs to, and who may sign its bundles.
#[derive(Clone, Debug)]
pub struct Trust {
    pub chain: ChainId,
    /// One; two while the trust key is being replaced.
    pub anchors: Vec<TrustAnchor>,
}

impl Trust {
    #[must_use]
    pub fn new(chain: ChainId, anchors: Vec<TrustAnchor>) -> Self {
        Self { chain, anchors }
    }

    pub(crate) fn anchor(&self, kid: &str) -> Option<&TrustAnchor> {
        self.anchors.iter().find(|anchor| anchor.kid() == kid)
    }
}

/// An Ed25519 public key, written as its 32 bytes in base64url.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    jwk: Jwk,
    kid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATrustAnchor {
    #[error("expected the 32 bytes of an Ed25519 public key in base64url")]
    Encoding(#[from] NotBase64url),
    #[error("not a usable Ed25519 public key")]
    Key(#[from] KeyRefusal),
}

impl TrustAnchor {
    pub fn from_public_key(public: &[u8; 32]) -> Result<Self, NotATrustAnchor> {
        let jwk = Jwk::ed25519(None, public)?.named_by_thumbprint();
        Ok(Self {
            kid: jwk.thumbprint().to_string(),
            jwk,
        })
    }

    /// Its RFC 7638 thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.jwk.thumbprint()
    }

    pub(crate) fn verify(&self, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        VerificationKey::new(&self.jwk).verify(signing_input, signature)
    }
}

impl PartialEq for TrustAnchor {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid
    }
}

impl Eq for TrustAnchor {}

impl FromStr for TrustAnchor {
    type Err = NotATrustAnchor;

    fn from_str(text: &str) -> Result<Self, NotATrustAnchor> {
        Self::from_public_key(&base64url::decode_array(text)?)
    }
}

impl fmt::Display for TrustAnchor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&base64url::encode(self.jwk.parsed()))
    }
}

impl Serialize for TrustAnchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TrustAnchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Signs bundles and nothing else. The key itself lives in aws-lc, which wipes it on drop.
pub struct TrustKey {
    pair: Ed25519KeyPair,
    anchor: TrustAnchor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Ed25519 private key")]
pub struct NotATrustKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing failed")]
pub struct SigningFailed;

impl TrustKey {
    /// From 32 bytes of randomness, which the caller wipes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NotATrustKey> {
        Self::new(Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NotATrustKey)?)
    }

    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NotATrustKey> {
        Self::new(Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| NotATrustKey)?)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, NotATrustKey> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| NotATrustKey)?;
        let anchor = TrustAnchor::from_public_key(&public).map_err(|_| NotATrustKey)?;
        Ok(Self { pair, anchor })
    }

    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, NotATrustKey> {
        let document = self.pair.to_pkcs8().map_err(|_| NotATrustKey)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    #[must_use]
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    pub(crate) fn sign_compact(
        &self,
        header: &Map<String, Value>,
        payload: &[u8],
    ) -> Result<String, SigningFailed> {
        let signing_input = jws::signing_input(header, payload);
        let signature = self
            .pair
            .try_sign(signing_input.as_bytes())
            .map_err(|_| SigningFailed)?;
        Ok(format!("{signing_input}.{}", base64url::encode(signature)))
    }
}

impl fmt::Debug for TrustKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TrustKey")
            .field("kid", &self.anchor.kid)
            .finish_non_exhaustive()
    }
}

/// 32 random bytes beside the trust key, from which every acknowledgement key is derived.
pub struct RootSecret(Zeroizing<[u8; 32]>);

impl RootSecret {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// What is kept in the Secret, base64url.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64url::encode(*self.0))
    }

    /// HKDF-SHA256 (RFC 5869) without salt; chain and workload are the info, each with its length.
    #[must_use]
    pub fn ack_key(&self, chain: &ChainId, workload: &Workload) -> AckKey {
        let fields = [
            b"servicechain acknowledgement key v1",
            chain.as_str().as_bytes(),
            workload.as_str().as_bytes(),
        ];
        let info: Vec<u8> = fields.into_iter().flat_map(with_length).collect();
        let mut bytes = Zeroizing::new([0; 32]);
        let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(self.0.as_slice())
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(bytes.as_mut_slice()));
        debug_assert!(filled.is_ok(), "one hash length is always available");
        AckKey(bytes)
    }
}

impl FromStr for RootSecret {
    type Err = NotBase64url;

    fn from_str(text: &str) -> Result<Self, NotBase64url> {
        base64url::decode_array(text.trim_end()).map(Self::new)
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RootSecret(redacted)")
    }
}

/// Authenticates answers and knocks between one workload's pods and the operator.
#[derive(Clone)]
pub struct AckKey(Zeroizing<[u8; 32]>);

/// What a MAC is over, so that none can be used as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A pod's answer to a push or a poll.
    Answer,
    Knock,
    KnockAnswer,
}

impl Label {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Answer => b"servicechain answer v1",
            Self::Knock => b"servicechain knock v1",
            Self::KnockAnswer => b"servicechain knock-answer v1",
        }
    }
}

/// HMAC-SHA256, base64url in the header `Mac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message authentication code does not fit")]
pub struct BadMac;

impl AckKey {
    /// What is kept in the workload's Secret, base64url.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64url::encode(*self.0))
    }

    /// Over (label, nonce, pod id, body), each with its length.
    #[must_use]
    pub fn mac(&self, label: Label, nonce: &Nonce, pod: &PodId, body: &[u8]) -> Mac {
        let mut bytes = [0; 32];
        let tag = hmac::sign(&self.hmac_key(), &message(label, nonce, pod, body));
        bytes.copy_from_slice(tag.as_ref());
        Mac(bytes)
    }

    /// In constant time.
    pub fn verify_mac(
        &self,
        mac: &Mac,
        label: Label,
        nonce: &Nonce,
        pod: &PodId,
        body: &[u8],
    ) -> Result<(), BadMac> {
        hmac::verify(&self.hmac_key(), &message(label, nonce, pod, body), &mac.0).map_err(|_| BadMac)
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice())
    }
}

impl FromStr for AckKey {
    type Err = NotBase64url;

    fn from_str(text: &str) -> Result<Self, NotBase64url> {
        base64url::decode_array(text.trim_end()).map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for AckKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AckKey(redacted)")
    }
}

impl FromStr for Mac {
    type Err = NotBase64url;

    fn from_str(text: &str) -> Result<Self, NotBase64url> {
        base64url::decode_array(text).map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&base64url::encode(self.0))
    }
}

fn message(label: Label, nonce: &Nonce, pod: &PodId, body: &[u8]) -> Vec<u8> {
    [label.name(), nonce.as_bytes(), pod.as_str().as_bytes(), body]
        .into_iter()
        .flat_map(with_length)
        .collect()
}

/// Without lengths two different lists of fields could join to the same bytes.
fn with_length(field: &[u8]) -> impl Iterator<Item = u8> {
    (field.len() as u64)
        .to_be_bytes()
        .into_iter()
        .chain(field.iter().copied())
}
