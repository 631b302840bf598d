//! The verifier pods of a chain, as a consistent LIST shows them: trimmed to what a round needs, with the issuer whose
//! `ReplicaSet` controls a pod. It must not know what is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod as Object, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, ObjectList};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use servicechain_keys::rotation::ListedPod;
use servicechain_keys::{ChainId, PodId, Workload};

use super::Pod;
use super::external::FetchRules;
use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::object_names::{CHAIN_LABEL, Component, object};
use crate::pages::Pages;

/// Name of the port where a pod is asked for its keys; the container that has it is the verifier.
pub const KEYS_PORT: &str = "keys";
/// Literals of the verifier's container: which chain it belongs to and whose key it answers with. A pod's spec, unlike
/// its labels, cannot be changed.
const CHAIN_UID: &str = "CHAIN_UID";
const WORKLOAD: &str = "WORKLOAD";
/// Objects of one page; the pages of one LIST are of one moment.
const PAGE: u32 = 250;

#[derive(Clone)]
pub(super) struct PodList {
    client: Client,
    namespace: String,
    name: String,
    chain: ChainId,
    rules: FetchRules,
}

/// A pod, and who controls it.
struct Found {
    pod: Pod,
    replica_set: Option<String>,
}

impl PodList {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        chain: ChainId,
        rules: FetchRules,
    ) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            chain,
            rules,
        }
    }

    /// Without their issuers.
    pub(super) async fn list(&self) -> Result<Vec<Pod>, ApiError> {
        let found = self.find().await?;
        Ok(found.into_iter().map(|found| found.pod).collect())
    }

    /// What controls the pods is read after them: it was there before them.
    pub(super) async fn list_with_issuers(&self) -> Result<Vec<Pod>, ApiError> {
        let mut found = self.find().await?;
        let controllers: BTreeSet<_> = found
            .iter()
            .filter_map(|found| found.replica_set.clone())
            .collect();
        if !controllers.is_empty() {
            let issuers = self.issuers(&controllers).await?;
            for found in &mut found {
                let issuer = found.replica_set.as_ref().and_then(|uid| issuers.get(uid));
                let is_meant = |issuer: &&String| issuer.as_str() == found.pod.workload.as_str();
                found.pod.listed.issuer = issuer.filter(is_meant).cloned();
            }
        }
        Ok(found.into_iter().map(|found| found.pod).collect())
    }

    async fn find(&self) -> Result<Vec<Found>, ApiError> {
        let api = Api::<Object>::namespaced(self.client.clone(), &self.namespace);
        let page = |params: ListParams| {
            let api = api.clone();
            async move { api.list(&params).await }
        };
        self.pages("Pods", page, |pod: Object| found(&pod, &self.chain, &self.rules))
            .await
    }

    /// By the uid of a `ReplicaSet`: the issuer whose Deployment, made for this chain, controls it.
    async fn issuers(&self, replica_sets: &BTreeSet<String>) -> Result<BTreeMap<String, String>, ApiError> {
        let sets = self.controllers::<ReplicaSet>("ReplicaSets").await?;
        let deployments = self.controllers::<Deployment>("Deployments").await?;
        let deployments: BTreeMap<_, _> = deployments
            .iter()
            .filter_map(|deployment| {
                let owners = deployment.owner_references.as_deref().unwrap_or_default();
                let is_ours = owners.iter().any(|owner| owner.uid == self.chain.as_str());
                let issuer = issuer_of(deployment.name.as_deref()?, &self.name)?;
                is_ours.then_some((deployment.uid.as_deref()?, issuer))
            })
            .collect();
        let of_set = |set: &ObjectMeta| {
            let uid = set.uid.as_ref().filter(|uid| replica_sets.contains(*uid))?;
            let deployment = controller(set, "Deployment")?;
            Some((uid.clone(), deployments.get(deployment.uid.as_str())?.clone()))
        };
        Ok(sets.iter().filter_map(of_set).collect())
    }

    async fn controllers<K>(&self, what: &str) -> Result<Vec<ObjectMeta>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        let page = |params: ListParams| {
            let api = api.clone();
            async move { api.list_metadata(&params).await }
        };
        self.pages(what, page, |object: PartialObjectMeta<K>| Some(object.metadata))
            .await
    }

    /// Each object is trimmed before the next page is read.
    async fn pages<K: Clone, T, Page>(
        &self,
        what: &str,
        page: impl Fn(ListParams) -> Page,
        trim: impl Fn(K) -> Option<T>,
    ) -> Result<Vec<T>, ApiError>
    where
        Page: Future<Output = kube::Result<ObjectList<K>>>,
    {
        let mut all = Vec::new();
        // Neither a version nor a version match: the API server answers with the newest there is.
        let params = ListParams::default().labels(&format!("{CHAIN_LABEL}={}", self.name));
        let mut pages = Pages::of(params, PAGE);
        while let Some(params) = pages.wanted() {
            let what = format!("cannot list the {what} of chain {}/{}", self.namespace, self.name);
            let list = within(READ_TIMEOUT, what, page(params)).await;
            all.extend(pages.take(list)?.into_iter().filter_map(&trim));
        }
        Ok(all)
    }
}

