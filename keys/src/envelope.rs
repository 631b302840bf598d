//! A bundle's signed form: its header, its signature, and why a pod refuses one. It must not know what a bundle holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::bundle::{Bundle, Generation, MAX_BUNDLE_BYTES};
use crate::jws::{JoseHeader, Parts};
use crate::trust::{Trust, TrustAnchor, TrustKey};

/// The `typ` of a bundle: no token has it, and a bundle is no token.
const BUNDLE_TYP: &str = "servicechain-bundle+jws";

/// Why a pod does not take a bundle; the words of the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "kebab-case")]
pub enum BundleRefusal {
    /// Found by the keys endpoint: the request was meant for another pod.
    #[error("meant for another pod")]
    WrongPod,
    #[error("older than the bundle held")]
    Lower,
    #[error("authentic, and not the bundle held of the same generation")]
    Fork,
    #[error("bad signature")]
    Signature,
    #[error("signed by a key that is no trust anchor here")]
    Anchor,
    #[error("of another chain")]
    Chain,
    #[error("not a bundle of a form understood here")]
    Format,
    #[error("a key in it is refused")]
    BadKey,
    #[error("larger than a bundle may be")]
    TooLarge,
}

impl BundleRefusal {
    /// The word of the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WrongPod => "wrong-pod",
            Self::Lower => "lower",
            Self::Fork => "fork",
            Self::Signature => "signature",
            Self::Anchor => "anchor",
            Self::Chain => "chain",
            Self::Format => "format",
            Self::BadKey => "bad-key",
            Self::TooLarge => "too-large",
        }
    }
}

/// Bytes whose header fits this chain and an anchor; nothing of them is believed yet.
pub(crate) struct Envelope<'a> {
    pub(crate) bytes: &'a [u8],
    parts: Parts<'a>,
    pub(crate) trust: &'a Trust,
    pub(crate) generation: Generation,
    pub(crate) anchor: &'a TrustAnchor,
}

impl<'a> Envelope<'a> {
    pub(crate) fn read(bytes: &'a [u8], trust: &'a Trust) -> Result<Self, BundleRefusal> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleRefusal::TooLarge);
        }
        let parts = Parts::split(bytes, MAX_BUNDLE_BYTES).map_err(|_| BundleRefusal::Format)?;
        let members = parts.header().map_err(|_| BundleRefusal::Format)?;
        let header = JoseHeader::parse(&members).map_err(|_| BundleRefusal::Format)?;
        if header.algorithm != Algorithm::EdDSA || header.typ.as_deref() != Some(BUNDLE_TYP) {
            return Err(BundleRefusal::Format);
        }
        let chain = members
            .get("chain")
            .and_then(Value::as_str)
            .ok_or(BundleRefusal::Format)?;
        let generation = members
            .get("gen")
            .and_then(Value::as_u64)
            .ok_or(BundleRefusal::Format)?;
        let kid = header.kid.ok_or(BundleRefusal::Format)?;
        if chain != trust.chain.as_str() {
            return Err(BundleRefusal::Chain);
        }
        let anchor = trust.anchor(&kid).ok_or(BundleRefusal::Anchor)?;
        Ok(Self {
            bytes,
            parts,
            trust,
            generation: Generation::new(generation),
            anchor,
        })
    }

    pub(crate) fn verify(&self) -> Result<(), BundleRefusal> {
        let signature = self.parts.signature().map_err(|_| BundleRefusal::Signature)?;
        self.anchor
            .verify(self.parts.signing_input, &signature)
            .map_err(|_| BundleRefusal::Signature)
    }

    /// Only after [`Self::verify`].
    pub(crate) fn payload(&self) -> Result<Vec<u8>, BundleRefusal> {
        self.parts.payload().map_err(|_| BundleRefusal::Format)
    }
}

pub(crate) fn header(bundle: &Bundle, key: &TrustKey) -> Map<String, Value> {
    let members = json!({
        "alg": Algorithm::EdDSA.name(),
        "typ": BUNDLE_TYP,
        "kid": key.anchor().kid(),
        "chain": bundle.chain.as_str(),
        "gen": bundle.generation.number(),
    });
    members.as_object().cloned().unwrap_or_default()
}
