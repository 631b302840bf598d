//! One public key as JSON (RFC 7517), parsed into a key that can verify, or refused with a reason. Its algorithm is
//! pinned here. It must not know tokens: nothing a token says changes what a key is.

use std::fmt;

use aws_lc_rs::signature::ParsedPublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::key_material::{Curve, Material};

/// Longest `kid`, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// SHA-256 over the key's required members (RFC 7638), written as base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub(crate) [u8; 32]);

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
        let material = parse_material(kty, members)?;
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
        self.material.bits()
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

fn parse_material(kty: &str, members: &Map<String, Value>) -> Result<Material, KeyRefusal> {
    let member = |name| required(members, name).map(str::to_owned);
    match kty {
        "RSA" => Ok(Material::Rsa {
            n: member("n")?,
            e: member("e")?,
        }),
        "EC" => {
            let curve = match required(members, "crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                _ => return Err(KeyRefusal::UnknownType),
            };
            Ok(Material::Ec {
                curve,
                x: member("x")?,
                y: member("y")?,
            })
        }
        "OKP" if required(members, "crv")? == "Ed25519" => Ok(Material::Ed25519 { x: member("x")? }),
        _ => Err(KeyRefusal::UnknownType),
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
