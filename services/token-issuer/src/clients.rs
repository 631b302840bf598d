//! Who may ask for tokens. A client's secret is known here by its SHA-256 only: it is 256 random bits, so there is
//! nothing that a slow hash would protect.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use servicechain_keys::Digest;
use subtle::{Choice, ConstantTimeEq as _};

/// SHA-256 of a client's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(*Digest::of(secret.as_bytes()).as_bytes())
    }

    /// From 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let digest: Digest = format!("sha256:{digits}").parse().ok()?;
        Some(Self(*digest.as_bytes()))
    }

    fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretDigest(redacted)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Grant {
    ClientCredentials,
    /// Known to the resource, not to this version.
    RefreshToken,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub secret: SecretDigest,
    pub grants: Vec<Grant>,
    /// What it may ask for, and gets when it asks for nothing.
    pub scopes: Vec<String>,
    /// Likewise; never empty.
    pub audiences: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Clients {
    by_id: BTreeMap<String, Client>,
    /// What the secret of an unknown client is compared with. No secret has this digest.
    nobody: SecretDigest,
}

impl Clients {
    #[must_use]
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Self {
        let by_id = clients
            .into_iter()
            .map(|client| (client.id.clone(), client))
            .collect();
        Self {
            by_id,
            nobody: SecretDigest([0; 32]),
        }
    }

    /// The client, if the secret is its own. An unknown client costs the same hash and the same comparison.
    #[must_use]
    pub fn authenticate(&self, id: &str, secret: &str) -> Option<&Client> {
        let client = self.by_id.get(id);
        let expected = client.map_or(&self.nobody, |client| &client.secret);
        let matches = expected.matches(&SecretDigest::of(secret));
        client.filter(|_| bool::from(matches))
    }

    /// Every scope some client may have, each once.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = self.by_id.values().flat_map(|client| &client.scopes);
        scopes
            .map(String::as_str)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Clients {
        let client = |id: &str, secret: &str| Client {
            id: id.to_owned(),
            secret: SecretDigest::of(secret),
            grants: vec![Grant::ClientCredentials],
            scopes: vec![],
            audiences: vec!["shop".to_owned()],
        };
        Clients::new([client("demo", "one"), client("other", "two")])
    }

    #[test]
    fn client_is_known_by_its_own_secret_only() {
        let clients = clients();
        assert_eq!(
            clients
                .authenticate("demo", "one")
                .map(|client| client.id.as_str()),
            Some("demo")
        );
        for (id, secret) in [
            ("demo", "two"),
            ("demo", ""),
            ("demo", "one "),
            ("nobody", "one"),
            ("", ""),
            ("Demo", "one"),
        ] {
            assert!(clients.authenticate(id, secret).is_none(), "{id} {secret}");
        }
    }

    #[test]
    fn digest_of_a_secret_is_hexadecimal_and_not_shown() {
        // SHA-256 of "abc", FIPS 180-4.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(SecretDigest::from_hex(hex), Some(SecretDigest::of("abc")));
        assert_eq!(SecretDigest::from_hex(&hex[1..]), None);
        assert_eq!(SecretDigest::from_hex(&hex.to_uppercase()), None);
        assert!(!format!("{:?}", clients()).contains("[2"));
    }
}
