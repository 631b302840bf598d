//! Who holds which generation: from the status, which names the pods that lag, and the pods there are. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::{KeyStatus, KeysStatus, RemarkStatus};
use servicechain_operator::object_names::{COMPONENT_LABEL, Component};

/// The keys of a chain and who holds them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    pub chain: String,
    pub namespace: String,
    /// `None`: the operator has published no keys yet.
    pub keys: Option<KeysStatus>,
    /// Every verifier's pod, in the order of the path.
    pub pods: Vec<Holder>,
}

/// A pod that verifies tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    pub pod: String,
    pub hop: String,
    /// `None`: none, or nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    pub state: HolderState,
    /// Why it lags, or why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The trust keys that it trusts; empty: nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub anchors: Vec<String>,
    /// How many seconds its clock is ahead of the operator's, zero where both are in step; `None`: nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_seconds: Option<i64>,
    /// It serves without having heard the operator since it started, and may accept what was revoked just before.
    pub unconfirmed: bool,
    /// What it, or whoever answers for it, said falsely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub falsehood: Option<String>,
    /// Why it refused key bundles since it started, whoever sent them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum HolderState {
    /// It acknowledged the newest generation.
    Current,
    /// It did not, and the status says so.
    Laggard,
    /// More pods lag than the status names: this may be one of them.
    Unknown,
    /// Its containers do not run; it is asked for nothing yet.
    NotRunning,
}

pub(crate) fn held(chain: &ServiceChain, pods: &[Pod]) -> Held {
    let keys = chain.status.as_ref().and_then(|status| status.keys.clone());
    let hops = hops(chain);
    let mut holders: Vec<(usize, Holder)> = pods
        .iter()
        .filter_map(|pod| {
            let component = pod.metadata.labels.as_ref()?.get(COMPONENT_LABEL)?;
            // Stores verify nothing.
            let position = hops.iter().position(|hop| hop == component)?;
            Some((position, holder(pod, component, keys.as_ref())))
        })
        .collect();
    holders.sort_by(|(one, a), (other, b)| (one, &a.pod).cmp(&(other, &b.pod)));
    Held {
        chain: chain.metadata.name.clone().unwrap_or_default(),
        namespace: chain.metadata.namespace.clone().unwrap_or_default(),
        keys,
        pods: holders.into_iter().map(|(_, holder)| holder).collect(),
    }
}

/// The components that verify, in the order of the path: issuers hold keys too, and come last.
fn hops(chain: &ServiceChain) -> Vec<String> {
    let services = chain
        .spec
        .services
        .iter()
        .map(|service| Component::Service(&service.name));
    let issuers = chain
        .spec
        .issuers
        .iter()
        .map(|issuer| Component::Issuer(&issuer.name));
    let components = [Component::Gateway].into_iter().chain(services).chain(issuers);
    components.map(Component::label).collect()
}

fn holder(pod: &Pod, hop: &str, keys: Option<&KeysStatus>) -> Holder {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let named = keys.and_then(|keys| keys.laggards.iter().find(|laggard| laggard.pod == name));
    let remark = keys.and_then(|keys| keys.remarks.iter().find(|remark| remark.pod == name));
    let lag = named
        .map(|named| (named.generation, &named.reason, Some(named.since.0)))
        .or_else(|| remark.and_then(|remark| Some((remark.generation, remark.lags.as_ref()?, None))));
    let remark = remark.cloned();
    let is_remarked = remark.is_some();
    let (state, generation, reason, since) = match (lag, waiting(pod)) {
        (Some((generation, reason, since)), _) => {
            (HolderState::Laggard, generation, Some(reason.clone()), since)
        }
        (None, Some(why)) => (HolderState::NotRunning, None, Some(why), None),
        (None, None) if is_remarked || keys.is_some_and(names_every_laggard) => {
            (HolderState::Current, keys.map(|keys| keys.generation), None, None)
        }
        (None, None) => (HolderState::Unknown, None, None, None),
    };
    // Of whom nothing is said, although everybody is named of whom there is something to say.
    let is_plain = !is_remarked && state == HolderState::Current && keys.is_some_and(remarks_on_everybody);
    let remark = remark.unwrap_or_default();
    let signed_by = || keys.and_then(|keys| keys.signed_by.clone());
    Holder {
        pod: name,
        hop: hop.to_owned(),
        generation,
        state,
        reason,
        since,
        anchors: if remark.anchors.is_empty() && state == HolderState::Current {
            signed_by().into_iter().collect()
        } else {
            remark.anchors
        },
        clock_offset_seconds: remark.clock_offset_seconds.or(is_plain.then_some(0)),
        unconfirmed: remark.unconfirmed,
        falsehood: remark.falsehood,
        refused: remark.refused,
    }
}

fn names_every_laggard(keys: &KeysStatus) -> bool {
    let lags = |remark: &&RemarkStatus| remark.lags.is_some();
    let named = keys.laggards.len().max(keys.remarks.iter().filter(lags).count());
    i32::try_from(named).is_ok_and(|named| keys.laggard_count <= named)
}

