//! The two secrets that all trust stands on: the trust key that signs bundles, and the root of all acknowledgement keys.
//! Each is a Secret in the operator's namespace that is created once, read back, and never replaced: whoever replaces one
//! cuts every running pod off.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::ServiceChain;
use servicechain_keys::{AckKey, ChainId, RootSecret, TrustAnchor, TrustKey, Workload};
use zeroize::Zeroizing;

use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};

/// Secret with the trust key, PKCS #8 as PEM (RFC 5958, RFC 7468).
pub const TRUST_KEY_SECRET: &str = "servicechain-trust-key";
/// Secret with the root secret, base64url.
pub const ROOT_SECRET_SECRET: &str = "servicechain-root-secret";
const TRUST_KEY_NAME: &str = "tls.key";
const ROOT_SECRET_NAME: &str = "root-secret";
const PEM: (&str, &str) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");

/// What authenticates one chain's bundles and answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots {
    pub chain: ChainId,
    pub trust: Arc<TrustKey>,
    pub secret: Arc<RootSecret>,
}

/// The roots of every chain of this operator. Cheap to clone; redacted in its `Debug`.
#[derive(Clone, Debug)]
pub struct OperatorRoots {
    pub trust: Arc<TrustKey>,
    pub secret: Arc<RootSecret>,
}

/// What is done where one of the roots is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing<'a> {
    /// It is made, unless a chain of this namespace, or of any, shows that there was one.
    MadeOnce(Option<&'a str>),
    /// It is made, whatever runs.
    MadeAnew,
}

/// Chains in one answer of the API server.
const PAGE: u32 = 20;

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Never mended by itself: a new one would cut off every running pod.
    #[error(
        "Secret {namespace}/{secret} has no usable {key}; restore it from a backup, or, where no chain runs, delete it to have a new one made"
    )]
    Unusable {
        namespace: String,
        secret: &'static str,
        key: &'static str,
    },
    /// Made anew only by order, for the same reason.
    #[error(
        "Secret {namespace}/{secret} is gone, and chain {chain} has keys that rest on it; restore it from a backup, or, where there is none, start the operator with --replace-lost-roots and then replace every pod of every chain"
    )]
    Lost {
        namespace: String,
        secret: &'static str,
        /// With its namespace.
        chain: String,
    },
    #[error("a new trust key cannot be made")]
    Made,
}

impl Roots {
    #[must_use]
    pub fn ack_key(&self, workload: &Workload) -> AckKey {
        self.secret.ack_key(&self.chain, workload)
    }
}

impl OperatorRoots {
    /// Reads both Secrets of `namespace`, and makes the one that is not there if it may. Of two operators that make one at
    /// the same time, both use the one that was stored.
    pub async fn ensure(client: &Client, namespace: &str, missing: Missing<'_>) -> Result<Self, RootsError> {
        let secrets = Secrets {
            api: Api::namespaced(client.clone(), namespace),
            client,
            namespace,
            missing,
        };
        let (trust, trust_key) = (TRUST_KEY_SECRET, TRUST_KEY_NAME);
        let made = || {
            let seed = Zeroizing::new(rand::random::<[u8; 32]>());
            let key = TrustKey::from_seed(&seed).map_err(|_| RootsError::Made)?;
            pem(&key).ok_or(RootsError::Made)
        };
        let trust = secrets.ensure(trust, trust_key, made, trust_key_of).await?;
        let made = || {
            let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
            Ok(RootSecret::new(*bytes).to_text())
        };
        let secret = secrets
            .ensure(ROOT_SECRET_SECRET, ROOT_SECRET_NAME, made, |text| {
                text.parse().ok()
            })
            .await?;
        Ok(Self {
            trust: Arc::new(trust),
            secret: Arc::new(secret),
        })
    }

    #[must_use]
    pub fn of(&self, chain: ChainId) -> Roots {
        Roots {
            chain,
            trust: Arc::clone(&self.trust),
            secret: Arc::clone(&self.secret),
        }
    }

    /// What pods are given to know the trust key by.
    #[must_use]
    pub fn anchors(&self) -> Vec<TrustAnchor> {
        vec![self.trust.anchor().clone()]
    }
}

struct Secrets<'a> {
    api: Api<Secret>,
    client: &'a Client,
    namespace: &'a str,
    missing: Missing<'a>,
}

