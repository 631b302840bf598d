//! `revoke --isolate`: pods that do not hold a revocation in time are taken out of every Service and ended, with the rights
//! of whoever asks. The label that Services and the `ReplicaSet` select by goes first: a deletion alone leaves a pod on a
//! silent node where it was, and others may be sent to it still. The chain's own label stays, so that the operator goes on
//! counting the pod for as long as it may run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::json;
use servicechain_crds::Revocation;
use servicechain_crds::service_chain::status::{KeysStatus, LaggardStatus};
use servicechain_operator::object_names::{CHAIN_LABEL, COMPONENT_LABEL};

use crate::cluster::{Cluster, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::tame;

/// What the pod was, for whoever looks for it.
const ISOLATED_LABEL: &str = "servicechain.dev/isolated";
/// The least that the API server takes for a pod that its node is to end; zero would only forget it.
const GRACE_SECONDS: u32 = 1;
/// Longest name of a pod or a node that is shown whole.
const LONGEST_NAME: usize = 253;
/// Longest reason, which is one word.
const LONGEST_REASON: usize = 64;
/// Endpoints of one answer.
const PAGE: u32 = 500;

/// What is needed beside the right to revoke, as the documentation has it.
const GET: Question<'static> = of_pods("get");
const PATCH: Question<'static> = of_pods("patch");
const DELETE: Question<'static> = of_pods("delete");
const LIST: Question<'static> = Question {
    verb: "list",
    resource: "endpointslices.discovery.k8s.io",
};

const fn of_pods(verb: &'static str) -> Question<'static> {
    Question {
        verb,
        resource: "pods",
    }
}

/// The pods that were ended so far.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    ended: Vec<Isolated>,
    /// Names that were looked at and are none of this.
    passed_over: BTreeSet<String>,
}

#[derive(Debug)]
struct Isolated {
    pod: String,
    uid: String,
    /// Why it did not hold the revocation, in one word.
    reason: String,
}

/// Before anything is done: what cannot be finished is not begun.
pub(super) async fn check_rights(cluster: &Cluster) -> Result<(), Failure> {
    for right in [GET, PATCH, DELETE, LIST] {
        cluster.require(right).await?;
    }
    Ok(())
}

/// Those that the status names and that hold no bundle with the revocation. None while nobody can know.
fn behind<'a>(keys: &'a KeysStatus, revocation: &Revocation) -> impl Iterator<Item = &'a LaggardStatus> {
    let needed = revocation
        .status
        .as_ref()
        .and_then(|status| status.bundle_generation);
    let is_known = needed.is_some_and(|needed| keys.generation >= needed);
    keys.laggards
        .iter()
        .filter(move |laggard| is_known && laggard.generation < needed)
}

/// Of this chain, and older than the revocation: one that came later takes it before it is ready.
fn is_meant(pod: &Pod, chain: &str, revocation: &Revocation) -> bool {
    let created = |object: &kube::core::ObjectMeta| object.creation_timestamp.as_ref().map(|time| time.0);
    let is_of_chain = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CHAIN_LABEL))
        .is_some_and(|of| of == chain);
    is_of_chain && created(&pod.metadata) <= created(&revocation.metadata)
}

