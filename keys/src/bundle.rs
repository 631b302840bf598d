//! The bundle's content: everything a verifier must know and an issuer is told, in one document. Its members are those
//! of the wire; how it is signed, opened and taken is `held_bundle`. It must not know who publishes it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::base64url;
use crate::identity::{ChainId, PodId};
use crate::jwk::Jwk;
use crate::numeric_date::NumericDate;

/// The format this code writes and understands.
pub const VERSION: u32 = 1;
/// Largest signed bundle, in bytes: half of what etcd takes, and what a pod reads before it knows who sent it.
pub const MAX_BUNDLE_BYTES: usize = 512 * 1024;
/// Most keys of one issuer in a bundle.
pub const MAX_KEYS_PER_ISSUER: usize = 32;
/// Most revocations in a bundle.
pub const MAX_REVOCATIONS: usize = 5_000;
/// Most issuers in a bundle.
pub const MAX_ISSUERS: usize = 16;

/// Durations are whole seconds on the wire. Unknown members are ignored; content that must be understood is named in `crit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The format, [`VERSION`].
    pub v: u32,
    /// Whose bundle it is; a verifier of another chain refuses it.
    pub chain: ChainId,
    /// Only grows; one generation has one content.
    #[serde(rename = "gen")]
    pub generation: Generation,
    /// By the publisher's clock.
    pub issued_at: NumericDate,
    pub policy: Policy,
    pub issuers: Vec<Issuer>,
    #[serde(default, with = "crate::revocation_groups")]
    pub revocations: Vec<Revocation>,
    /// Names of content without which the bundle would be misread. This version knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crit: Vec<String>,
}

/// Grows by every publish and never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

/// What every verifier asks of every token, whoever issued it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Allowed between clocks where `exp`, `nbf` and `iat` are judged (RFC 7519 section 4.1.4). Whole seconds.
    #[serde(with = "crate::whole_seconds")]
    pub clock_skew: Duration,
    /// Longer tokens are refused unread.
    pub max_token_bytes: u32,
    /// Most that `exp - iat` may be. Whole seconds.
    #[serde(with = "crate::whole_seconds")]
    pub max_token_lifetime: Duration,
    /// A token lacking one is refused.
    #[serde(default)]
    pub required_claims: Vec<RequiredClaim>,
}

/// A claim without which a token is refused, beside those that are always needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    pub name: String,
    /// Any of these; empty means that the claim must be present.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Who may sign tokens, how its tokens look, and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// What the chain calls it.
    pub name: String,
    /// What its tokens say in `iss`, compared exactly.
    pub iss: String,
    pub kind: IssuerKind,
    /// A token's `aud` must hold one of them, and one that the hop accepts.
    pub audiences: Vec<String>,
    /// Accepted `typ`; an empty string allows a token without one.
    pub token_types: Vec<String>,
    /// The claim that lists what a token grants: `scope` (RFC 9068 section 2.2.3), `scp`, or a path of members.
    pub scopes_claim: String,
    /// Narrows the policy's.
    #[serde(
        default,
        with = "crate::whole_seconds::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_token_lifetime: Option<Duration>,
    pub state: IssuerState,
    pub keys: Vec<IssuerKey>,
}

/// Where an issuer's keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// Ours: its pods make the keys.
    Managed,
    /// An `OpenID` provider, whose keys the operator fetches.
    External,
    /// A key set that was given.
    Static,
}

/// Whether an issuer's tokens can be judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IssuerState {
    /// Its keys are known.
    Ready,
    /// Trusted, but no key is known yet: its tokens are answered 503, not 401.
    NoKeys,
}

/// A public key, and how long it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerKey {
    /// Its `kid` and algorithm are fixed here, whatever a token says.
    pub jwk: Jwk,
    pub state: KeyState,
    /// When it came into that state, by the publisher's clock: what a rotation's age is counted from.
    pub since: NumericDate,
    /// The issuer pod that holds the private key; none for keys from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PodId>,
    /// The first generation that held it; its owner signs once this is confirmed everywhere.
    pub staged_in: Generation,
    /// No token signed by it may live longer.
    #[serde(with = "crate::whole_seconds")]
    pub max_lifetime: Duration,
    /// Its owner signs only before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_until: Option<NumericDate>,
    /// Withdrawn: verifiers accept it before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<NumericDate>,
}

/// A key's life, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    /// Accepted by verifiers, not yet used by its owner.
    Staged,
    /// Its owner signs with it.
    Active,
    /// Its owner has stopped; kept until every token it signed has expired.
    Retiring,
    /// Its external issuer no longer publishes it.
    Withdrawn,
}

/// Matches a token without `iat`, or with `iat <= issued_before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The issuer's name in this bundle; of an issuer that is not in it, an entry matches nothing.
    pub issuer: String,
    pub kind: RevocationKind,
    /// Of the revoked value; of the empty string where `kind` is `Issuer`.
    pub digest: ShortDigest,
    pub issued_before: NumericDate,
    pub expires: Option<NumericDate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationKind {
    /// By kid, and by RFC 7638 thumbprint (two entries).
    Key,
    Sub,
    Sid,
    Jti,
    ClientId,
    /// Every token of the issuer.
    Issuer,
}

impl Generation {
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// SHA-256 of a signed bundle's bytes, written `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected sha256: and 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix("sha256:").ok_or(NotADigest)?.as_bytes();
        if digits.len() != 64 {
            return Err(NotADigest);
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotADigest),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The first 16 bytes of SHA-256 of a value, base64url on the wire: a bundle does not say whom it revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortDigest([u8; 16]);

impl ShortDigest {
    #[must_use]
    pub fn of(value: &str) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&sha256(value.as_bytes())[..16]);
        Self(short)
    }
}

impl Serialize for ShortDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64url::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ShortDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64url::decode_array(text).map(Self).map_err(de::Error::custom)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
