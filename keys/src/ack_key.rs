//! The secrets between pods and operator: the root secret, each workload's acknowledgement key derived from it, and
//! the codes these make. Wiped on drop, never shown.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::acknowledgement::Nonce;
use crate::base64url::{self, NotBase64url};
use crate::identity::{ChainId, PodId, Workload};

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
        let fields: [&[u8]; 3] = [
            b"servicechain acknowledgement key v1",
            chain.as_str().as_bytes(),
            workload.as_str().as_bytes(),
        ];
        AckKey(self.derived(&fields))
    }

    /// Authenticates what the operator keeps of a chain where others may write. Its key is that chain's own, derived like
    /// an acknowledgement key under another label.
    #[must_use]
    pub fn seal(&self, chain: &ChainId, kept: &[u8]) -> Mac {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.sealing_key(chain), kept).as_ref());
        Mac(bytes)
    }

    /// In constant time.
    pub fn verify_seal(&self, seal: &Mac, chain: &ChainId, kept: &[u8]) -> Result<(), BadMac> {
        hmac::verify(&self.sealing_key(chain), kept, &seal.0).map_err(|_| BadMac)
    }

    fn sealing_key(&self, chain: &ChainId) -> hmac::Key {
        let fields: [&[u8]; 2] = [b"servicechain seal v1", chain.as_str().as_bytes()];
        hmac::Key::new(hmac::HMAC_SHA256, self.derived(&fields).as_slice())
    }

    fn derived(&self, fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let info: Vec<u8> = fields.iter().copied().flat_map(with_length).collect();
        // One hash length is always available, so this is overwritten; were it not, the key would still be a secret.
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice()), &info).as_ref(),
        );
        let _ = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(self.0.as_slice())
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(bytes.as_mut_slice()));
        bytes
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
