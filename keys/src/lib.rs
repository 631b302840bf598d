//! The contract of the key protocol: the signed bundle, the keys in it and their refusals, the messages between pods
//! and operator, and what the publisher decides. It must not know tokio, Kubernetes or HTTP, nor read a clock.

pub mod ack_key;
pub mod acknowledgement;
pub mod algorithm;
pub mod base64url;
pub mod bundle;
mod envelope;
mod held_bundle;
pub mod identity;
pub mod jwk;
pub mod jws;
mod key_material;
pub mod key_set;
pub mod knock;
pub mod numeric_date;
pub mod offer;
mod revocation_groups;
mod revocation_index;
mod roca;
pub mod rotation;
pub mod signing_key;
pub mod strict_json;
pub mod trust;
mod whole_seconds;
pub mod wire;

pub use ack_key::{AckKey, Label, Mac, RootSecret};
pub use acknowledgement::{Answer, Held, Nonce, Outcome};
pub use algorithm::Algorithm;
pub use bundle::{
    Bundle, Digest, Generation, Issuer, IssuerKey, IssuerKind, IssuerState, KeyState, Policy, RequiredClaim,
    Revocation, RevocationKind, ShortDigest,
};
pub use envelope::BundleRefusal;
pub use held_bundle::{HeldBundle, SignError, Taken, TrustedIssuer, take};
pub use identity::{ChainId, PodId, Workload};
pub use jwk::{Jwk, KeyRefusal, Thumbprint};
pub use jws::{CompactJws, JoseHeader, Malformed};
pub use key_set::{BadSignature, Found, KeySet, MalformedKeySet, RefusedKey, VerificationKey, accept_jwks};
pub use knock::{Fetched, Knock, KnockAnswer, KnockReason};
pub use numeric_date::NumericDate;
pub use offer::{Offer, OfferRefusal};
pub use signing_key::SigningKey;
pub use trust::{Trust, TrustAnchor, TrustKey};
