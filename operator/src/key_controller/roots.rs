//! The two secrets that all trust stands on: the trust key that signs bundles, and the root of all acknowledgement keys.
//! Each is a Secret in the operator's namespace that is created once and read back. Whoever puts another in its place cuts
//! every running pod off; the trust key has a successor by way of `trust_rotation` only.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::ServiceChain;
use servicechain_keys::{AckKey, ChainId, RootSecret, Trust, TrustAnchor, Workload};
use zeroize::Zeroizing;

use super::trust_keys::TrustKeys;
use super::trust_secret::{self, TRUST_KEY_SECRET};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};

/// Secret with the root secret, base64url.
pub const ROOT_SECRET_SECRET: &str = "servicechain-root-secret";
const ROOT_SECRET_NAME: &str = "root-secret";

/// What authenticates one chain's bundles and answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots {
    pub chain: ChainId,
    pub trust_keys: TrustKeys,
    pub secret: Arc<RootSecret>,
}

/// The roots of every chain of this operator. Cheap to clone; redacted in its `Debug`.
#[derive(Clone, Debug)]
pub struct OperatorRoots {
    pub trust_keys: TrustKeys,
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

    /// Who the chain's verifiers let sign bundles.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.trust_keys.trust(self.chain.clone())
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
        let made = || trust_secret::new_key().ok_or(RootsError::Made);
        let trust = secrets
            .ensure(TRUST_KEY_SECRET, trust_secret::CURRENT, made, trust_secret::held)
            .await?;
        let made = || {
            let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
            Ok(RootSecret::new(*bytes).to_text())
        };
        let secret = secrets
            .ensure(ROOT_SECRET_SECRET, ROOT_SECRET_NAME, made, |secret| {
                let bytes = secret.data.as_ref()?.get(ROOT_SECRET_NAME)?;
                std::str::from_utf8(&bytes.0).ok()?.parse().ok()
            })
            .await?;
        Ok(Self {
            trust_keys: TrustKeys::new(trust, missing == Missing::MadeAnew),
            secret: Arc::new(secret),
        })
    }

    #[must_use]
    pub fn of(&self, chain: ChainId) -> Roots {
        Roots {
            chain,
            trust_keys: self.trust_keys.clone(),
            secret: Arc::clone(&self.secret),
        }
    }

    /// What pods are given to know the trust key by.
    #[must_use]
    pub fn anchors(&self) -> Vec<TrustAnchor> {
        self.trust_keys.anchors()
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
        parse: impl FnOnce(&Secret) -> Option<T>,
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
        found.as_ref().and_then(parse).ok_or(RootsError::Unusable {
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

#[cfg(test)]
mod tests {
    use servicechain_keys::TrustKey;

    use super::*;

    #[test]
    fn roots_are_not_shown() {
        let roots = OperatorRoots {
            trust_keys: TrustKeys::only(TrustKey::from_seed(&[7; 32]).unwrap()),
            secret: Arc::new(RootSecret::new([9; 32])),
        };
        let shown = format!("{roots:?} {:?}", roots.of(ChainId::new("c").unwrap()));
        assert!(
            shown.contains("RootSecret(redacted)") && !shown.contains("9, 9"),
            "{shown}"
        );
    }
}
