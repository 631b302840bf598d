//! Who takes part in the protocol: a chain, its pods, their workloads. Compared exactly, bounded, never parsed further.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a chain, pod or workload, in bytes: a Kubernetes label value.
const MAX_BYTES: usize = 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_BYTES} of the characters a-z A-Z 0-9 - _ .")]
pub struct InvalidIdentity;

fn validated(text: String) -> Result<String, InvalidIdentity> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(allowed) {
        return Err(InvalidIdentity);
    }
    Ok(text)
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// Empty, longer than 63 bytes, or another character than a-z A-Z 0-9 - _ .
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentity> {
                validated(text.into()).map(Self)
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentity;

            fn try_from(text: String) -> Result<Self, InvalidIdentity> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidIdentity;

            fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

identity! {
    /// The uid of the `ServiceChain`: bundles of one chain mean nothing to another, a re-created one of the same name included.
    ChainId
}
identity! {
    /// The uid of a pod: an address is reused, a uid never.
    PodId
}
identity! {
    /// What a pod runs: `gateway`, a service's or an issuer's name. It chooses the acknowledgement key.
    Workload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_bounded_and_plain() {
        assert!(PodId::new("0b5f6c1e-5b8e-4d0f-9c55-2f6a5c1b7a11").is_ok());
        for bad in ["", "a b", "a/b", "a\n", "ä", &"x".repeat(64)] {
            assert_eq!(PodId::new(bad), Err(InvalidIdentity), "{bad:?}");
        }
        assert!(serde_json::from_str::<Workload>("\"\"").is_err());
    }
}
