//! What a verifier tells the operator by itself: that it started, or met a key it does not know; and the answer.
//! It must not know how messages travel, and never carries bytes of a token.

use serde::{Deserialize, Serialize};

use crate::ack_key::{AckKey, Label, Mac};
use crate::acknowledgement::{Nonce, NotAuthentic, Sealed};
use crate::bundle::Generation;
use crate::identity::{ChainId, PodId, Workload};
use crate::numeric_date::NumericDate;
use crate::strict_json;

/// Largest knock and largest answer to one, in bytes.
pub const MAX_KNOCK_BYTES: usize = 1024;

/// A verifier tells the operator that it started, or met an unknown key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Knock {
    pub chain: ChainId,
    pub pod: PodId,
    /// Whose key seals it, so that an operator that has not listed the pod yet can tell at once who knocks.
    pub workload: Workload,
    /// The generation held; 0 where none is.
    #[serde(rename = "gen")]
    pub generation: Generation,
    pub reason: KnockReason,
    /// The issuer's name, for an unknown kid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Fresh for every knock; the answer is sealed over it.
    pub nonce: Nonce,
    /// The pod's clock.
    pub time: NumericDate,
}

/// Why a verifier knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnockReason {
    Started,
    UnknownKid,
}

/// A leader's word on the newest generation, or who the leader is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnockAnswer {
    /// None where the answerer is not surely the leader.
    #[serde(default, rename = "gen", skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What a fetch begun after the knock brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<Fetched>,
    /// The leader's address, from one who is not it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// What a fetch of an external issuer's keys brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fetched {
    New,
    Same,
    Failed,
}

impl Knock {
    /// # Errors
    /// serde's own failures.
    pub fn seal(&self, key: &AckKey) -> Result<Sealed, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let mac = key.mac(Label::Knock, &self.nonce, &self.pod, &body);
        Ok(Sealed { body, mac })
    }

    /// Reads a knock whose sender is not yet believed, only to learn whose key must fit.
    pub fn claimed(body: &[u8]) -> Result<Self, NotAuthentic> {
        if body.len() > MAX_KNOCK_BYTES {
            return Err(NotAuthentic::TooLarge);
        }
        Ok(strict_json::from_slice(body)?)
    }

    /// `key` is that of the claimed workload.
    pub fn open(body: &[u8], mac: &Mac, key: &AckKey) -> Result<Self, NotAuthentic> {
        let knock = Self::claimed(body)?;
        key.verify_mac(mac, Label::Knock, &knock.nonce, &knock.pod, body)?;
        Ok(knock)
    }
}

impl KnockAnswer {
    /// # Errors
    /// serde's own failures.
    pub fn seal(&self, key: &AckKey, nonce: &Nonce, pod: &PodId) -> Result<Sealed, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let mac = key.mac(Label::KnockAnswer, nonce, pod, &body);
        Ok(Sealed { body, mac })
    }

    /// `nonce` and `pod` are those of the knock.
    pub fn open(
        body: &[u8],
        mac: &Mac,
        key: &AckKey,
        nonce: &Nonce,
        pod: &PodId,
    ) -> Result<Self, NotAuthentic> {
        if body.len() > MAX_KNOCK_BYTES {
            return Err(NotAuthentic::TooLarge);
        }
        key.verify_mac(mac, Label::KnockAnswer, nonce, pod, body)?;
        Ok(strict_json::from_slice(body)?)
    }
}
