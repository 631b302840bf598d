//! Where the rounds of one chain find its bundle, what it asks for and its pods: on this machine, or in Kubernetes. It
//! must not decide anything.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::{Revocation, ServiceChain, ValidatedChain};
use servicechain_keys::rotation::Desired;
use servicechain_keys::{ChainId, HeldBundle, NumericDate, RootSecret};
use tokio::sync::watch;

use super::bundle_file::BundleFile;
use super::config_map_store::ConfigMapStore;
use super::desired::desired;
use super::external::{ExternalIssuers, FetchRules};
use super::foreign::{self, Foreign};
use super::pod_list::PodList;
use super::revocation_status;
use super::revocations::{self, Asked, date};
use super::state::{IssuerStanding, KeyState};
use super::{Pod, chain_of};
use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::controller::accepted;
use crate::metrics::keys::Fetches;
use crate::object_names::bundle_config_map;
use crate::{pages, trace};

/// Active keys older than this RFC 3339 time are replaced.
pub const ROTATE_ANNOTATION: &str = "servicechain.dev/rotate-keys-before";

/// A bundle as it is stored, or what somebody else put in its place.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Changes with every write.
    pub version: String,
    pub bytes: Vec<u8>,
    pub claim: Claim,
}

/// Whose the thing is that holds the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Ours, and around the bundle it is as we write it.
    Intact,
    /// Ours, and somebody changed what is around the bundle: it is written again.
    Changed,
    /// Nobody's. It is ours if the bundle in it is authentic.
    Unclaimed,
}

/// Why the place did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Somebody else wrote since it was read: discard, read, decide again.
    #[error("the bundle changed since it was read")]
    Conflict,
    #[error("the bundle file cannot be used")]
    File(#[from] io::Error),
    #[error("the thread for files failed")]
    Thread(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(
        "ConfigMap {name} belongs to {owner}, and the chain's keys need that name; delete it, or rename the chain"
    )]
    NameTaken { name: String, owner: String },
    #[error(
        "the ConfigMap that the chain's keys need holds something else, and nobody owns it; delete it, or rename the chain"
    )]
    Unclaimed,
    #[error("ConfigMap {0} is immutable, and its finalizers keep it from being made anew; remove them")]
    Immutable(String),
}

/// What the chain asks of its keys, read just now; how issuers stand that are not its own; and the `Revocation`s that are
/// to hear how far they have got.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    This {
        desired: Box<Desired>,
        issuers: BTreeMap<String, IssuerStanding>,
        revocations: Vec<Asked>,
        is_paused: bool,
    },
    /// No spec of it is kept that this operator accepts: what is published stays as it is.
    Nothing,
    /// There is no such chain any more, or it is being deleted.
    Gone,
}

pub(super) enum Place {
    Local(Local),
    Cluster(Box<Cluster>),
}

pub(super) struct Local {
    pub store: BundleFile,
    pub desired: watch::Receiver<Desired>,
    pub pods: watch::Receiver<Vec<Pod>>,
    pub external: Arc<ExternalIssuers>,
}

/// One chain in Kubernetes. Every reading is the API server's own, never a cache's (ADR 3).
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    root: Arc<RootSecret>,
    chain: ChainId,
    namespace: String,
    name: String,
    store: ConfigMapStore,
    pods: PodList,
    external: Arc<ExternalIssuers>,
}

impl Place {
    pub(super) async fn read(&self) -> Result<Option<Stored>, PlaceError> {
        match self {
            Self::Local(local) => {
                let store = local.store.clone();
                Ok(tokio::task::spawn_blocking(move || store.read()).await??)
            }
            Self::Cluster(cluster) => cluster.store.read().await,
        }
    }

    /// Writes `bytes` if the stored version is still the one that was read, or still none, and returns the new one.
    pub(super) async fn replace(&self, read: Option<&str>, bytes: &Arc<[u8]>) -> Result<String, PlaceError> {
        let write = async {
            match self {
                Self::Local(local) => {
                    let (store, read, bytes) =
                        (local.store.clone(), read.map(str::to_owned), Arc::clone(bytes));
                    tokio::task::spawn_blocking(move || store.replace(read.as_deref(), &bytes)).await?
                }
                Self::Cluster(cluster) => cluster.store.replace(read, bytes).await,
            }
        };
        trace::step("publish", write).await
    }

    pub(super) async fn wish(&mut self) -> Result<Wish, PlaceError> {
        match self {
            Self::Local(local) => {
                let mut desired = Box::new(local.desired.borrow_and_update().clone());
                local.external.fill(&mut desired);
                Ok(Wish::This {
                    desired,
                    issuers: local.external.standings(),
                    revocations: Vec::new(),
                    is_paused: false,
                })
            }
            Self::Cluster(cluster) => Ok(cluster.wish().await?),
        }
    }

    pub(super) async fn pods(&mut self) -> Result<Vec<Pod>, PlaceError> {
        match self {
            Self::Local(local) => Ok(local.pods.borrow_and_update().clone()),
            Self::Cluster(cluster) => Ok(cluster.pods.list_with_issuers().await?),
        }
    }

