//! The private half: what an issuer pod makes, keeps in memory and signs with. Never shown, never logged; aws-lc wipes
//! its keys on drop, and what leaves as PKCS#8 is wiped by its wrapper.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::jwk::Jwk;
use crate::jws;
use crate::trust::SigningFailed;

/// Signs with one algorithm; called by its RFC 7638 thumbprint.
pub struct SigningKey {
    jwk: Jwk,
    kid: String,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Not a private key of that algorithm, or one that is too weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable private key for the algorithm")]
pub struct NotASigningKey;

impl SigningKey {
    /// RSA keys have 2048 bits. Takes milliseconds, for RSA up to seconds.
    pub fn generate(algorithm: Algorithm) -> Result<Self, NotASigningKey> {
        let pair = if let Some(curve) = ecdsa(algorithm) {
            Pair::Ec(EcdsaKeyPair::generate(curve).map_err(|_| NotASigningKey)?)
        } else if algorithm == Algorithm::EdDSA {
            Pair::Ed25519(Ed25519KeyPair::generate().map_err(|_| NotASigningKey)?)
        } else {
            Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| NotASigningKey)?)
        };
        Self::new(algorithm, pair)
    }

    /// Reads a private key in PKCS #8, as [`SigningKey::to_pkcs8`] wrote it.
    ///
    /// # Errors
    /// [`NotASigningKey`] for another algorithm's key or a malformed document.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, NotASigningKey> {
        let pair = if let Some(curve) = ecdsa(algorithm) {
            Pair::Ec(EcdsaKeyPair::from_pkcs8(curve, pkcs8).map_err(|_| NotASigningKey)?)
        } else if algorithm == Algorithm::EdDSA {
            Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| NotASigningKey)?)
        } else {
            Pair::Rsa(RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| NotASigningKey)?)
        };
        Self::new(algorithm, pair)
    }

    fn new(algorithm: Algorithm, pair: Pair) -> Result<Self, NotASigningKey> {
        let jwk = match &pair {
            Pair::Ec(pair) => Jwk::ec(algorithm, pair.public_key().as_ref()),
            Pair::Rsa(pair) => {
                let (modulus, exponent) = rsa_public_key(pair.public_key().as_ref()).ok_or(NotASigningKey)?;
                Jwk::rsa(algorithm, modulus, exponent)
            }
            Pair::Ed25519(pair) => {
                let public = pair
                    .public_key()
                    .as_ref()
                    .try_into()
                    .map_err(|_| NotASigningKey)?;
                Jwk::ed25519(None, &public)
            }
        };
        let jwk = jwk.map_err(|_| NotASigningKey)?.named_by_thumbprint();
        Ok(Self {
            kid: jwk.thumbprint().to_string(),
            jwk,
            pair,
        })
    }

    /// The private key in PKCS #8 (RFC 5958), in memory that is overwritten when it is dropped.
    ///
    /// # Errors
    /// [`NotASigningKey`] where the library cannot write it.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, NotASigningKey> {
        let document = match &self.pair {
            Pair::Ec(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Pair::Rsa(pair) => pair.as_der().map(|document| document.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.to_pkcs8().map(|document| document.as_ref().to_vec()),
        };
        document.map(Zeroizing::new).map_err(|_| NotASigningKey)
    }

    /// Its RFC 7638 thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.jwk.algorithm()
    }

    #[must_use]
    pub const fn public_jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// A compact JWS with header {alg, kid, typ}.
    pub fn sign_compact(&self, typ: &str, payload: &[u8]) -> Result<String, SigningFailed> {
        let mut header = Map::new();
        header.insert("alg".to_owned(), self.algorithm().name().into());
        header.insert("kid".to_owned(), self.kid.clone().into());
        header.insert("typ".to_owned(), typ.into());
        self.sign_compact_with(&header, payload)
    }

    /// A compact JWS with any header at all, also one that no verifier accepts.
    pub fn sign_compact_with(
        &self,
        header: &Map<String, Value>,
        payload: &[u8],
    ) -> Result<String, SigningFailed> {
        let signing_input = jws::signing_input(header, payload);
        let signature = self.sign(signing_input.as_bytes())?;
        Ok(format!("{signing_input}.{}", base64url::encode(signature)))
    }

    /// The raw signature, as RFC 7518 section 3 encodes it.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        match &self.pair {
            Pair::Ec(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SigningFailed),
            Pair::Ed25519(pair) => pair
                .try_sign(message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SigningFailed),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    rsa_encoding(self.algorithm()),
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .map_err(|_| SigningFailed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1), a SEQUENCE of two INTEGERs, as aws-lc wrote it.
fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_element(0x30, der)?;
    let (modulus, rest) = der_element(0x02, sequence)?;
    let (exponent, _) = der_element(0x02, rest)?;
    // An INTEGER whose top bit is set has a zero byte before it.
    let unsigned = |integer: &'_ [u8]| integer.iter().position(|byte| *byte != 0).unwrap_or(0);
    Some((&modulus[unsigned(modulus)..], &exponent[unsigned(exponent)..]))
}

fn der_element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if length < 0x80 {
        return rest.split_at_checked(usize::from(length));
    }
    let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
    let length = length.iter().fold(0_usize, |length, byte| {
        length.saturating_mul(256) + usize::from(*byte)
    });
    rest.split_at_checked(length)
}

fn ecdsa(algorithm: Algorithm) -> Option<&'static EcdsaSigningAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => None,
    }
}

fn rsa_encoding(algorithm: Algorithm) -> &'static dyn signature::RsaEncoding {
    match algorithm {
        Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}
