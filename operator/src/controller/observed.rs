//! What stands in the cluster for one chain: the plain data that `dereference` reads and that `status` and `rollout`
//! judge. It must not know how it was read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, PodSpec, Service};

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
    /// Events of claims that are not bound and of pods that do not start ([`needs_events`]): only they say why a
    /// volume is not made or not mounted. Empty where they could not be read.
    pub events: Vec<Event>,
    /// The Secrets of clients and of managed databases that exist, by name, with the names of their keys.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
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
    /// A ResourceQuota or LimitRange of the namespace.
    Quota,
    /// A policy: Pod Security, a webhook, an admission policy.
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
            401 | 403 => Self::Forbidden,
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
        let containers = spec
            .containers
            .into_iter()
            .map(|container| k8s_openapi::api::core::v1::Container {
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

/// Whether the events of a claim say more than the claim.
#[must_use]
pub fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    phase != Some("Bound")
}

/// Whether the events of a pod say more than the pod: it was scheduled, and none of its containers ever began.
#[must_use]
pub fn needs_events(pod: &Pod) -> bool {
    let scheduled = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let waits_for_volumes = statuses.is_none_or(|statuses| {
        statuses.iter().all(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.is_some_and(|waiting| {
                matches!(
                    waiting.reason.as_deref(),
                    None | Some("ContainerCreating" | "PodInitializing")
                )
            })
        })
    });
    scheduled && waits_for_volumes && pod.metadata.deletion_timestamp.is_none()
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
            (409, "the object has been modified", Refusal::Unavailable),
            (503, "etcdserver: leader changed", Refusal::Unavailable),
        ];
        for (code, message, expected) in cases {
            assert_eq!(Refusal::of(code, message), expected, "{code} {message}");
        }
    }
}
