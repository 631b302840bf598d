//! All objects of a chain, typed by kind. `Prepared` ones were built, `Applied` ones came back from the API server, so
//! that a status can only be computed from what was applied. It must not know how they are built or written.

use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use serde_json::Value;

/// As they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared;

/// As the API server returned them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied;

/// All objects of a chain but those that only the key controller writes.
///
/// Within a kind they are in the order of application: the Deployments of issuers, then of services from the end of the
/// chain, then the gateway's.
#[derive(Clone, PartialEq)]
pub struct Resources<S> {
    pub service_accounts: Vec<ServiceAccount>,
    pub config_maps: Vec<ConfigMap>,
    pub secrets: Vec<Secret>,
    /// Created where they are absent, and never changed: what is in them was chosen once.
    pub created_once: Vec<Secret>,
    /// Never removed: they hold what nobody can make again.
    pub persistent_volume_claims: Vec<PersistentVolumeClaim>,
    pub services: Vec<Service>,
    pub network_policies: Vec<NetworkPolicy>,
    pub pod_disruption_budgets: Vec<PodDisruptionBudget>,
    pub stateful_sets: Vec<StatefulSet>,
    pub deployments: Vec<Deployment>,
    pub state: PhantomData<S>,
}

/// One object of any of the kinds.
#[derive(Clone, PartialEq)]
pub enum Object {
    ServiceAccount(ServiceAccount),
    ConfigMap(ConfigMap),
    Secret(Secret),
    /// See [`Resources::created_once`].
    CreatedOnce(Secret),
    PersistentVolumeClaim(PersistentVolumeClaim),
    Service(Service),
    NetworkPolicy(NetworkPolicy),
    PodDisruptionBudget(PodDisruptionBudget),
    StatefulSet(StatefulSet),
    Deployment(Deployment),
}

impl<S> Resources<S> {
    /// All objects in the order of application: what others need comes first, and what runs comes last.
    pub fn into_objects(self) -> impl Iterator<Item = Object> {
        (self.service_accounts.into_iter().map(Object::ServiceAccount))
            .chain(self.config_maps.into_iter().map(Object::ConfigMap))
            .chain(self.secrets.into_iter().map(Object::Secret))
            .chain(self.created_once.into_iter().map(Object::CreatedOnce))
            .chain(
                self.persistent_volume_claims
                    .into_iter()
                    .map(Object::PersistentVolumeClaim),
            )
            .chain(self.services.into_iter().map(Object::Service))
            .chain(self.network_policies.into_iter().map(Object::NetworkPolicy))
            .chain(
                self.pod_disruption_budgets
                    .into_iter()
                    .map(Object::PodDisruptionBudget),
            )
            .chain(self.stateful_sets.into_iter().map(Object::StatefulSet))
            .chain(self.deployments.into_iter().map(Object::Deployment))
    }

    pub fn push(&mut self, object: Object) {
        match object {
            Object::ServiceAccount(object) => self.service_accounts.push(object),
            Object::ConfigMap(object) => self.config_maps.push(object),
            Object::Secret(object) => self.secrets.push(object),
            Object::CreatedOnce(object) => self.created_once.push(object),
            Object::PersistentVolumeClaim(object) => self.persistent_volume_claims.push(object),
            Object::Service(object) => self.services.push(object),
            Object::NetworkPolicy(object) => self.network_policies.push(object),
            Object::PodDisruptionBudget(object) => self.pod_disruption_budgets.push(object),
            Object::StatefulSet(object) => self.stateful_sets.push(object),
            Object::Deployment(object) => self.deployments.push(object),
        }
    }
}

impl<S> Default for Resources<S> {
    fn default() -> Self {
        Self {
            service_accounts: Vec::new(),
            config_maps: Vec::new(),
            secrets: Vec::new(),
            created_once: Vec::new(),
            persistent_volume_claims: Vec::new(),
            services: Vec::new(),
            network_policies: Vec::new(),
            pod_disruption_budgets: Vec::new(),
            stateful_sets: Vec::new(),
            deployments: Vec::new(),
            state: PhantomData,
        }
    }
}

/// Calls `$do` with the typed object of any kind.
macro_rules! of_any_kind {
    ($object:expr, $typed:ident => $do:expr) => {
        match $object {
            Object::ServiceAccount($typed) => $do,
            Object::ConfigMap($typed) => $do,
            Object::Secret($typed) | Object::CreatedOnce($typed) => $do,
            Object::PersistentVolumeClaim($typed) => $do,
            Object::Service($typed) => $do,
            Object::NetworkPolicy($typed) => $do,
            Object::PodDisruptionBudget($typed) => $do,
            Object::StatefulSet($typed) => $do,
            Object::Deployment($typed) => $do,
        }
    };
}

impl Object {
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        of_any_kind!(self, object => &object.metadata)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Group, version and kind, and where the API server has them.
    #[must_use]
    pub fn api_resource(&self) -> ApiResource {
        fn of<K: kube::Resource<DynamicType = ()>>(_: &K) -> ApiResource {
            ApiResource::erase::<K>(&())
        }
        of_any_kind!(self, object => of(object))
    }

    /// The object as JSON, with `apiVersion` and `kind`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // These types always serialize; `Null` would be refused by the API server.
        of_any_kind!(self, object => serde_json::to_value(object)).unwrap_or_default()
    }

    /// The object of the same kind that the API server returned.
    pub fn read(&self, json: Value) -> serde_json::Result<Self> {
        use serde_json::from_value;
        match self {
            Self::ServiceAccount(_) => from_value(json).map(Self::ServiceAccount),
            Self::ConfigMap(_) => from_value(json).map(Self::ConfigMap),
            Self::Secret(_) => from_value(json).map(Self::Secret),
            Self::CreatedOnce(_) => from_value(json).map(Self::CreatedOnce),
            Self::PersistentVolumeClaim(_) => from_value(json).map(Self::PersistentVolumeClaim),
            Self::Service(_) => from_value(json).map(Self::Service),
            Self::NetworkPolicy(_) => from_value(json).map(Self::NetworkPolicy),
            Self::PodDisruptionBudget(_) => from_value(json).map(Self::PodDisruptionBudget),
            Self::StatefulSet(_) => from_value(json).map(Self::StatefulSet),
            Self::Deployment(_) => from_value(json).map(Self::Deployment),
        }
    }
}

/// Kind and name alone: there are Secrets among them.
impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.api_resource().kind, self.name())
    }
}

impl<S: Clone> fmt::Debug for Resources<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.clone().into_objects())
            .finish()
    }
}