    /// Tells every `Revocation` how far it has got; `false` where that is still to be done.
    pub(super) async fn say(
        &self,
        asked: &[Asked],
        newest: Option<&HeldBundle>,
        is_full: bool,
        keys: &KeyState,
        now: NumericDate,
    ) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Cluster(cluster) => {
                let news = revocation_status::news(asked, newest, is_full, keys, now);
                revocation_status::write_all(&cluster.client, news).await
            }
        }
    }

    /// What became of fetches of external issuers' keys, by issuer.
    pub(super) fn fetches(&self) -> BTreeMap<String, Fetches> {
        match self {
            Self::Local(local) => local.external.fetches(),
            Self::Cluster(cluster) => cluster.external.fetches(),
        }
    }

    /// Returns when another round may find something else; whoever asked for keys may be gone instead. In Kubernetes
    /// others know that, and wake the rounds.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        match self {
            Self::Local(local) => tokio::select! {
                changed = local.desired.changed() => changed,
                changed = local.pods.changed() => changed,
            },
            Self::Cluster(_) => std::future::pending().await,
        }
    }
}

impl Cluster {
    /// None for an object that the API server never stored.
    pub(super) fn new(
        client: Client,
        root: Arc<RootSecret>,
        chain: &ServiceChain,
        external: Arc<ExternalIssuers>,
        rules: FetchRules,
    ) -> Option<Self> {
        let id = ChainId::new(chain.uid()?).ok()?;
        let (namespace, name) = (chain.namespace()?, chain.name_any());
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        let store = ConfigMapStore::new(maps, bundle_config_map(&name), accepted::owner(chain), &name);
        let pods = PodList::new(client.clone(), &namespace, &name, id.clone(), rules);
        Some(Self {
            client,
            root,
            chain: id,
            namespace,
            name,
            store,
            pods,
            external,
        })
    }

    pub(super) const fn chain(&self) -> &ChainId {
        &self.chain
    }

    pub(super) const fn store(&self) -> &ConfigMapStore {
        &self.store
    }

    pub(super) const fn pods(&self) -> &PodList {
        &self.pods
    }

    async fn wish(&self) -> Result<Wish, ApiError> {
        let read = accepted::read_chain(&self.client, &self.namespace, &self.name).await?;
        let Some(object) = read else {
            return Ok(Wish::Gone);
        };
        let is_another = object.uid().as_deref() != Some(self.chain.as_str());
        if is_another || object.metadata.deletion_timestamp.is_some() {
            return Ok(Wish::Gone);
        }
        // Not what is written now: whether that can be built, a pass finds out, and keeps it first.
        let Some(spec) = &accepted::read_kept(&self.client, &self.root, &object).await? else {
            return Ok(Wish::Nothing);
        };
        let revocations = revocations::of_chain(self.revocations().await?, spec);
        let foreign = self.foreign(spec).await;
        let rotate_before = self.rotate_before(&object);
        let mut wish = desired(
            spec,
            self.chain.clone(),
            revocations::entries(&revocations),
            rotate_before,
            &foreign.given,
        );
        self.external.follow(foreign.sources, foreign.standings);
        self.external.fill(&mut wish);
        Ok(Wish::This {
            desired: Box::new(wish),
            issuers: self.external.standings(),
            revocations,
            is_paused: object.spec.paused,
        })
    }

    /// A `ConfigMap` that cannot be read is its issuer's trouble, and no other's.
    async fn foreign(&self, spec: &ValidatedChain) -> Foreign {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let mut found = BTreeMap::new();
        for name in foreign::config_maps(spec) {
            let what = format!("cannot read ConfigMap {name}");
            let map = within(READ_TIMEOUT, what, maps.get_opt(&name)).await;
            let map = map.map_err(|error| chain_of(&error));
            found.insert(name, map.map(|map| map.map(|map| map.data.unwrap_or_default())));
        }
        Foreign::new(spec, |key| match found.get(&key.name) {
            Some(Ok(Some(data))) => data
                .get(&key.key)
                .cloned()
                .ok_or_else(|| foreign::missing(key, true)),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(None)) | None => Err(foreign::missing(key, false)),
        })
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, ApiError> {
        let api = Api::<Revocation>::namespaced(self.client.clone(), &self.namespace);
        let what = format!("cannot list the Revocations of namespace {}", self.namespace);
        let of_chain = |revocation: &Revocation| revocation.spec.chain_ref.name == self.name;
        pages::read(&api, &what, of_chain).await
    }

    fn rotate_before(&self, object: &ServiceChain) -> Option<NumericDate> {
        let text = object.annotations().get(ROTATE_ANNOTATION)?;
        let time = text.parse::<jiff::Timestamp>();
        if time.is_err() {
            tracing::warn!(
                namespace = self.namespace,
                chain = self.name,
                "annotation {ROTATE_ANNOTATION} orders nothing: {text:?} is no time such as 2026-01-31T12:00:00Z"
            );
        }
        time.ok().map(date)
    }
}