impl Isolation {
    /// Ends whoever is named as behind and was not looked at yet. The status names a few at a time.
    pub(super) async fn end_who_is_behind(
        &mut self,
        cluster: &Cluster,
        chain: &str,
        revocation: &Revocation,
    ) -> Result<(), Failure> {
        let status = match cluster.chain(chain).await {
            Ok(chain) => chain.status,
            Err(Unanswered::Unreachable(_)) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let Some(keys) = status.and_then(|status| status.keys) else {
            return Ok(());
        };
        for laggard in behind(&keys, revocation) {
            let is_known = self.ended.iter().any(|ended| ended.pod == laggard.pod)
                || self.passed_over.contains(&laggard.pod);
            if is_known {
                continue;
            }
            match end(cluster, chain, revocation, laggard).await {
                Ok(Some(ended)) => self.ended.push(ended),
                Ok(None) => drop(self.passed_over.insert(laggard.pod.clone())),
                // It is tried again with the next look.
                Err(Unanswered::Unreachable(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    /// What has become of each of them.
    pub(super) async fn outcome(&self, cluster: &Cluster) -> Vec<Outcome> {
        if self.ended.is_empty() {
            return Vec::new();
        }
        let endpoints = endpoints(cluster).await.ok();
        let mut outcomes = Vec::new();
        for ended in &self.ended {
            let found = cluster.ask(GET, cluster.api::<Pod>().get_opt(&ended.pod)).await;
            let same = found.map(|pod| pod.filter(|pod| pod.uid().as_ref() == Some(&ended.uid)));
            let is_sent_to = endpoints.as_ref().map(|endpoints| endpoints.contains(&ended.uid));
            outcomes.push(ended.outcome(same, is_sent_to));
        }
        outcomes
    }
}

/// What has become of a pod that was to end. `null`: it could not be asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pod: String,
    /// Why it did not hold the revocation, in one word.
    reason: String,
    has_ended: Option<bool>,
    /// Some Service still sends requests to it.
    is_sent_to: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Isolated {
    /// `found` is the pod, if it is still there; `is_sent_to` is `None` where that could not be asked.
    fn outcome(&self, found: Result<Option<Pod>, Unanswered>, is_sent_to: Option<bool>) -> Outcome {
        let has_ended = found.as_ref().ok().map(Option::is_none);
        let spec = found.ok().flatten().and_then(|pod| pod.spec);
        Outcome {
            pod: tame(&self.pod, LONGEST_NAME),
            reason: tame(&self.reason, LONGEST_REASON),
            has_ended,
            is_sent_to: if has_ended == Some(true) {
                Some(false)
            } else {
                is_sent_to
            },
            node: spec
                .and_then(|spec| spec.node_name)
                .map(|node| tame(&node, LONGEST_NAME)),
        }
    }
}

impl Outcome {
    pub(super) fn sentence(&self) -> String {
        let Self { pod, reason, .. } = self;
        let sent = match self.is_sent_to {
            Some(false) => "no Service sends to it",
            Some(true) => "Services still send to it",
            None => "whether Services send to it could not be asked",
        };
        match (self.has_ended, &self.node) {
            (Some(true), _) => format!("{pod} ({reason}) was ended"),
            (Some(false), Some(node)) => format!(
                "{pod} ({reason}) was told to end, and {sent}; its node {node} has not said that it did, so it may still \
                 run there. Once that node is surely off: kubectl delete pod --force {pod}"
            ),
            (Some(false), None) => format!("{pod} ({reason}) was told to end, and {sent}"),
            (None, _) => {
                format!("{pod} ({reason}) was told to end, and {sent}; whether it did could not be asked")
            }
        }
    }
}

/// `None` where it is gone already, or none of the chain's pods from before the revocation.
async fn end(
    cluster: &Cluster,
    chain: &str,
    revocation: &Revocation,
    laggard: &LaggardStatus,
) -> Result<Option<Isolated>, Unanswered> {
    let api = cluster.api::<Pod>();
    let pod = cluster.ask(GET, api.get_opt(&laggard.pod)).await?;
    let Some(pod) = pod.filter(|pod| is_meant(pod, chain, revocation)) else {
        return Ok(None);
    };
    let uid = pod.uid().unwrap_or_default();
    let component = pod.labels().get(COMPONENT_LABEL);
    if component.is_some() {
        // With its uid, so that no other pod is meant that took its name meanwhile.
        let labels = json!({COMPONENT_LABEL: null, ISOLATED_LABEL: component});
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "labels": labels}}));
        let parameters = PatchParams {
            field_manager: Some("servicechain".to_owned()),
            ..PatchParams::default()
        };
        match cluster
            .ask(PATCH, api.patch(&laggard.pod, &parameters, &patch))
            .await
        {
            Ok(_) => {}
            Err(Unanswered::NotFound(_)) => return Ok(None),
            Err(other) => return Err(other),
        }
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default().grace_period(GRACE_SECONDS)
    };
    match cluster.ask(DELETE, api.delete(&laggard.pod, &parameters)).await {
        Ok(_) | Err(Unanswered::NotFound(_)) => {}
        Err(other) => return Err(other),
    }
    Ok(Some(Isolated {
        pod: laggard.pod.clone(),
        uid,
        reason: laggard.reason.clone(),
    }))
}

/// The uids of all pods that some Service of the namespace sends to.
async fn endpoints(cluster: &Cluster) -> Result<BTreeSet<String>, Unanswered> {
    let api = cluster.api::<EndpointSlice>();
    let mut uids = BTreeSet::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = cluster.ask(LIST, api.list(&parameters)).await?;
        let next = page.metadata.continue_.clone().filter(|next| !next.is_empty());
        let endpoints = page.items.into_iter().flat_map(|slice| slice.endpoints);
        uids.extend(endpoints.filter_map(|endpoint| endpoint.target_ref?.uid));
        match next {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(uids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(generation: i64) -> KeysStatus {
        let laggard = |pod: &str, generation: Option<i64>| json!({"pod": pod, "generation": generation, "reason": "Unreachable", "since": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "generation": generation, "digest": "", "acknowledged": 7, "verifiers": 10, "laggardCount": 3,
            "laggards": [laggard("old", Some(8)), laggard("none", None), laggard("has-it", Some(9))],
            "entries": [],
        }))
        .unwrap()
    }

    fn revocation(bundle: Option<i64>) -> Revocation {
        let status =
            json!({"bundleGeneration": bundle, "acknowledged": 7, "verifiers": 10, "conditions": []});
        serde_json::from_value(json!({
            "apiVersion": "servicechain.dev/v1alpha1", "kind": "Revocation",
            "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"chainRef": {"name": "shop"}, "issuer": "platform", "subject": "mallory"},
            "status": status,
        }))
        .unwrap()
    }

    fn pod(labels: &serde_json::Value, created: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "shop-b-1", "uid": "1", "labels": labels, "creationTimestamp": created},
            "spec": {"nodeName": "worker-2", "containers": []},
        }))
        .unwrap()
    }

    #[test]
    fn behind_is_who_holds_no_bundle_with_the_revocation_as_far_as_the_status_knows() {
        let names = |keys: &KeysStatus, bundle| {
            behind(keys, &revocation(bundle))
                .map(|laggard| laggard.pod.clone())
                .collect::<Vec<_>>()
        };
        // The newest bundle is newer than the first one with the revocation.
        assert_eq!(names(&keys(10), Some(9)), ["old", "none"]);
        assert!(names(&keys(8), Some(9)).is_empty(), "the status is of before");
        assert!(names(&keys(10), None).is_empty(), "no bundle has it yet");
    }

    #[test]
    fn only_pods_of_the_chain_that_are_older_than_the_revocation_are_meant() {
        let (before, after) = ("2025-12-31T00:00:00Z", "2026-01-01T00:00:01Z");
        let ours = json!({"servicechain.dev/chain": "shop", "servicechain.dev/component": "b"});
        assert!(is_meant(&pod(&ours, before), "shop", &revocation(Some(9))));
        assert!(!is_meant(&pod(&ours, after), "shop", &revocation(Some(9))));
        assert!(!is_meant(&pod(&ours, before), "other", &revocation(Some(9))));
        assert!(!is_meant(&pod(&json!({}), before), "shop", &revocation(Some(9))));
    }

    #[test]
    fn what_has_become_of_a_pod_is_said_as_far_as_it_is_known() {
        let isolated = Isolated {
            pod: "shop-b-1".to_owned(),
            uid: "1".to_owned(),
            reason: "Unreachable".to_owned(),
        };
        let there = pod(&json!({}), "2026-01-01T00:00:00Z");
        for (found, is_sent_to, says) in [
            (Ok(None), Some(true), "shop-b-1 (Unreachable) was ended"),
            (
                Ok(Some(there)),
                Some(false),
                "shop-b-1 (Unreachable) was told to end, and no Service sends to it; its node worker-2 has not said that \
                 it did, so it may still run there. Once that node is surely off: kubectl delete pod --force shop-b-1",
            ),
            (
                Err(Unanswered::Unreachable(String::new())),
                None,
                "shop-b-1 (Unreachable) was told to end, and whether Services send to it could not be asked; whether it \
                 did could not be asked",
            ),
        ] {
            assert_eq!(isolated.outcome(found, is_sent_to).sentence(), says);
        }
    }
}
