//! Everything that stands in the cluster for one chain, read now: lists by label, Secrets by name alone. It decides
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use servicechain_crds::ValidatedChain;
use servicechain_keys::Digest;

use super::build::FoundClient;
use super::observed::{self, Observed};
use super::status::workloads::REVISION_ANNOTATION;
use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::object_names::{
    self, CHAIN_LABEL, CLIENT_ID_KEY, CLIENT_SECRET_KEY, COMPONENT_LABEL, Component,
    POSTGRES_MAJOR_ANNOTATION, accepted_config_map, object, store_secret,
};
use crate::pages::Pages;

/// Secrets read at a time.
const CONCURRENCY: usize = 8;
/// Objects listed at a time.
const PAGE: u32 = 50;
/// Events of one object that are looked at.
const EVENTS: u32 = 100;

/// What a pass goes by.
#[derive(Debug, Default)]
pub struct Dereferenced {
    /// For the status and the rollout.
    pub observed: Observed,
    /// For what is written: the objects with the chain's label, but Secrets.
    pub live: Live,
    /// See [`Given`](super::build::Given).
    pub client_secrets: BTreeMap<String, FoundClient>,
    pub store_secrets: BTreeMap<String, bool>,
    pub majors: BTreeMap<String, String>,
}

/// Objects as JSON, by kind and name.
pub type Live = BTreeMap<(&'static str, String), Value>;

/// `chain` is `None` where nothing was ever accepted: then it has no Secrets that anybody knows of.
pub async fn dereference(
    client: &Client,
    namespace: &str,
    name: &str,
    chain: Option<&ValidatedChain>,
) -> Result<Dereferenced, ApiError> {
    let components = chain.map(object_names::components).unwrap_or_default();
    let reader = Reader {
        client,
        namespace,
        name,
        built: components
            .iter()
            .map(|component| object(name, *component))
            .collect(),
    };
    let (deployments, stateful_sets, replica_sets, pods, claims) = tokio::try_join!(
        reader.built::<Deployment>(),
        reader.built::<StatefulSet>(),
        reader.list(trim_replica_set),
        reader.list(observed::trim),
        reader.built::<PersistentVolumeClaim>(),
    )?;
    let (services, accounts, config_maps, policies, budgets) = tokio::try_join!(
        reader.built::<Service>(),
        reader.built::<ServiceAccount>(),
        reader.config_maps(chain),
        reader.built::<NetworkPolicy>(),
        reader.built::<PodDisruptionBudget>(),
    )?;
    let mut live = Live::new();
    remember(&mut live, &deployments);
    remember(&mut live, &stateful_sets);
    remember(&mut live, &claims);
    remember(&mut live, &services);
    remember(&mut live, &accounts);
    remember(&mut live, &config_maps);
    remember(&mut live, &policies);
    remember(&mut live, &budgets);

    let majors = claims.iter().filter_map(major).collect();
    let (client_secrets, secrets, owned) = match chain {
        Some(chain) => reader.secrets(chain).await?,
        None => Default::default(),
    };
    let store_secrets = chain
        .into_iter()
        .flat_map(|chain| store_secret_names(name, chain));
    let store_secrets = store_secrets
        .filter(|secret| secrets.contains_key(secret))
        .map(|secret| (secret.clone(), owned.contains(&secret)))
        .collect();
    let events = reader
        .events(observed::eventful(&claims, &pods, &stateful_sets))
        .await;
    let gateway = object(name, Component::Gateway);
    let ids = client_secrets
        .iter()
        .map(|(secret, found)| (secret.clone(), found.id.clone()));
    let client_ids = ids.collect();
    Ok(Dereferenced {
        observed: Observed {
            gateway_service: services.into_iter().find(|service| service.name_any() == gateway),
            deployments,
            stateful_sets,
            replica_sets,
            pods,
            claims,
            events,
            secrets,
            client_ids,
            standing: live.keys().cloned().collect(),
            ..Observed::default()
        },
        live,
        client_secrets,
        store_secrets,
        majors,
    })
}

struct Reader<'a> {
    client: &'a Client,
    namespace: &'a str,
    /// Of the chain.
    name: &'a str,
    /// Names of what is built for its components.
    built: BTreeSet<String>,
}

