//! The numbers of a public key, checked: sizes, exponents, known weak families, points on their curve. It must not know
//! what the key is called or whose it is.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::bundle::sha256;
use crate::jwk::{KeyRefusal, Thumbprint};
use crate::roca;

/// The members as the JWK spells them, which is canonical: base64url without leading zeros where a number is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Material {
    Rsa { n: String, e: String },
    Ec { curve: Curve, x: String, y: String },
    Ed25519 { x: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    pub(crate) const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    pub(crate) const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
        }
    }
}

impl Material {
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.is_rsa(),
            Self::Ec { curve, .. } => algorithm == curve.algorithm(),
            Self::Ed25519 { .. } => algorithm == Algorithm::EdDSA,
        }
    }

    pub(crate) fn verifying_key(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyRefusal> {
        match self {
            Self::Rsa { n, e } => {
                let n = base64url::decode(n).map_err(|_| KeyRefusal::Member("n"))?;
                let e = base64url::decode(e).map_err(|_| KeyRefusal::Member("e"))?;
                check_rsa(&n, &e)?;
                let parameters = algorithm.rsa_parameters().ok_or(KeyRefusal::AlgorithmUnfit)?;
                rsa::PublicKeyComponents { n, e }
                    .to_parsed_public_key(parameters)
                    .map_err(|_| KeyRefusal::Member("n"))
            }
            Self::Ec { curve, x, y } => {
                let x = base64url::decode(x).map_err(|_| KeyRefusal::Member("x"))?;
                let y = base64url::decode(y).map_err(|_| KeyRefusal::Member("y"))?;
                if x.len() != curve.coordinate_bytes() || y.len() != curve.coordinate_bytes() {
                    return Err(KeyRefusal::Member("x, y"));
                }
                let ecdsa: &'static dyn VerificationAlgorithm = match curve {
                    Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED,
                };
                // The uncompressed form of SEC 1 section 2.3.3; parsing it checks the curve equation.
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                ParsedPublicKey::new(ecdsa, point).map_err(|_| KeyRefusal::NotOnCurve)
            }
            Self::Ed25519 { x } => {
                let x: [u8; 32] = base64url::decode_array(x).map_err(|_| KeyRefusal::Member("x"))?;
                if is_small_order(&x) {
                    return Err(KeyRefusal::NotOnCurve);
                }
                ParsedPublicKey::new(&signature::ED25519, x).map_err(|_| KeyRefusal::NotOnCurve)
            }
        }
    }

    /// Bits of an RSA modulus, of the field of a curve otherwise.
    pub(crate) fn bits(&self) -> usize {
        match self {
            Self::Rsa { n, .. } => base64url::decode(n).map_or(0, |modulus| bit_length(&modulus)),
            Self::Ec { curve, .. } => curve.coordinate_bytes() * 8,
            Self::Ed25519 { .. } => 256,
        }
    }

    /// RFC 7638 section 3: the required members in lexicographic order, no white space.
    pub(crate) fn thumbprint(&self) -> Thumbprint {
        let canonical = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.name())
            }
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        };
        Thumbprint(sha256(canonical.as_bytes()))
    }
}

/// Numbers without leading zeros (RFC 7518 section 2), modulus of 2048 to 8192 bits and odd, exponent odd and at least
/// 65537: smaller ones have a history of padding attacks, 1 is the identity, huge ones cost time.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyRefusal> {
    if n.first().is_none_or(|first| *first == 0) || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(KeyRefusal::Member("n"));
    }
    match bit_length(n) {
        ..2048 => return Err(KeyRefusal::RsaTooSmall),
        8193.. => return Err(KeyRefusal::RsaTooLarge),
        2048..=8192 => {}
    }
    if e.first().is_none_or(|first| *first == 0) {
        return Err(KeyRefusal::Member("e"));
    }
    let exponent = e.iter().fold(0_u64, |value, byte| {
        value.saturating_mul(256).saturating_add(u64::from(*byte))
    });
    if exponent % 2 == 0 || !(65_537..=u64::from(u32::MAX)).contains(&exponent) {
        return Err(KeyRefusal::RsaExponent);
    }
    if roca::has_fingerprint(n) {
        return Err(KeyRefusal::Roca);
    }
    Ok(())
}

fn bit_length(number: &[u8]) -> usize {
    number
        .first()
        .map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// The encodings of Ed25519 points whose order divides 8, sign bit aside: under such a "key" one signature fits many
/// messages.
fn is_small_order(encoded: &[u8; 32]) -> bool {
    const ORDER_8_A: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const ORDER_8_B: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let mut y = *encoded;
    y[31] &= 0x7f;
    // 0 and 1; p - 1, and p and p + 1 as other spellings of 0 and 1.
    let tiny = y[0] <= 1 && y[1..].iter().all(|byte| *byte == 0);
    let near_p = (0xec..=0xee).contains(&y[0]) && y[1..31].iter().all(|byte| *byte == 0xff) && y[31] == 0x7f;
    tiny || near_p || y == ORDER_8_A || y == ORDER_8_B
}
