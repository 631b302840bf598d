//! What the issuer is told: its YAML file, parsed into values that need no further check. Every mistake in it is
//! reported together, each with its path and what would be right. Ports and directories are flags of `main`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use servicechain_auth::authorization::is_scope;
use servicechain_keys::Algorithm;
pub use servicechain_runtime::config_errors::ConfigErrors;
use servicechain_runtime::dns_label::is_dns_label;
use servicechain_runtime::duration;

use crate::clients::{Client, Clients, Grant, SecretDigest};

/// Those of the resource: shorter ones load the issuer, longer ones outlive any thought of revocation.
const TOKEN_LIFETIME: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24);
const MAX_CLIENTS: usize = 64;
const MAX_AUDIENCES: usize = 8;
const MAX_NAME_BYTES: usize = 15;
const MAX_CLIENT_ID_BYTES: usize = 128;

/// The issuer's configuration, valid.
#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: Issuer,
    pub clients: Clients,
    /// Where private keys outlive the container, in memory: set by a flag, never by the file.
    pub keys_directory: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Issuer {
    /// What the chain calls it.
    pub name: String,
    /// The `iss` of its tokens, without a slash at its end.
    pub url: String,
    pub algorithm: Algorithm,
    pub token_lifetime: Duration,
    /// All that its tokens can be for.
    pub audiences: Vec<String>,
}

