//! Who is trusted to sign bundles: the trust key, and its public anchors in every pod. It must not know what a bundle
//! holds.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::base64url::{self, NotBase64url};
use crate::identity::ChainId;
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

/// Why some text is no trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATrustAnchor {
    #[error("expected the 32 bytes of an Ed25519 public key in base64url")]
    Encoding(#[from] NotBase64url),
    #[error("not a usable Ed25519 public key")]
    Key(#[from] KeyRefusal),
}

impl TrustAnchor {
    /// The anchor of a raw Ed25519 public key (RFC 8032).
    ///
    /// # Errors
    /// [`NotATrustAnchor::Key`] for a point that is no usable key.
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
