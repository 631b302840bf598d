//! What a chain is: its spec, or, where that is refused, the last one that was accepted, which is kept in the cluster
//! (ADR 5). So a bad edit leaves the running chain as it was, after a restart of the operator too. It must not know what
//! is built from it.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::service_chain::ServiceChainSpec;
use servicechain_crds::{Mistakes, ServiceChain, ValidatedChain, validated};
use servicechain_keys::{ChainId, Mac, RootSecret};

use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::object_names::{ACCEPTED_KEY, ACCEPTED_SEAL_KEY, accepted_config_map, chain_labels};

/// What of a chain can be built.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// What the spec says.
    Now(ValidatedChain),
    /// What it said before somebody made these mistakes.
    Before {
        chain: ValidatedChain,
        mistakes: Mistakes,
    },
    /// Nothing: it was never right, or an older version of this operator accepted what this one refuses.
    Never(Mistakes),
}

impl Accepted {
    #[must_use]
    pub fn chain(&self) -> Option<&ValidatedChain> {
        match self {
            Self::Now(chain) | Self::Before { chain, .. } => Some(chain),
            Self::Never(_) => None,
        }
    }

    /// What is wrong with the spec as it is now.
    #[must_use]
    pub fn mistakes(&self) -> Option<&Mistakes> {
        match self {
            Self::Now(_) => None,
            Self::Before { mistakes, .. } | Self::Never(mistakes) => Some(mistakes),
        }
    }

    /// What is left of it where `mistakes_in` a chain say that this operator cannot build it with its settings. `map` is
    /// the one that keeps the last accepted spec.
    #[must_use]
    pub fn where_buildable(
        self,
        chain: &ServiceChain,
        map: Option<&ConfigMap>,
        root: &RootSecret,
        mistakes_in: impl Fn(&ValidatedChain) -> Mistakes,
    ) -> Self {
        let mut mistakes = self.chain().map(&mistakes_in).unwrap_or_default();
        if mistakes.is_empty() {
            return self;
        }
        mistakes.extend(self.mistakes().into_iter().flatten().cloned());
        let kept = map.and_then(|map| kept_spec(chain, map, root));
        match kept.and_then(|kept| before(chain, &kept)) {
            Some(chain) if mistakes_in(&chain).is_empty() => Self::Before { chain, mistakes },
            _ => Self::Never(mistakes),
        }
    }
}

/// `kept` is the spec that was accepted last.
#[must_use]
pub fn judge(chain: &ServiceChain, kept: Option<&ServiceChainSpec>) -> Accepted {
    let mistakes = match validated(chain) {
        Ok(chain) => return Accepted::Now(chain),
        Err(mistakes) => mistakes,
    };
    match kept.and_then(|kept| before(chain, kept)) {
        Some(chain) => Accepted::Before { chain, mistakes },
        None => Accepted::Never(mistakes),
    }
}

/// A chain and what of it can be built, both read from the API server now. `None`: there is no such chain.
pub async fn read(
    client: &Client,
    root: &RootSecret,
    namespace: &str,
    name: &str,
) -> Result<Option<(ServiceChain, Accepted)>, ApiError> {
    let Some(chain) = read_chain(client, namespace, name).await? else {
        return Ok(None);
    };
    let now = judge(&chain, None);
    if let Accepted::Now(_) = now {
        return Ok(Some((chain, now)));
    }
    let map = read_map(client, &chain).await?;
    let kept = map.and_then(|map| kept_spec(&chain, &map, root));
    let accepted = judge(&chain, kept.as_ref());
    Ok(Some((chain, accepted)))
}