impl Config {
    /// Reads and checks the whole file.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every bad value; a file that is not the expected YAML at all has one mistake.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigErrors> {
        let mut mistakes = ConfigErrors::new("the issuer");
        let Some(file) = mistakes.check("file", serde_saphyr::from_str::<File>(text)) else {
            return Err(mistakes);
        };
        let config = file.check(&mut mistakes);
        mistakes.or(config)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    issuer: IssuerFile,
    clients: Vec<ClientFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFile {
    name: String,
    url: String,
    algorithm: String,
    token_lifetime: String,
    audiences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientFile {
    id: String,
    secret_sha256: String,
    grants: Vec<Grant>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
}

impl File {
    fn check(self, mistakes: &mut ConfigErrors) -> Config {
        let issuer = self.issuer.check(mistakes);
        if self.clients.len() > MAX_CLIENTS {
            mistakes.add(
                "clients",
                format!("{} are too many: at most {MAX_CLIENTS}", self.clients.len()),
            );
        }
        let mut ids = BTreeSet::new();
        let mut clients = Vec::new();
        for (index, client) in self.clients.into_iter().enumerate() {
            if !ids.insert(client.id.clone()) {
                mistakes.add(
                    format!("clients[{index}].id"),
                    format!("{:?} is there twice", client.id),
                );
            }
            clients.extend(client.check(index, &issuer.audiences, mistakes));
        }
        Config {
            issuer,
            clients: Clients::new(clients),
            keys_directory: None,
        }
    }
}

impl IssuerFile {
    fn check(self, mistakes: &mut ConfigErrors) -> Issuer {
        if !is_dns_label(&self.name) || self.name.len() > MAX_NAME_BYTES {
            let sentence = format!(
                "{:?} must be a lower-case DNS label of at most {MAX_NAME_BYTES} characters",
                self.name
            );
            mistakes.add("issuer.name", sentence);
        }
        if !is_origin(&self.url) {
            let sentence = format!(
                "{:?} must be http or https with a host and nothing after it, such as \"https://shop.example.com\"",
                self.url
            );
            mistakes.add("issuer.url", sentence);
        }
        let algorithm = match self.algorithm.as_str() {
            "RS256" => Algorithm::RS256,
            "EdDSA" => Algorithm::EdDSA,
            "ES256" => Algorithm::ES256,
            other => {
                mistakes.add(
                    "issuer.algorithm",
                    format!("{other:?} must be ES256, RS256 or EdDSA"),
                );
                Algorithm::ES256
            }
        };
        let token_lifetime = duration::parse(&self.token_lifetime).unwrap_or_else(|error| {
            mistakes.add("issuer.tokenLifetime", error.to_string());
            *TOKEN_LIFETIME.start()
        });
        if !TOKEN_LIFETIME.contains(&token_lifetime) || token_lifetime.subsec_nanos() != 0 {
            mistakes.add("issuer.tokenLifetime", "must be whole seconds from 1m to 24h");
        }
        if self.audiences.is_empty()
            || self.audiences.len() > MAX_AUDIENCES
            || self.audiences.iter().any(String::is_empty)
        {
            mistakes.add(
                "issuer.audiences",
                format!("needs 1 to {MAX_AUDIENCES} names that are not empty"),
            );
        }
        Issuer {
            name: self.name,
            url: self.url,
            algorithm,
            token_lifetime,
            audiences: self.audiences,
        }
    }
}

impl ClientFile {
    fn check(self, index: usize, of_issuer: &[String], mistakes: &mut ConfigErrors) -> Option<Client> {
        let at = |field: &str| format!("clients[{index}].{field}");
        // RFC 6749 appendix A.1 allows spaces too; in a log line they would read as two words.
        if self.id.is_empty()
            || self.id.len() > MAX_CLIENT_ID_BYTES
            || !self.id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            mistakes.add(
                at("id"),
                format!("must be 1 to {MAX_CLIENT_ID_BYTES} printable ASCII characters without spaces"),
            );
        }
        if self.grants.is_empty() {
            mistakes.add(at("grants"), "needs at least one, such as ClientCredentials");
        }
        if self.grants.contains(&Grant::RefreshToken) {
            mistakes.add(
                at("grants"),
                "NotSupportedYet: RefreshToken; use ClientCredentials alone",
            );
        }
        for scope in self.scopes.iter().filter(|scope| !is_scope(scope)) {
            mistakes.add(
                at("scopes"),
                format!("{scope:?} is no scope (RFC 6749 section 3.3)"),
            );
        }
        for audience in self
            .audiences
            .iter()
            .filter(|audience| !of_issuer.contains(audience))
        {
            let sentence =
                format!("{audience:?} is none of issuer.audiences, so every hop would refuse its tokens");
            mistakes.add(at("audiences"), sentence);
        }
        let secret = SecretDigest::from_hex(&self.secret_sha256);
        if secret.is_none() {
            mistakes.add(
                at("secretSha256"),
                "must be SHA-256 of the secret in 64 lower-case hexadecimal digits",
            );
        }
        let audiences = if self.audiences.is_empty() {
            of_issuer.to_vec()
        } else {
            self.audiences
        };
        Some(Client {
            id: self.id,
            secret: secret?,
            grants: self.grants,
            scopes: self.scopes,
            audiences,
        })
    }
}

/// The well-known documents and the endpoints are found from the URL by appending to it (RFC 8414 section 3), and the
/// gateway exposes them at the root.
fn is_origin(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        matches!(scheme, "http" | "https")
            && !authority.contains('@')
            && url == format!("{scheme}://{authority}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
issuer: {name: platform, url: "http://issuer.shop.svc:8080", algorithm: EdDSA, tokenLifetime: 15m, audiences: [shop]}
clients:
- {id: demo, secretSha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, grants: [ClientCredentials], scopes: ["items:read"]}
"#;

    #[test]
    fn good_file_is_read_and_a_client_inherits_the_issuers_audiences() {
        let config = Config::from_yaml(GOOD).unwrap();
        assert_eq!(config.issuer.algorithm, Algorithm::EdDSA);
        assert_eq!(config.issuer.token_lifetime, Duration::from_mins(15));
        let client = config.clients.authenticate("demo", "abc").unwrap();
        assert_eq!(client.audiences, ["shop"]);
        assert_eq!(client.scopes, ["items:read"]);
    }

    #[test]
    fn every_mistake_is_reported_together_with_its_path() {
        let bad = r#"
issuer: {name: Platform, url: "http://issuer/", algorithm: HS256, tokenLifetime: 30s, audiences: []}
clients:
- {id: "", secretSha256: abc, grants: [], scopes: ["a b"], audiences: [other]}
- {id: "", secretSha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, grants: [RefreshToken]}
"#;
        let text = Config::from_yaml(bad).unwrap_err().to_string();
        for path in [
            "issuer.name",
            "issuer.url",
            "issuer.algorithm",
            "issuer.tokenLifetime",
            "issuer.audiences",
            "clients[0].id",
            "clients[0].secretSha256",
            "clients[0].grants",
            "clients[0].scopes",
            "clients[0].audiences",
            "clients[1].id: \"\" is there twice",
            "clients[1].grants: NotSupportedYet",
        ] {
            assert!(text.contains(path), "{path} is missing in\n{text}");
        }
    }

    #[test]
    fn issuer_url_is_an_origin() {
        for good in [
            "http://127.0.0.1:41001",
            "https://shop.example.com",
            "http://[::1]:8080",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "http://a/",
            "http://a/b",
            "https://a?x",
            "ftp://a",
            "a",
            "https://",
            "https://u@a",
            "HTTPS://a#f",
            "",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn unknown_members_are_refused() {
        assert!(Config::from_yaml(&GOOD.replace("name: platform", "name: platform, refresh: 5m")).is_err());
        assert!(Config::from_yaml("keysDirectory: /").is_err());
    }
}