fn controller<'a>(object: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    let mut owners = object.owner_references.as_deref().unwrap_or_default().iter();
    owners.find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

/// The issuer that a Deployment of this name is for.
fn issuer_of(deployment: &str, chain: &str) -> Option<String> {
    let prefix = object(chain, Component::Issuer(""));
    deployment.strip_prefix(&prefix).map(str::to_owned)
}

/// None for what verifies nothing, and for what belongs to another chain of that name. A pod at an address that no pod
/// can have is not called, and counts as one that does not answer.
fn found(object: &Object, chain: &ChainId, rules: &FetchRules) -> Option<Found> {
    let spec = object.spec.as_ref()?;
    let status = object.status.clone().unwrap_or_default();
    let (container, port) = spec.containers.iter().find_map(|container| {
        let mut ports = container.ports.iter().flatten();
        let keys = ports.find(|port| port.name.as_deref() == Some(KEYS_PORT))?;
        Some((container, u16::try_from(keys.container_port).ok()?))
    })?;
    if literal(container, CHAIN_UID)? != chain.as_str() {
        return None;
    }
    let verifier = verifier(&status, container);
    let address = status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
    Some(Found {
        replica_set: controller(&object.metadata, "ReplicaSet").map(|owner| owner.uid.clone()),
        pod: Pod {
            name: object.metadata.name.clone()?,
            listed: ListedPod {
                pod: PodId::new(object.metadata.uid.clone()?).ok()?,
                issuer: None,
                addressed: address.is_some(),
                runs: verifier.is_some_and(has_run),
                ready: is_ready(&status),
                ended: has_ended(&status, verifier),
            },
            workload: Workload::new(literal(container, WORKLOAD)?).ok()?,
            keys_address: address
                .filter(|ip| rules.permit_pod(*ip))
                .map(|ip| SocketAddr::new(ip, port).to_string()),
        },
    })
}

fn literal<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut variables = container.env.iter().flatten();
    variables.find(|variable| variable.name == name)?.value.as_deref()
}

fn verifier<'a>(status: &'a PodStatus, container: &Container) -> Option<&'a ContainerStatus> {
    let mut statuses = status.container_statuses.iter().flatten();
    statuses.find(|status| status.name == container.name)
}

/// It runs, or has run: one that starts again knocks before the API server shows that it runs once more.
fn has_run(container: &ContainerStatus) -> bool {
    let states: [&Option<ContainerState>; 2] = [&container.state, &container.last_state];
    let began = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    container.restart_count > 0 || states.into_iter().flatten().any(began)
}