/// A chain, read from the API server now. `None`: there is no such chain.
pub async fn read_chain(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<ServiceChain>, ApiError> {
    let chains = Api::<ServiceChain>::namespaced(client.clone(), namespace);
    let what = format!("cannot read the chain {namespace}/{name}");
    within(READ_TIMEOUT, what, chains.get_opt(name)).await
}

/// What was kept of the chain last, whatever its spec says now. `None`: nothing that this operator accepts.
pub async fn read_kept(
    client: &Client,
    root: &RootSecret,
    chain: &ServiceChain,
) -> Result<Option<ValidatedChain>, ApiError> {
    let map = read_map(client, chain).await?;
    let kept = map.and_then(|map| kept_spec(chain, &map, root));
    Ok(kept.and_then(|kept| before(chain, &kept)))
}

/// What the `ConfigMap` says was accepted, whoever wrote it: for those who cannot check its seal.
#[must_use]
pub fn unsealed(chain: &ServiceChain, map: &ConfigMap) -> Option<ValidatedChain> {
    before(chain, &spec_in(map)?)
}

/// Another one for each spec that is kept. `None` where the operator did not write what is in `map` for this chain.
#[must_use]
pub fn seal(chain: &ServiceChain, map: &ConfigMap, root: &RootSecret) -> Option<String> {
    let data = map.data.as_ref()?;
    let text = data.get(ACCEPTED_SEAL_KEY)?;
    let seal: Mac = text.parse().ok()?;
    let spec = data.get(ACCEPTED_KEY)?;
    let is_ours = root
        .verify_seal(&seal, &chain_id(chain)?, spec.as_bytes())
        .is_ok();
    is_ours.then(|| text.clone())
}

/// The `ConfigMap` that keeps an accepted spec. Its owner is the chain. What is in it is sealed by `root`: it says whose
/// tokens are good, and more people may write a `ConfigMap` than a chain.
#[must_use]
pub fn keep(chain: &ServiceChain, root: &RootSecret) -> ConfigMap {
    let name = chain.name_any();
    // These types always serialize.
    let text = serde_json::to_string(&chain.spec).unwrap_or_default();
    // The API server stores no chain without a UID.
    let seal = chain_id(chain).map(|id| root.seal(&id, text.as_bytes()).to_string());
    let data = [
        (ACCEPTED_KEY, text),
        (ACCEPTED_SEAL_KEY, seal.unwrap_or_default()),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(accepted_config_map(&name)),
            labels: Some(chain_labels(&name)),
            owner_references: Some(vec![owner(chain)]),
            ..ObjectMeta::default()
        },
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ConfigMap::default()
    }
}

/// What makes the chain the owner and the controller of an object.
#[must_use]
pub fn owner(chain: &ServiceChain) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
    use kube::Resource as _;
    k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
        api_version: ServiceChain::api_version(&()).into_owned(),
        kind: ServiceChain::kind(&()).into_owned(),
        name: chain.name_any(),
        uid: chain.uid().unwrap_or_default(),
        controller: Some(true),
        // Nothing waits for the objects: the chain may go first, and the garbage collector follows.
        block_owner_deletion: None,
    }
}

fn before(chain: &ServiceChain, kept: &ServiceChainSpec) -> Option<ValidatedChain> {
    let before = ServiceChain {
        metadata: chain.metadata.clone(),
        spec: kept.clone(),
        status: None,
    };
    validated(&before).ok()
}

fn chain_id(chain: &ServiceChain) -> Option<ChainId> {
    ChainId::new(chain.uid()?).ok()
}

async fn read_map(client: &Client, chain: &ServiceChain) -> Result<Option<ConfigMap>, ApiError> {
    let (namespace, name) = (chain.namespace().unwrap_or_default(), chain.name_any());
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let what = format!("cannot read the last accepted spec of {namespace}/{name}");
    within(READ_TIMEOUT, what, maps.get_opt(&accepted_config_map(&name))).await
}

/// That of a chain of the same name that is gone, or what anybody else wrote, counts for nothing.
fn kept_spec(chain: &ServiceChain, map: &ConfigMap, root: &RootSecret) -> Option<ServiceChainSpec> {
    if seal(chain, map, root).is_none() {
        tracing::warn!(
            namespace = chain.namespace(),
            chain = chain.name_any(),
            "what is kept as the last accepted spec was not written by this operator for this chain, and counts for nothing"
        );
        return None;
    }
    let spec = spec_in(map);
    if spec.is_none() {
        tracing::warn!(chain = chain.name_any(), "the last accepted spec is unreadable");
    }
    spec
}

