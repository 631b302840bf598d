//! What a decision tells people: a key's changes of state, and what was refused and why. Nothing acts on it.

use std::fmt;

use super::DesiredIssuer;
use crate::bundle::MAX_KEYS_PER_ISSUER;
use crate::identity::PodId;
use crate::jwk::Jwk;
use crate::numeric_date::NumericDate;
use crate::offer::OfferRefusal;

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// `change` is a state's name, `removed`, `revoked`, or why the key was left out.
    Key {
        issuer: String,
        kid: Option<String>,
        change: String,
    },
    OfferRefused {
        pod: PodId,
        reason: NotStaged,
    },
    /// More than a bundle holds: these are not enforced.
    RevocationsLeftOut {
        count: usize,
    },
    /// An order to rotate is for a later time.
    RotationNotYet {
        ordered: NumericDate,
    },
}

/// Why an offered key does not enter the bundle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStaged {
    #[error("the pod is not controlled by a managed issuer of this chain")]
    NotAnIssuerPod,
    #[error(transparent)]
    Refused(#[from] OfferRefusal),
    #[error("the key is in the bundle already, as another pod's")]
    AnotherPods,
    #[error("the key is revoked")]
    Revoked,
    #[error("the pod has already said that it signs with the key no more")]
    Stopped,
    #[error("the pod has two keys that are not Retiring")]
    TooManyOfPod,
    #[error("the issuer has {MAX_KEYS_PER_ISSUER} keys already")]
    TooManyOfIssuer,
}

impl Event {
    pub(super) fn key(issuer: &DesiredIssuer, jwk: &Jwk, change: impl fmt::Display) -> Self {
        Self::Key {
            issuer: issuer.name.clone(),
            kid: jwk.kid().map(str::to_owned),
            change: change.to_string(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { issuer, kid, change } => {
                write!(
                    formatter,
                    "key {} of issuer {issuer}: {change}",
                    kid.as_deref().unwrap_or("without kid")
                )
            }
            Self::OfferRefused { pod, reason } => {
                write!(formatter, "a key offered by pod {pod} is refused: {reason}")
            }
            Self::RevocationsLeftOut { count } => write!(
                formatter,
                "{count} revocations do not fit into the bundle and are not enforced; delete expired ones"
            ),
            Self::RotationNotYet { ordered } => {
                write!(
                    formatter,
                    "the rotation of keys older than {ordered} waits until that time has come"
                )
            }
        }
    }
}