/// Whether the kubelet calls the pod Ready.
pub(crate) fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The phase alone is no proof: it is also written for a node that is cut off, whose containers go on.
fn has_ended(status: &PodStatus, verifier: Option<&ContainerStatus>) -> bool {
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let state = verifier.and_then(|verifier| verifier.state.as_ref());
    is_over && state.is_some_and(|state| state.terminated.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chain() -> ChainId {
        ChainId::new("chain-1").unwrap()
    }

    fn pod(chain: &str, ports: &Value, status: &Value) -> Option<Found> {
        let pod = json!({
            "metadata": {"name": "shop-a-1", "uid": "pod-1", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-a", "uid": "set-1", "controller": true},
            ]},
            "spec": {"containers": [
                {"name": "sidecar"},
                {"name": "service", "ports": ports, "env": [
                    {"name": "CHAIN_UID", "value": chain}, {"name": "WORKLOAD", "value": "a"},
                ]},
            ]},
            "status": status,
        });
        let pod = serde_json::from_value(pod).unwrap();
        found(&pod, &self::chain(), &FetchRules::default())
    }

    fn with_status(status: &Value) -> ListedPod {
        let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "keys", "containerPort": 9091}]);
        pod("chain-1", &ports, status).unwrap().pod.listed
    }

    fn container(state: &Value, restarts: u32) -> Value {
        json!({
            "name": "service", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
        })
    }

    #[test]
    fn a_verifier_is_what_has_a_keys_port_and_belongs_to_this_very_chain() {
        let keys = json!([{"name": "keys", "containerPort": 9091}]);
        let status = json!({"podIP": "fd00::7"});
        let found = pod("chain-1", &keys, &status).unwrap();
        assert_eq!(found.pod.keys_address.as_deref(), Some("[fd00::7]:9091"));
        assert_eq!(
            (found.pod.name.as_str(), found.pod.workload.as_str()),
            ("shop-a-1", "a")
        );
        assert_eq!(found.replica_set.as_deref(), Some("set-1"));
        assert!(
            pod("chain-0", &keys, &status).is_none(),
            "of a chain that was there before"
        );
        let other = json!([{"name": "http", "containerPort": 8080}]);
        assert!(pod("chain-1", &other, &status).is_none(), "a store");
    }

    #[test]
    fn who_writes_a_pods_status_does_not_lead_the_operator_to_itself() {
        let keys = json!([{"name": "keys", "containerPort": 9091}]);
        let at = |ip: &str| pod("chain-1", &keys, &json!({"podIP": ip})).unwrap().pod;
        let (own, odd) = (at("10.0.0.7"), at("127.0.0.1"));
        assert_eq!(own.keys_address.as_deref(), Some("10.0.0.7:9091"));
        assert_eq!(odd.keys_address, None);
        assert!(odd.listed.addressed, "it is still waited for");
    }

    #[test]
    fn a_container_that_starts_again_still_counts_as_running() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let first = with_status(&json!({"podIP": "10.0.0.7", "containerStatuses": [container(&waiting, 0)]}));
        assert!(first.addressed && !first.runs);
        let again = with_status(&json!({"podIP": "10.0.0.7", "containerStatuses": [container(&waiting, 1)]}));
        assert!(again.runs);
        let running = json!({"running": {}});
        let runs = with_status(&json!({"containerStatuses": [container(&running, 0)]}));
        assert!(runs.runs && !runs.addressed && !runs.ready);
        let ready = with_status(&json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(ready.ready && !ready.runs);
    }

    #[test]
    fn a_phase_without_a_terminated_container_is_no_end() {
        let running = json!({"running": {}});
        let terminated = json!({"terminated": {"exitCode": 0}});
        let ended = |phase: &str, state: &Value| {
            with_status(&json!({"phase": phase, "containerStatuses": [container(state, 0)]})).ended
        };
        assert!(!ended("Failed", &running), "its node is cut off");
        assert!(!ended("Running", &terminated), "it starts again");
        assert!(ended("Failed", &terminated) && ended("Succeeded", &terminated));
    }
}