fn spec_in(map: &ConfigMap) -> Option<ServiceChainSpec> {
    serde_json::from_str(map.data.as_ref()?.get(ACCEPTED_KEY)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chain(services: &Value) -> ServiceChain {
        serde_json::from_value(json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop", "uid": "1"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [{"name": "platform", "managed": {}}],
                "gateway": {"routes": [{"name": "items", "service": services[0]["name"]}]},
                "services": services,
            },
        }))
        .unwrap()
    }

    fn root() -> RootSecret {
        RootSecret::new([7; 32])
    }

    fn kept(chain: &ServiceChain) -> ConfigMap {
        keep(chain, &root())
    }

    fn good() -> ServiceChain {
        chain(&json!([{"name": "a", "database": {"managed": {}}}]))
    }

    fn bad() -> ServiceChain {
        chain(&json!([{"name": "a", "next": ["nobody"], "database": {"managed": {}}}]))
    }

    #[test]
    fn a_bad_edit_leaves_what_was_accepted_before() {
        let Accepted::Now(accepted) = judge(&good(), None) else {
            panic!("{:?}", judge(&good(), None));
        };
        let Accepted::Before { chain, mistakes } = judge(&bad(), Some(&good().spec)) else {
            panic!("{:?}", judge(&bad(), Some(&good().spec)));
        };
        assert_eq!(chain, accepted);
        assert!(mistakes.to_string().contains("nobody"), "{mistakes}");
        assert!(matches!(judge(&bad(), None), Accepted::Never(_)));
        assert!(matches!(judge(&bad(), Some(&bad().spec)), Accepted::Never(_)));
    }

    #[test]
    fn what_cannot_be_built_with_these_settings_leaves_what_was_accepted_before() {
        let kept = kept(&good());
        let other = chain(&json!([{"name": "b", "database": {"managed": {}}}]));
        let refuse = |name: &'static str| {
            move |chain: &ValidatedChain| {
                let mut mistakes = Mistakes::new();
                if name.is_empty() || chain.service(name).is_some() {
                    mistakes.add("spec", "there is no image");
                }
                mistakes
            }
        };
        let now = || judge(&other, None);
        let judged = |map, name| now().where_buildable(&other, map, &root(), refuse(name));
        assert_eq!(judged(Some(&kept), "a"), now());
        let left = judged(Some(&kept), "b");
        assert!(matches!(&left, Accepted::Before { chain, .. } if chain.service("a").is_some()));
        assert!(matches!(judged(None, "b"), Accepted::Never(_)));
        assert!(matches!(judged(Some(&kept), ""), Accepted::Never(_)));
    }

    #[test]
    fn what_is_kept_is_read_back_only_for_the_chain_that_it_was_kept_for() {
        let kept = kept(&good());
        assert_eq!(kept_spec(&good(), &kept, &root()), Some(good().spec));
        let mut recreated = good();
        recreated.metadata.uid = Some("2".to_owned());
        assert_eq!(kept_spec(&recreated, &kept, &root()), None);
    }

    #[test]
    fn what_somebody_else_puts_in_the_place_of_the_kept_spec_counts_for_nothing() {
        let theirs = || {
            let mut theirs = good();
            let jwks = json!({"configMapKeyRef": {"name": "theirs", "key": "jwks"}});
            let rotten =
                json!([{"name": "rotten", "static": {"url": "https://their.example", "jwks": jwks}}]);
            theirs.spec.issuers = serde_json::from_value(rotten).unwrap();
            theirs
        };
        let data = |map: ConfigMap| map.data.unwrap();
        // Owner and labels are left as they are: anybody can copy them.
        let mut with_our_seal = kept(&good());
        let text = data(kept(&theirs())).remove(ACCEPTED_KEY).unwrap();
        with_our_seal
            .data
            .as_mut()
            .unwrap()
            .insert(ACCEPTED_KEY.to_owned(), text);
        let mut without = kept(&theirs());
        without.data.as_mut().unwrap().remove(ACCEPTED_SEAL_KEY);
        let with_their_root = keep(&theirs(), &RootSecret::new([8; 32]));
        let mut of_their_chain = theirs();
        of_their_chain.metadata.uid = Some("2".to_owned());
        let mut of_their_chain = kept(&of_their_chain);
        of_their_chain.metadata = kept(&good()).metadata;
        for map in [with_our_seal, without, with_their_root, of_their_chain] {
            assert_eq!(kept_spec(&good(), &map, &root()), None, "{map:?}");
        }
        assert_eq!(kept_spec(&good(), &kept(&theirs()), &root()), Some(theirs().spec));
    }
}
