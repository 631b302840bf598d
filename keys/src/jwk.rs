//! One public key as JSON (RFC 7517), parsed into a key that can verify, or refused with a reason. Its algorithm is
//! pinned here. It must not know tokens: nothing a token says changes what a key is.

use std::fmt;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::base64url;
use crate::bundle::sha256;
use crate::roca;

/// Longest `kid`, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// The signature algorithms a key may be pinned to (RFC 7518 section 3.1, RFC 8037). `none` and HMAC do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    pub const ALL: [Self; 9] = [
        Self::ES256,
        Self::ES384,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::EdDSA,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Exact: `es256` is no algorithm.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(
            self,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512
        )
    }

    fn rsa_parameters(self) -> Option<&'static signature::RsaParameters> {
        Some(match self {
            Self::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::ES256 | Self::ES384 | Self::EdDSA => return None,
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// SHA-256 over the key's required members (RFC 7638), written as base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&base64url::encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a key is left out. Display is a reason for a person who owns the key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    #[error("a member is missing, of a wrong type, or not canonical base64url: {0}")]
    Member(&'static str),
    #[error("unknown key type or curve")]
    UnknownType,
    #[error("a symmetric key in a public key set")]
    Symmetric,
    #[error("a private key in a public key set")]
    Private,
    #[error("not for verifying signatures (use or key_ops)")]
    NotForSignatures,
    #[error("no alg, and its type allows more than one")]
    AlgorithmNotPinned,
    #[error("its alg does not fit its type, or is not a signature algorithm")]
    AlgorithmUnfit,
    #[error("its alg is not allowed for this issuer")]
    AlgorithmNotAllowed,
    #[error("RSA modulus smaller than 2048 bits")]
    RsaTooSmall,
    #[error("RSA modulus larger than 8192 bits")]
    RsaTooLarge,
    #[error("RSA public exponent is even, below 65537 or beyond 32 bits")]
    RsaExponent,
    #[error("RSA modulus has the ROCA fingerprint (CVE-2017-15361)")]
    Roca,
    #[error("the point is not on its curve, or of small order")]
    NotOnCurve,
    #[error("kid is empty or longer than {MAX_KID_BYTES} bytes")]
    Kid,
    #[error("another key has the same kid")]
    DuplicateKid,
    #[error("more keys than one issuer may have")]
    TooMany,
}

/// A public key that passed every check, with the one algorithm it verifies.
#[derive(Clone)]
pub struct Jwk {
    kid: Option<String>,
    algorithm: Algorithm,
    material: Material,
    thumbprint: Thumbprint,
    parsed: ParsedPublicKey,
}

/// The members as the JWK spells them, which is canonical: base64url without leading zeros where a number is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: String, e: String },
    Ec { curve: Curve, x: String, y: String },
    Ed25519 { x: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
        }
    }
}

impl Jwk {
    /// Parses a JWK. A missing `alg` is filled in where type and curve leave one choice, and for RSA where `allowed`
    /// holds one RSA algorithm.
    pub fn parse(members: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Self, KeyRefusal> {
        let kty = required(members, "kty")?;
        if kty == "oct" {
            return Err(KeyRefusal::Symmetric);
        }
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"]
            .iter()
            .any(|name| members.contains_key(*name))
        {
            return Err(KeyRefusal::Private);
        }
        refuse_other_uses(members)?;
        let kid = optional(members, "kid")?;
        if kid.is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID_BYTES) {
            return Err(KeyRefusal::Kid);
        }
        let material = Material::parse(kty, members)?;
        let algorithm = pin_algorithm(&material, optional(members, "alg")?, allowed)?;
        Self::new(kid.map(str::to_owned), algorithm, material)
    }

    pub(crate) fn ed25519(kid: Option<String>, public: &[u8; 32]) -> Result<Self, KeyRefusal> {
        let x = base64url::encode(public);
        Self::new(kid, Algorithm::EdDSA, Material::Ed25519 { x })
    }

    /// From an uncompressed SEC 1 point.
    pub(crate) fn ec(algorithm: Algorithm, point: &[u8]) -> Result<Self, KeyRefusal> {
        let curve = if algorithm == Algorithm::ES384 {
            Curve::P384
        } else {
            Curve::P256
        };
        let coordinates = point.strip_prefix(&[4]).ok_or(KeyRefusal::NotOnCurve)?;
        let (x, y) = coordinates
            .split_at_checked(curve.coordinate_bytes())
            .ok_or(KeyRefusal::NotOnCurve)?;
        let material = Material::Ec {
            curve,
            x: base64url::encode(x),
            y: base64url::encode(y),
        };
        Self::new(None, algorithm, material)
    }

