//! The compact form of a JWS (RFC 7515), strictly: what is ambiguous, embeds a key, or asks for processing that nobody
//! here does is refused before anything is verified. It must not know keys or claims.

use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::base64url;
use crate::jwk::MAX_KID_BYTES;
use crate::strict_json;

/// Header parameters that carry or point to keys, change what is signed, or must be understood.
const REFUSED_PARAMETERS: [&str; 7] = ["crit", "jwk", "x5c", "jku", "x5u", "zip", "b64"];

/// Everything a header is read for.
const PARAMETERS: [&str; 10] = [
    "alg", "kid", "typ", "crit", "jwk", "x5c", "jku", "x5u", "zip", "b64",
];

/// Why a string is no acceptable compact JWS. Nothing of the string is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("too large")]
    TooLarge,
    #[error("not three parts")]
    NotThreeParts,
    #[error("not canonical base64url")]
    NotBase64url,
    #[error("header is not a JSON object with unique members")]
    Header,
    #[error("header parameter {0} is not accepted")]
    RefusedParameter(&'static str),
    #[error("header parameter {0} is missing or of a wrong type")]
    Parameter(&'static str),
    #[error("unsigned (alg none)")]
    Unsigned,
    #[error("symmetric algorithm")]
    SymmetricAlgorithm,
    #[error("unknown algorithm")]
    UnknownAlgorithm,
    #[error("empty signature")]
    EmptySignature,
}

/// What is read of a JOSE header (RFC 7515 section 4); every other parameter is refused or ignored before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoseHeader {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
}

/// Parsed, **not verified**.
#[derive(Clone, PartialEq, Eq)]
pub struct CompactJws<'a> {
    pub header: JoseHeader,
    /// What the signature is over: the first two parts and their dot.
    pub signing_input: &'a [u8],
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

impl<'a> CompactJws<'a> {
    /// # Errors
    /// See [`Malformed`]; a token longer than `max_bytes` is not looked at.
    pub fn parse(token: &'a str, max_bytes: usize) -> Result<Self, Malformed> {
        let parts = Parts::split(token.as_bytes(), max_bytes)?;
        let header = JoseHeader::read(&parts.header_json()?)?;
        let payload = base64url::decode(parts.payload).map_err(|_| Malformed::NotBase64url)?;
        let signature = parts.signature()?;
        Ok(Self {
            header,
            signing_input: parts.signing_input,
            payload,
            signature,
        })
    }
}

/// A verified token's payload is claims, its signature makes it a bearer token: neither is shown.
impl std::fmt::Debug for CompactJws<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CompactJws")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl JoseHeader {
    pub(crate) fn parse(members: &Map<String, Value>) -> Result<Self, Malformed> {
        Self::of(|name| members.get(name).cloned())
    }

    fn read(json: &[u8]) -> Result<Self, Malformed> {
        let mut values = strict_json::select(json, &PARAMETERS).map_err(|_| Malformed::Header)?;
        Self::of(|name| {
            let at = PARAMETERS.iter().position(|parameter| *parameter == name)?;
            values.get_mut(at)?.take()
        })
    }

    fn of(mut parameter: impl FnMut(&str) -> Option<Value>) -> Result<Self, Malformed> {
        for name in REFUSED_PARAMETERS {
            if parameter(name).is_some() {
                return Err(Malformed::RefusedParameter(name));
            }
        }
        let mut text = |name| match parameter(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::Parameter(name)),
        };
        let algorithm = parse_algorithm(&text("alg")?.ok_or(Malformed::Parameter("alg"))?)?;
        let kid = text("kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Malformed::Parameter("kid"));
        }
        let typ = text("typ")?;
        Ok(Self { algorithm, kid, typ })
    }
}

fn parse_algorithm(name: &str) -> Result<Algorithm, Malformed> {
    if let Some(algorithm) = Algorithm::from_name(name) {
        return Ok(algorithm);
    }
    if name.eq_ignore_ascii_case("none") {
        return Err(Malformed::Unsigned);
    }
    let prefix = name.as_bytes().get(..2);
    if prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"HS")) {
        return Err(Malformed::SymmetricAlgorithm);
    }
    Err(Malformed::UnknownAlgorithm)
}

/// The three parts, still encoded.
pub(crate) struct Parts<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
    pub(crate) signing_input: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(crate) fn split(bytes: &'a [u8], max_bytes: usize) -> Result<Self, Malformed> {
        if bytes.len() > max_bytes {
            return Err(Malformed::TooLarge);
        }
        let mut dots = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'.')
            .map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Malformed::NotThreeParts);
        };
        Ok(Self {
            header: &bytes[..first],
            payload: &bytes[first + 1..second],
            signature: &bytes[second + 1..],
            signing_input: &bytes[..second],
        })
    }

    pub(crate) fn header(&self) -> Result<Map<String, Value>, Malformed> {
        strict_json::object(&self.header_json()?).map_err(|_| Malformed::Header)
    }

    fn header_json(&self) -> Result<Vec<u8>, Malformed> {
        base64url::decode(self.header).map_err(|_| Malformed::NotBase64url)
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, Malformed> {
        base64url::decode(self.payload).map_err(|_| Malformed::NotBase64url)
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, Malformed> {
        if self.signature.is_empty() {
            return Err(Malformed::EmptySignature);
        }
        base64url::decode(self.signature).map_err(|_| Malformed::NotBase64url)
    }
}

/// The first two parts and their dot.
pub(crate) fn signing_input(header: &Map<String, Value>, payload: &[u8]) -> String {
    // A map of strings and numbers always serialises, and `Display` of a value cannot fail.
    let header = Value::Object(header.clone()).to_string();
    format!("{}.{}", base64url::encode(header), base64url::encode(payload))
}