type KeysByName = BTreeMap<String, BTreeSet<String>>;

impl Reader<'_> {
    /// Each object is trimmed before the next page is read.
    async fn list<K>(&self, trim: impl Fn(&mut K)) -> Result<Vec<K>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), self.namespace);
        let params = ListParams::default().labels(&format!("{CHAIN_LABEL}={}", self.name));
        let mut pages = Pages::of(params, PAGE);
        let mut found = Vec::new();
        while let Some(params) = pages.wanted() {
            let what = format!("cannot list {} of {}", K::plural(&()), self.namespace);
            let page = within(READ_TIMEOUT, what, api.list(&params)).await;
            let mut objects = pages.take(page)?;
            objects.iter_mut().for_each(&trim);
            found.append(&mut objects);
        }
        Ok(found)
    }

    /// Those that are built, whole; of others, which anybody may fill and label, only that they are there, whose they
    /// are, and what is never made again.
    async fn built<K>(&self) -> Result<Vec<K>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Default
            + DeserializeOwned,
    {
        let trim = |object: &mut K| {
            if self.built.contains(&object.name_any()) {
                return;
            }
            let mut metadata = std::mem::take(object.meta_mut());
            metadata.managed_fields = None;
            if let Some(annotations) = &mut metadata.annotations {
                annotations.retain(|name, _| name == POSTGRES_MAJOR_ANNOTATION);
            }
            *object = K::default();
            *object.meta_mut() = metadata;
        };
        self.list(trim).await
    }

    /// Those that are built, whole; of others, which anybody may fill and label, only that they are there.
    async fn config_maps(&self, chain: Option<&ValidatedChain>) -> Result<Vec<ConfigMap>, ApiError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), self.namespace);
        let components = chain.map(object_names::components).unwrap_or_default();
        let configs = components
            .iter()
            .map(|component| object_names::config(self.name, *component));
        let whole: BTreeSet<String> = configs.chain([accepted_config_map(self.name)]).collect();
        let params = ListParams::default().labels(&format!("{CHAIN_LABEL}={}", self.name));
        let mut pages = Pages::of(params, PAGE);
        let mut found = Vec::new();
        while let Some(params) = pages.wanted() {
            let what = format!("cannot list configmaps of {}", self.namespace);
            let page = within(READ_TIMEOUT, what, api.list_metadata(&params)).await;
            for mut seen in pages.take(page)? {
                let name = seen.name_any();
                if !whole.contains(&name) {
                    seen.metadata.annotations = None;
                    seen.metadata.managed_fields = None;
                    found.push(ConfigMap {
                        metadata: seen.metadata,
                        ..ConfigMap::default()
                    });
                    continue;
                }
                let what = format!("cannot read the ConfigMap {name}");
                found.extend(within(READ_TIMEOUT, what, api.get_opt(&name)).await?);
            }
        }
        Ok(found)
    }

    async fn secrets(
        &self,
        chain: &ValidatedChain,
    ) -> Result<(BTreeMap<String, FoundClient>, KeysByName, BTreeSet<String>), ApiError> {
        let api = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        let mut names: BTreeSet<String> = store_secret_names(self.name, chain).collect();
        for (_, managed) in chain.managed_issuers() {
            names.extend(managed.clients.iter().map(|client| client.secret_name.clone()));
        }
        let reads: Vec<_> = names
            .into_iter()
            .map(|name| {
                let api = api.clone();
                async move {
                    let what = format!("cannot read the Secret {name}");
                    let read = within(READ_TIMEOUT, what, api.get_opt(&name)).await?;
                    Ok::<_, ApiError>(read.map(|secret| (name, secret)))
                }
            })
            .collect();
        let found: Vec<(String, Secret)> = stream::iter(reads)
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(async |secret| Ok(secret))
            .try_collect()
            .await?;
        let clients = found
            .iter()
            .filter_map(|(name, secret)| Some((name.clone(), found_client(secret)?)))
            .collect();
        let owned = found
            .iter()
            .filter(|(_, secret)| !secret.owner_references().is_empty());
        let owned = owned.map(|(name, _)| name.clone()).collect();
        let keys = found.into_iter().map(|(name, secret)| {
            let keys = secret.data.unwrap_or_default().into_keys().collect();
            (name, keys)
        });
        Ok((clients, keys.collect(), owned))
    }

    /// Of what is in trouble. They only explain: where they cannot be read there are none.
    async fn events(&self, uids: Vec<String>) -> Vec<Event> {
        let api = Api::<Event>::namespaced(self.client.clone(), self.namespace);
        let mut events = Vec::new();
        for uid in uids {
            let params = ListParams::default()
                .fields(&format!("involvedObject.uid={uid}"))
                .limit(EVENTS);
            match within(READ_TIMEOUT, "cannot list Events", api.list(&params)).await {
                Ok(list) => events.extend(list.items),
                Err(error) => {
                    tracing::debug!(error = %error.message(), "{error}");
                    return events;
                }
            }
        }
        events
    }
}