impl Secrets<'_> {
    async fn ensure<T>(
        &self,
        secret: &'static str,
        key: &'static str,
        make: impl FnOnce() -> Result<Zeroizing<String>, RootsError>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, RootsError> {
        let mut found = self.read(secret).await?;
        if found.is_none() {
            if let Missing::MadeOnce(watched) = self.missing
                && let Some(chain) = chain_with_keys(self.client, watched).await?
            {
                return Err(RootsError::Lost {
                    namespace: self.namespace.to_owned(),
                    secret,
                    chain,
                });
            }
            self.create(secret, key, &make()?).await?;
            // What counts is what is stored, by whomever.
            found = self.read(secret).await?;
        }
        let text = found
            .and_then(|found| found.data?.remove(key))
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            .map(Zeroizing::new);
        text.and_then(|text| parse(&text)).ok_or(RootsError::Unusable {
            namespace: self.namespace.to_owned(),
            secret,
            key,
        })
    }

    async fn read(&self, name: &str) -> Result<Option<Secret>, ApiError> {
        let what = format!("cannot read Secret {}/{name}", self.namespace);
        within(READ_TIMEOUT, what, self.api.get_opt(name)).await
    }

    async fn create(&self, name: &str, key: &str, value: &str) -> Result<(), ApiError> {
        let mut secret = Secret {
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::from([(
                key.to_owned(),
                ByteString(value.as_bytes().to_vec()),
            )])),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.to_owned());
        let params = PostParams::default();
        let what = format!("cannot create Secret {}/{name}", self.namespace);
        match within(WRITE_TIMEOUT, what, self.api.create(&params, &secret)).await {
            Ok(_) => {
                tracing::info!(
                    namespace = self.namespace,
                    secret = name,
                    "made; keep a backup of it"
                );
                Ok(())
            }
            Err(error) if error.code() == Some(409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A chain that has been given keys. Whoever writes a status can name one, so nothing but a refusal comes of it.
async fn chain_with_keys(client: &Client, namespace: Option<&str>) -> Result<Option<String>, ApiError> {
    let api: Api<ServiceChain> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match within(READ_TIMEOUT, "cannot list chains", api.list(&params)).await {
            Ok(page) => page,
            // Where nobody knows what a chain is there is none.
            Err(error) if error.code() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let has_keys = |chain: &&ServiceChain| {
            let keys = chain.status.as_ref().and_then(|status| status.keys.as_ref());
            keys.is_some_and(|keys| keys.generation > 0)
        };
        if let Some(chain) = page.items.iter().find(has_keys) {
            let namespace = chain.namespace().unwrap_or_default();
            return Ok(Some(format!("{namespace}/{}", chain.name_any())));
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(None);
        }
    }
}

fn pem(key: &TrustKey) -> Option<Zeroizing<String>> {
    let der = key.to_pkcs8().ok()?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(&*der));
    Some(Zeroizing::new(format!("{}\n{}\n{}\n", PEM.0, *text, PEM.1)))
}

fn trust_key_of(text: &str) -> Option<TrustKey> {
    let body = text.trim().strip_prefix(PEM.0)?.strip_suffix(PEM.1)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    let der = Zeroizing::new(BASE64_STANDARD.decode(body.as_bytes()).ok()?);
    TrustKey::from_pkcs8(&der).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_key_outlives_being_written() {
        let key = TrustKey::from_seed(&[7; 32]).unwrap();
        let text = pem(&key).unwrap();
        let read = trust_key_of(&text).unwrap();
        assert_eq!(read.anchor(), key.anchor());
        // As `openssl genpkey -algorithm ed25519` writes one.
        let foreign = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
        assert!(trust_key_of(foreign).is_some());
        assert!(trust_key_of("").is_none() && trust_key_of(&text[..40]).is_none());
    }

    #[test]
    fn roots_are_not_shown() {
        let roots = OperatorRoots {
            trust: Arc::new(TrustKey::from_seed(&[7; 32]).unwrap()),
            secret: Arc::new(RootSecret::new([9; 32])),
        };
        let shown = format!("{roots:?} {:?}", roots.of(ChainId::new("c").unwrap()));
        assert!(
            shown.contains("RootSecret(redacted)") && !shown.contains("9, 9"),
            "{shown}"
        );
    }
}
