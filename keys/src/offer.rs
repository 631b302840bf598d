//! A key that an issuer pod offers, with the proof that the pod holds its private half (key protocol, line 17).
//! It must not know which pods exist: that the offering pod is the issuer's is for the operator to find out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::acknowledgement::Nonce;
use crate::algorithm::Algorithm;
use crate::identity::{ChainId, PodId};
use crate::jwk::{Jwk, KeyRefusal};
use crate::jws::CompactJws;
use crate::key_set::VerificationKey;
use crate::signing_key::SigningKey;
use crate::strict_json;
use crate::trust::SigningFailed;

/// The `typ` of a proof: it is no token, and no token is a proof.
pub const PROOF_TYP: &str = "servicechain-pop+jws";
/// Largest proof, in bytes: a signature of 8192 bits and three identities.
const MAX_PROOF_BYTES: usize = 4096;

/// An issuer pod's new public key, with the proof that the pod holds the private half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// As it was sent: one odd offer must not hide the answer it came in.
    pub jwk: Map<String, Value>,
    /// A compact JWS by the offered key over (nonce, chain, pod).
    pub pop: String,
}

/// Why an offered key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefusal {
    #[error("the offered key is refused")]
    Key(#[from] KeyRefusal),
    #[error("the offered key calls itself otherwise than by its thumbprint")]
    Kid,
    #[error("the proof of possession is not by the offered key over this nonce, chain and pod")]
    Proof,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    nonce: Nonce,
    chain: ChainId,
    pod: PodId,
}

impl Offer {
    /// Proves possession of `key` in the answer to a question that came with this nonce.
    ///
    /// # Errors
    /// [`SigningFailed`] where the key cannot sign.
    pub fn new(key: &SigningKey, nonce: &Nonce, chain: &ChainId, pod: &PodId) -> Result<Self, SigningFailed> {
        let proof = Proof {
            nonce: *nonce,
            chain: chain.clone(),
            pod: pod.clone(),
        };
        let payload = serde_json::to_vec(&proof).map_err(|_| SigningFailed)?;
        let pop = key.sign_compact(PROOF_TYP, &payload)?;
        Ok(Self {
            jwk: key.public_jwk().to_members(),
            pop,
        })
    }

    /// The offered key under the kid computed here, its RFC 7638 thumbprint. `algorithm` is the issuer's spec.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        nonce: &Nonce,
        chain: &ChainId,
        pod: &PodId,
    ) -> Result<Jwk, OfferRefusal> {
        let offered = Jwk::parse(&self.jwk, &[algorithm])?;
        let jwk = offered.clone().named_by_thumbprint();
        // Whoever takes the name of another's key means something by it.
        if offered.kid().is_some_and(|kid| jwk.kid() != Some(kid)) {
            return Err(OfferRefusal::Kid);
        }
        let jws = CompactJws::parse(&self.pop, MAX_PROOF_BYTES).map_err(|_| OfferRefusal::Proof)?;
        if jws.header.algorithm != algorithm || jws.header.typ.as_deref() != Some(PROOF_TYP) {
            return Err(OfferRefusal::Proof);
        }
        VerificationKey::new(&jwk)
            .verify(jws.signing_input, &jws.signature)
            .map_err(|_| OfferRefusal::Proof)?;
        let proof: Proof = strict_json::from_slice(&jws.payload).map_err(|_| OfferRefusal::Proof)?;
        if proof.nonce != *nonce || proof.chain != *chain || proof.pod != *pod {
            return Err(OfferRefusal::Proof);
        }
        Ok(jwk)
    }
}