fn store_secret_names<'a>(name: &'a str, chain: &'a ValidatedChain) -> impl Iterator<Item = String> + 'a {
    let with_database = chain.services.iter().filter(|service| service.database.is_some());
    with_database.map(move |service| {
        store_secret(
            name,
            Component::Database {
                service: &service.name,
            },
        )
    })
}

/// Leaves of a `ReplicaSet` whose it is, which revision, and how it stands.
fn trim_replica_set(set: &mut ReplicaSet) {
    set.metadata.managed_fields = None;
    if let Some(annotations) = &mut set.metadata.annotations {
        annotations.retain(|name, _| name == REVISION_ANNOTATION);
    }
    set.spec = None;
}

fn remember<K>(live: &mut Live, objects: &[K])
where
    K: k8s_openapi::Resource + Resource + Serialize,
{
    for object in objects {
        // These types always serialize.
        let json = serde_json::to_value(object).unwrap_or_default();
        live.insert((K::KIND, object.meta().name.clone().unwrap_or_default()), json);
    }
}

fn major(claim: &PersistentVolumeClaim) -> Option<(String, String)> {
    let major = claim.annotations().get(POSTGRES_MAJOR_ANNOTATION)?;
    let service = claim.labels().get(COMPONENT_LABEL)?.strip_suffix("-postgres")?;
    Some((service.to_owned(), major.clone()))
}

/// One without an id or without a secret is none.
fn found_client(secret: &Secret) -> Option<FoundClient> {
    let data = secret.data.as_ref()?;
    let id = String::from_utf8(data.get(CLIENT_ID_KEY)?.0.clone()).ok()?;
    let digest = Digest::of(&data.get(CLIENT_SECRET_KEY)?.0).to_string();
    let sha256 = digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned();
    Some(FoundClient { id, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_clients_secret_is_known_by_its_digest() {
        let found = |data: Value| found_client(&serde_json::from_value(json!({"data": data})).unwrap());
        // "demo" and "swordfish".
        let both = found(json!({"clientID": "ZGVtbw==", "clientSecret": "c3dvcmRmaXNo"}));
        let both = both.unwrap();
        let digest = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799";
        assert_eq!((both.id.as_str(), both.sha256.as_str()), ("demo", digest));
        assert!(found(json!({"clientID": "ZGVtbw=="})).is_none());
    }

    #[test]
    fn a_claim_tells_the_major_version_of_its_volume() {
        let claim = json!({"metadata": {
            "name": "shop-a-postgres",
            "labels": {"servicechain.dev/component": "a-postgres"},
            "annotations": {"servicechain.dev/postgres-major": "15"},
        }});
        let claim = serde_json::from_value(claim).unwrap();
        assert_eq!(major(&claim), Some(("a".to_owned(), "15".to_owned())));
    }
}