/// An operator that is older than remarks says nobody's clock.
fn remarks_on_everybody(keys: &KeysStatus) -> bool {
    keys.signed_by.is_some() && keys.remark_count.is_none()
}

/// Why a pod's containers do not run.
fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref();
    let containers = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let is_running = |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
    let seen: Vec<_> = containers
        .iter()
        .filter_map(|container| container.state.as_ref())
        .collect();
    if !seen.is_empty() && seen.iter().all(|state| is_running(state)) {
        return None;
    }
    let reason = seen.iter().find_map(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.clone()))
    });
    reason
        .or_else(|| status.and_then(|status| status.phase.clone()))
        .or_else(|| Some("Pending".to_owned()))
}

impl Held {
    /// By issuer, the keys that sign first, and the newest of each state.
    pub(crate) fn entries(&self) -> BTreeMap<&str, Vec<&KeyStatus>> {
        let mut by_issuer: BTreeMap<&str, Vec<&KeyStatus>> = BTreeMap::new();
        for key in self.keys.iter().flat_map(|keys| &keys.entries) {
            by_issuer.entry(&key.issuer).or_default().push(key);
        }
        for keys in by_issuer.values_mut() {
            keys.sort_by_key(|key| (rank(&key.state), std::cmp::Reverse(key.since.0), key.kid.as_str()));
        }
        by_issuer
    }
}

fn rank(state: &str) -> usize {
    let states = ["Active", "Staged", "Retiring", "Withdrawn"];
    states
        .iter()
        .position(|known| *known == state)
        .unwrap_or(states.len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, component: &str, state: &Value) -> Pod {
        let pod = json!({
            "metadata": {"name": name, "labels": {"servicechain.dev/component": component}},
            "status": {"phase": "Pending", "containerStatuses": [
                {"name": "x", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn chain(laggards: &Value, count: i32) -> ServiceChain {
        let mut chain: Value = serde_saphyr::from_str(include_str!("../../fixtures/ready.yaml")).unwrap();
        chain["status"]["keys"]["laggards"] = laggards.clone();
        chain["status"]["keys"]["laggardCount"] = count.into();
        serde_json::from_value(chain).unwrap()
    }

    fn states(chain: &ServiceChain, pods: &[Pod]) -> Vec<(String, HolderState, Option<i64>)> {
        held(chain, pods)
            .pods
            .into_iter()
            .map(|holder| (holder.pod, holder.state, holder.generation))
            .collect()
    }

    #[test]
    fn every_verifier_is_there_in_the_order_of_the_path_and_no_store() {
        let running = json!({"running": {}});
        let pods = [
            pod("i", "issuer-platform", &running),
            pod("b", "b", &running),
            pod("db", "a-postgres", &running),
            pod("g2", "gateway", &running),
            pod("g1", "gateway", &running),
        ];
        let names: Vec<String> = states(&chain(&json!([]), 0), &pods)
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        assert_eq!(names, ["g1", "g2", "b", "i"]);
    }

    #[test]
    fn what_is_said_of_nobody_is_known_only_if_everybody_is_named_of_whom_something_is_said() {
        let running = json!({"running": {}});
        let pods = [
            pod("shop-a-7d9f5c6b8d-q7r8s", "a", &running),
            pod("plain", "a", &running),
        ];
        let mut chain = chain(&json!([]), 0);
        let clocks = |chain: &ServiceChain| -> Vec<Option<i64>> {
            let held = held(chain, &pods);
            held.pods
                .iter()
                .map(|holder| holder.clock_offset_seconds)
                .collect()
        };
        assert_eq!(clocks(&chain), [Some(0), Some(12)]);
        let keys = |chain: &mut ServiceChain, count| {
            let status = chain.status.as_mut().unwrap();
            status.keys.as_mut().unwrap().remark_count = count;
        };
        keys(&mut chain, Some(40));
        assert_eq!(clocks(&chain), [None, Some(12)]);
    }

    #[test]
    fn a_pod_is_current_only_if_no_unnamed_pod_may_lag() {
        let running = json!({"running": {}});
        let pods = [
            pod("a1", "a", &running),
            pod("a2", "a", &running),
            pod("a3", "a", &json!({"waiting": {"reason": "ContainerCreating"}})),
        ];
        let laggard =
            json!([{"pod": "a1", "generation": 6, "reason": "Unreachable", "since": "2026-01-01T00:00:00Z"}]);
        let third = ("a3".to_owned(), HolderState::NotRunning, None);
        assert_eq!(
            states(&chain(&laggard, 1), &pods),
            [
                ("a1".to_owned(), HolderState::Laggard, Some(6)),
                ("a2".to_owned(), HolderState::Current, Some(7)),
                third.clone(),
            ]
        );
        assert_eq!(
            states(&chain(&laggard, 2), &pods)[1..],
            [("a2".to_owned(), HolderState::Unknown, None), third]
        );
    }
}
