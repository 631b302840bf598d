//! What stands in the cluster for one chain: the plain data that `dereference` reads and that `status` and `rollout`
//! judge. It must not know how it was read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Event, PersistentVolumeClaim, Pod, PodSpec, Service,
};

/// Objects whose events are read in one pass: where more are stuck, the first tell enough.
const MAX_EVENTFUL: usize = 8;

/// Everything of one chain, by its labels, but Secrets, which are read by name.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub deployments: Vec<Deployment>,
    pub stateful_sets: Vec<StatefulSet>,
    pub replica_sets: Vec<ReplicaSet>,
    /// Trimmed by [`trim`].
    pub pods: Vec<Pod>,
    pub claims: Vec<PersistentVolumeClaim>,
    /// The gateway's Service, which knows its node port and its load balancer's address.
    pub gateway_service: Option<Service>,
    /// Events of the [`eventful`] objects. Empty where they could not be read.
    pub events: Vec<Event>,
    /// The Secrets of clients and of managed databases that exist, by name, with the names of their keys.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
    /// Which client each complete Secret of a client is of, by the Secret's name: its `clientID`.
    pub client_ids: BTreeMap<String, String>,
    /// Kind and name of everything that has the chain's label, but Secrets, which cannot be listed.
    pub standing: BTreeSet<(&'static str, String)>,
    /// Objects that somebody else controls, and which were therefore left alone.
    pub name_taken: Vec<NameTaken>,
    /// What the API server would not do in this pass.
    pub write_failures: Vec<WriteFailure>,
}

/// An object whose name the chain needs, and which is somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTaken {
    pub kind: &'static str,
    pub name: String,
    /// Kind and name of the object that controls it, such as `ServiceChain other`; `None`: nobody does.
    pub owner: Option<String>,
}

/// A write that the API server did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFailure {
    pub kind: &'static str,
    pub name: String,
    pub refusal: Refusal,
    /// The API server's own words.
    pub message: String,
}

/// Why a write was not done, as far as the remedy differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A `ResourceQuota` or `LimitRange` of the namespace.
    Quota,
    /// A policy: Pod Security, a webhook, an admission policy, a plugin of the API server.
    Admission,
    /// The operator's own permissions.
    Forbidden,
    /// The object itself, such as a change of a field that cannot be changed.
    Invalid,
    /// Its namespace is being deleted.
    NamespaceEnds,
    /// No answer in time, a conflict, or an error of the API server: tried again.
    Unavailable,
}

impl Refusal {
    /// By the code and the message of the API server's `Status`: its `reason` is `Forbidden` for quota, policy and
    /// permission alike.
    #[must_use]
    pub fn of(code: u16, message: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match code {
            403 if says(&["because it is being terminated"]) => Self::NamespaceEnds,
            403 if says(&[" cannot "]) && says(&["User \""]) => Self::Forbidden,
            403 if says(&[
                "exceeded quota",
                "failed quota",
                " usage per ",
                "limit to request ratio",
            ]) =>
            {
                Self::Quota
            }
            400 | 403 | 422 if says(&["admission webhook", "denied request", "violates PodSecurity"]) => {
                Self::Admission
            }
            401 => Self::Forbidden,
            403 => Self::Admission,
            400 | 404 | 405 | 415 | 422 => Self::Invalid,
            _ => Self::Unavailable,
        }
    }
}

/// Leaves of a pod what is needed to judge it, since full pods of many chains would fill the memory.
pub fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = pod.spec.take() {
        let containers = spec.containers.into_iter().map(|container| Container {
            name: container.name,
            image: container.image,
            ..Default::default()
        });
        pod.spec = Some(PodSpec {
            containers: containers.collect(),
            node_name: spec.node_name,
            ..PodSpec::default()
        });
    }
}

/// Uids of the objects whose events say what nothing else says: claims that are not bound, pods that were scheduled and
/// whose containers never began, stateful sets without their pods. At most `MAX_EVENTFUL`, the first by name.
#[must_use]
pub fn eventful(claims: &[PersistentVolumeClaim], pods: &[Pod], sets: &[StatefulSet]) -> Vec<String> {
    let claims = claims.iter().filter(|claim| !is_bound(claim));
    let pods = pods.iter().filter(|pod| waits_for_volumes(pod));
    let sets = sets.iter().filter(|set| lacks_pods(set));
    let mut named: Vec<_> = claims
        .map(|claim| &claim.metadata)
        .chain(pods.map(|pod| &pod.metadata))
        .chain(sets.map(|set| &set.metadata))
        .filter_map(|metadata| Some((metadata.name.clone()?, metadata.uid.clone()?)))
        .collect();
    named.sort_unstable();
    named.truncate(MAX_EVENTFUL);
    named.into_iter().map(|(_, uid)| uid).collect()
}

pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
}

pub(super) fn waits_for_volumes(pod: &Pod) -> bool {
    let is_scheduled = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    let is_made = |status: &ContainerStatus| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.map(|waiting| waiting.reason.as_deref());
        !matches!(reason, Some(None | Some("ContainerCreating" | "PodInitializing")))
    };
    let none_is_made = containers.is_none_or(|containers| !containers.iter().any(is_made));
    is_scheduled && none_is_made && pod.metadata.deletion_timestamp.is_none()
}

fn lacks_pods(set: &StatefulSet) -> bool {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    set.status.as_ref().is_some_and(|status| status.replicas < wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_the_words_of_the_api_server() {
        let cases = [
            (
                403,
                r#"deployments.apps "shop-a" is forbidden: User "system:serviceaccount:ops:operator" cannot patch resource "deployments" in API group "apps" in the namespace "shop""#,
                Refusal::Forbidden,
            ),
            (
                403,
                r#"persistentvolumeclaims "shop-a-postgres" is forbidden: exceeded quota: storage, requested: requests.storage=1Gi, used: requests.storage=10Gi, limited: requests.storage=10Gi"#,
                Refusal::Quota,
            ),
            (
                403,
                r#"pods "shop-a-1" is forbidden: maximum memory usage per Container is 64Mi, but limit is 128Mi"#,
                Refusal::Quota,
            ),
            (
                403,
                r#"pods "shop-a-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#,
                Refusal::Admission,
            ),
            (
                400,
                r#"admission webhook "validate.example.com" denied the request: no latest tags"#,
                Refusal::Admission,
            ),
            (
                422,
                r#"deployments.apps "shop-a" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: registry not allowed"#,
                Refusal::Admission,
            ),
            (
                403,
                r#"configmaps "shop-keys" is forbidden: unable to create new content in namespace shop because it is being terminated"#,
                Refusal::NamespaceEnds,
            ),
            (
                422,
                r#"Service "shop-gateway" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#,
                Refusal::Invalid,
            ),
            (
                403,
                r#"persistentvolumeclaims "shop-a-postgres" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"#,
                Refusal::Admission,
            ),
            (409, "the object has been modified", Refusal::Unavailable),
            (503, "etcdserver: leader changed", Refusal::Unavailable),
        ];
        for (code, message, expected) in cases {
            assert_eq!(Refusal::of(code, message), expected, "{code} {message}");
        }
    }
}
