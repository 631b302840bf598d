//! What a pod answers to a push or a poll, authenticated by its workload's key over the asker's nonce.
//! It must not know how messages travel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ack_key::{AckKey, BadMac, Label, Mac};
use crate::base64url::{self, NotBase64url};
use crate::bundle::{Digest, Generation};
use crate::envelope::BundleRefusal;
use crate::held_bundle::HeldBundle;
use crate::identity::{PodId, Workload};
use crate::numeric_date::NumericDate;
use crate::offer::Offer;
use crate::strict_json::{self, NotStrictJson};

/// Largest answer read, in bytes: two offered keys of 8192 bits and 32 stopped ones fit many times.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// 16 random bytes, fresh for every message, so that no answer serves twice. Base64url on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// From 16 bytes of randomness.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&base64url::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Nonce {
    type Err = NotBase64url;

    fn from_str(text: &str) -> Result<Self, NotBase64url> {
        base64url::decode_array(text).map(Self)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The bundle a pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    #[serde(rename = "gen")]
    pub generation: Generation,
    /// Of the whole signed document.
    pub digest: Digest,
}

impl From<&HeldBundle> for Held {
    fn from(bundle: &HeldBundle) -> Self {
        Self {
            generation: bundle.generation(),
            digest: bundle.digest(),
        }
    }
}

/// What a pod did with what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It verifies with the delivered bundle from now on.
    Accepted,
    /// Also the outcome of a poll, which brings nothing.
    Unchanged,
    /// It keeps what it had; `reason` says why.
    Refused,
}

/// What a pod says of itself to the publisher, sealed under its workload's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub pod: PodId,
    pub workload: Workload,
    /// None before the first bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    pub outcome: Outcome,
    /// Only beside [`Outcome::Refused`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<BundleRefusal>,
    /// The held bundle would survive a restart of the container.
    pub durable: bool,
    /// The pod's clock.
    pub now: NumericDate,
    /// The bundle formats it understands.
    pub versions: Vec<u32>,
    /// The kids of its trust anchors.
    pub anchors: Vec<String>,
    /// An issuer pod's living keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// By kid, for keys it signs with no more: when the last token signed by it expires.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, NumericDate>,
    /// Why bundles that were pushed to it were refused since it started, by whomever they came: anyone may deliver.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub refused: BTreeSet<BundleRefusal>,
    /// It serves without an authority's word since its start, so it may accept what was revoked just before that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

/// A body with its `Mac` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub body: Vec<u8>,
    pub mac: Mac,
}

/// Why a message is not believed.
#[derive(Debug, thiserror::Error)]
pub enum NotAuthentic {
    #[error("too large")]
    TooLarge,
    #[error(transparent)]
    Mac(#[from] BadMac),
    #[error("not a message of the protocol")]
    Format(#[from] NotStrictJson),
    #[error("speaks of another pod than the one asked")]
    OtherPod,
}

impl Answer {
    /// # Errors
    /// Never for answers whose strings are strings; serde's own failures.
    pub fn seal(&self, key: &AckKey, nonce: &Nonce) -> Result<Sealed, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let mac = key.mac(Label::Answer, nonce, &self.pod, &body);
        Ok(Sealed { body, mac })
    }

    /// `pod` is the one dialled: an address may have gone to another pod since.
    pub fn open(
        body: &[u8],
        mac: &Mac,
        key: &AckKey,
        nonce: &Nonce,
        pod: &PodId,
    ) -> Result<Self, NotAuthentic> {
        if body.len() > MAX_ANSWER_BYTES {
            return Err(NotAuthentic::TooLarge);
        }
        key.verify_mac(mac, Label::Answer, nonce, pod, body)?;
        let answer: Self = strict_json::from_slice(body)?;
        if answer.pod != *pod {
            return Err(NotAuthentic::OtherPod);
        }
        Ok(answer)
    }
}