    pub(crate) fn rsa(algorithm: Algorithm, modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyRefusal> {
        let material = Material::Rsa {
            n: base64url::encode(modulus),
            e: base64url::encode(exponent),
        };
        Self::new(None, algorithm, material)
    }

    fn new(kid: Option<String>, algorithm: Algorithm, material: Material) -> Result<Self, KeyRefusal> {
        let parsed = material.verifying_key(algorithm)?;
        let thumbprint = material.thumbprint();
        Ok(Self {
            kid,
            algorithm,
            material,
            thumbprint,
            parsed,
        })
    }

    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The same key under a name chosen here.
    #[must_use]
    pub fn with_kid(mut self, kid: impl Into<String>) -> Self {
        self.kid = Some(kid.into());
        self
    }

    /// The same key, called by its thumbprint.
    #[must_use]
    pub fn named_by_thumbprint(self) -> Self {
        let kid = self.thumbprint.to_string();
        self.with_kid(kid)
    }

    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Bits of an RSA modulus, of the field of a curve otherwise.
    #[must_use]
    pub fn bits(&self) -> usize {
        match &self.material {
            Material::Rsa { n, .. } => base64url::decode(n).map_or(0, |modulus| bit_length(&modulus)),
            Material::Ec { curve, .. } => curve.coordinate_bytes() * 8,
            Material::Ed25519 { .. } => 256,
        }
    }

    pub(crate) fn parsed(&self) -> &ParsedPublicKey {
        &self.parsed
    }

    /// The members of this key, `use: sig` included.
    #[must_use]
    pub fn to_members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        let mut put = |name: &str, value: &str| members.insert(name.to_owned(), value.into());
        match &self.material {
            Material::Rsa { n, e } => {
                put("kty", "RSA");
                put("n", n);
                put("e", e);
            }
            Material::Ec { curve, x, y } => {
                put("kty", "EC");
                put("crv", curve.name());
                put("x", x);
                put("y", y);
            }
            Material::Ed25519 { x } => {
                put("kty", "OKP");
                put("crv", "Ed25519");
                put("x", x);
            }
        }
        put("alg", self.algorithm.name());
        put("use", "sig");
        if let Some(kid) = &self.kid {
            put("kid", kid);
        }
        members
    }
}

impl fmt::Debug for Jwk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Jwk")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Jwk {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithm == other.algorithm && self.material == other.material
    }
}

impl Eq for Jwk {}

impl Serialize for Jwk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_members().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        Self::parse(&members, &Algorithm::ALL).map_err(de::Error::custom)
    }
}

impl Material {
    fn parse(kty: &str, members: &Map<String, Value>) -> Result<Self, KeyRefusal> {
        match kty {
            "RSA" => Ok(Self::Rsa {
                n: required(members, "n")?.to_owned(),
                e: required(members, "e")?.to_owned(),
            }),
            "EC" => {
                let curve = match required(members, "crv")? {
                    "P-256" => Curve::P256,
                    "P-384" => Curve::P384,
                    _ => return Err(KeyRefusal::UnknownType),
                };
                Ok(Self::Ec {
                    curve,
                    x: required(members, "x")?.to_owned(),
                    y: required(members, "y")?.to_owned(),
                })
            }
            "OKP" if required(members, "crv")? == "Ed25519" => Ok(Self::Ed25519 {
                x: required(members, "x")?.to_owned(),
            }),
            _ => Err(KeyRefusal::UnknownType),
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.is_rsa(),
            Self::Ec { curve, .. } => algorithm == curve.algorithm(),
            Self::Ed25519 { .. } => algorithm == Algorithm::EdDSA,
        }
    }

    fn verifying_key(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyRefusal> {
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

    /// RFC 7638 section 3: the required members in lexicographic order, no white space.
    fn thumbprint(&self) -> Thumbprint {
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

fn required<'a>(members: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, KeyRefusal> {
    optional(members, name)?.ok_or(KeyRefusal::Member(name))
}

fn optional<'a>(members: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, KeyRefusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyRefusal::Member(name)),
    }
}

/// RFC 7517 sections 4.2 and 4.3: where the key says what it is for, that must be verifying signatures.
fn refuse_other_uses(members: &Map<String, Value>) -> Result<(), KeyRefusal> {
    if optional(members, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyRefusal::NotForSignatures);
    }
    match members.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(KeyRefusal::NotForSignatures),
        Some(_) => Err(KeyRefusal::Member("key_ops")),
    }
}

fn pin_algorithm(
    material: &Material,
    named: Option<&str>,
    allowed: &[Algorithm],
) -> Result<Algorithm, KeyRefusal> {
    let algorithm = match (named, material) {
        (Some(name), _) => Algorithm::from_name(name).ok_or(KeyRefusal::AlgorithmUnfit)?,
        (None, Material::Ec { curve, .. }) => curve.algorithm(),
        (None, Material::Ed25519 { .. }) => Algorithm::EdDSA,
        (None, Material::Rsa { .. }) => {
            let mut candidates = allowed.iter().filter(|algorithm| algorithm.is_rsa());
            match (candidates.next(), candidates.next()) {
                (Some(only), None) => *only,
                _ => return Err(KeyRefusal::AlgorithmNotPinned),
            }
        }
    };
    if !material.fits(algorithm) {
        return Err(KeyRefusal::AlgorithmUnfit);
    }
    if !allowed.contains(&algorithm) {
        return Err(KeyRefusal::AlgorithmNotAllowed);
    }
    Ok(algorithm)
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
