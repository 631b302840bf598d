//! Where one component stands: its Deployment or `StatefulSet`, its `ReplicaSet`s, its pods. `readyReplicas` alone says too
//! little, since old pods are ready in the midst of a rollout. It must not know conditions.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::{self, PodStanding};
use super::reason::{Reason, Trouble};
use super::words::quote;
use crate::controller::observed::{Observed, Refusal};
use crate::object_names::COMPONENT_LABEL;

pub(crate) const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";

/// One component, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    pub ready: i32,
    /// Pods that have the newest template.
    pub updated: i32,
    pub desired: i32,
    /// Every pod there should be was ready once, with this template.
    was_complete: bool,
    /// The newest template is not everywhere yet, or the newest spec not even seen.
    pub is_rolling: bool,
    /// The causes first.
    pub troubles: Vec<Trouble>,
    /// What is being waited for where nothing is wrong.
    pub starting: Option<String>,
}

impl Workload {
    /// Whether requests to it are answered: every pod is ready, or some are, of those that once all were.
    pub(crate) fn serves(&self) -> bool {
        self.is_full() || (self.ready > 0 && self.was_complete)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.desired > 0 && self.ready >= self.desired
    }

    /// `None` where its object is not there yet.
    pub(crate) fn of_deployment(
        name: &str,
        deployment: Option<&Deployment>,
        path: &str,
        observed: &Observed,
    ) -> Self {
        let Some(deployment) = deployment else {
            return Self::absent(name);
        };
        let status = deployment.status.clone().unwrap_or_default();
        let desired = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let is_current = is_current(&deployment.metadata, status.observed_generation);
        let updated = status.updated_replicas.unwrap_or_default();
        let progressing = condition(deployment, "Progressing");
        let reason = progressing.and_then(|condition| condition.reason.as_deref());
        let mut workload = Self {
            ready: status.ready_replicas.unwrap_or_default(),
            updated,
            desired,
            was_complete: reason == Some("NewReplicaSetAvailable"),
            is_rolling: !is_current || updated < desired || status.replicas.unwrap_or_default() > updated,
            ..Self::default()
        };
        workload.judge_pods(
            name,
            &newest_first(&deployment.metadata, observed),
            path,
            &observed.events,
        );
        if workload.ready < desired
            && let Some(refused) = not_created(name, deployment, observed)
        {
            workload.troubles.push(refused);
        }
        if is_current && reason == Some("ProgressDeadlineExceeded") {
            workload.troubles.push(Trouble::new(
                Reason::ProgressDeadlineExceeded,
                format_args!(
                    "{name}: its rollout makes no progress, {updated} of {desired} pods have the new template"
                ),
                "mend what is said about its pods, or take the change back",
            ));
        }
        workload.finish(name)
    }

    pub(crate) fn of_stateful_set(
        name: &str,
        set: Option<&StatefulSet>,
        path: &str,
        observed: &Observed,
    ) -> Self {
        let Some(set) = set else {
            return Self::absent(name);
        };
        let status = set.status.clone().unwrap_or_default();
        let desired = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or_default();
        let is_same = status.current_revision == status.update_revision;
        let mut workload = Self {
            ready: status.ready_replicas.unwrap_or_default(),
            updated,
            desired,
            // A single instance that is not ready serves nobody, whatever it once was.
            was_complete: false,
            is_rolling: !is_current(&set.metadata, status.observed_generation)
                || !is_same && updated < desired,
            ..Self::default()
        };
        workload.judge_pods(
            name,
            &of_component(&set.metadata, observed),
            path,
            &observed.events,
        );
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let refused = pods::newest(&observed.events, uid, &["FailedCreate"]);
        if status.replicas < desired
            && let Some(event) = refused
        {
            workload
                .troubles
                .push(refusal(name, event.message.as_deref().unwrap_or_default()));
        }
        workload.finish(name)
    }

    fn absent(name: &str) -> Self {
        Self {
            desired: 1,
            starting: Some(format!("{name} is not made yet")),
            ..Self::default()
        }
    }

    fn judge_pods(&mut self, name: &str, pods: &[&Pod], path: &str, events: &[Event]) {
        let mut unready = None;
        let mut starting = None;
        for pod in pods {
            match pods::judge(pod, path, events) {
                PodStanding::Ready | PodStanding::Ending => {}
                PodStanding::Starting => starting = starting.or(Some(pods::name(pod))),
                PodStanding::Unready => unready = unready.or(Some(pods::name(pod))),
                PodStanding::Trouble(trouble) => self.troubles.push(trouble),
            }
        }
        let (ready, desired) = (self.ready, self.desired);
        if ready >= desired {
            return;
        }
        let lacks = format!("{name}: {ready} of {desired} pods are ready");
        match unready {
            // Before all were ready once, this is how a pod begins.
            Some(pod) if self.was_complete => self.troubles.push(Trouble::new(
                Reason::NotEnoughReady,
                format_args!("{lacks}, {pod} runs and is not ready"),
                format_args!("see kubectl logs {pod}"),
            )),
            Some(pod) => self.starting = Some(format!("{lacks}, {pod} runs and is not ready yet")),
            None => {
                let who = starting.map_or_else(String::new, |pod| format!(", {pod} is starting"));
                self.starting = Some(format!("{lacks}{who}"));
            }
        }
    }

    fn finish(mut self, name: &str) -> Self {
        self.troubles.sort_unstable();
        self.troubles.dedup();
        if self.is_rolling && self.starting.is_none() {
            self.starting = Some(format!(
                "{name}: {} of {} pods have the new template",
                self.updated, self.desired
            ));
        }
        self
    }
}

/// Whether the controller of an object has seen its newest spec.
pub(crate) fn is_current(metadata: &ObjectMeta, observed_generation: Option<i64>) -> bool {
    observed_generation >= metadata.generation
}

pub(crate) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Pods of the component that an object belongs to.
pub(crate) fn of_component<'a>(metadata: &ObjectMeta, observed: &'a Observed) -> Vec<&'a Pod> {
    let label = |metadata: &'_ ObjectMeta| {
        let labels = metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(COMPONENT_LABEL)).cloned()
    };
    let component = label(metadata);
    let pods = observed
        .pods
        .iter()
        .filter(|pod| component.is_some() && label(&pod.metadata) == component);
    let mut pods: Vec<&Pod> = pods.collect();
    pods.sort_unstable_by_key(|pod| pods::name(pod));
    pods
}

/// The `ReplicaSet`s that a Deployment controls, the newest template's first.
pub(crate) fn replica_sets<'a>(deployment: &ObjectMeta, observed: &'a Observed) -> Vec<&'a ReplicaSet> {
    let sets = observed.replica_sets.iter();
    let mut sets: Vec<&ReplicaSet> = sets
        .filter(|set| is_owned(&set.metadata, deployment.uid.as_deref()))
        .collect();
    let revision = |set: &ReplicaSet| {
        let annotations = set.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(REVISION_ANNOTATION)?.parse::<u64>().ok())
    };
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    sets
}

pub(crate) fn is_owned(object: &ObjectMeta, owner: Option<&str>) -> bool {
    let owners = object.owner_references.iter().flatten();
    owner.is_some()
        && owners
            .into_iter()
            .any(|reference| Some(reference.uid.as_str()) == owner)
}

fn newest_first<'a>(deployment: &ObjectMeta, observed: &'a Observed) -> Vec<&'a Pod> {
    let newest = replica_sets(deployment, observed).into_iter().next();
    let newest = newest.and_then(|set| set.metadata.uid.as_deref());
    let mut pods = of_component(deployment, observed);
    pods.sort_by_key(|pod| !is_owned(&pod.metadata, newest));
    pods
}

/// Why no pods are made, where that is so.
fn not_created(name: &str, deployment: &Deployment, observed: &Observed) -> Option<Trouble> {
    let own = condition(deployment, "ReplicaFailure").filter(|failure| failure.status == "True");
    let of_set = || {
        let newest = replica_sets(&deployment.metadata, observed).into_iter().next()?;
        let conditions = newest.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure")?;
        failure.message.as_deref().filter(|_| failure.status == "True")
    };
    let message = own
        .and_then(|failure| failure.message.as_deref())
        .or_else(of_set)?;
    Some(refusal(name, message))
}

fn refusal(name: &str, message: &str) -> Trouble {
    let (reason, remedy) = match Refusal::of(403, message) {
        Refusal::Quota => (
            Reason::QuotaExceeded,
            "raise the quota, or ask for less in resources",
        ),
        Refusal::NamespaceEnds => (Reason::NamespaceEnding, "nothing is to be done"),
        _ if message.contains("forbidden") || message.contains("denied") => (
            Reason::AdmissionDenied,
            "change the policy, or the pod settings it objects to",
        ),
        _ => (Reason::PodNotCreated, "see kubectl describe replicaset"),
    };
    Trouble::new(
        reason,
        format_args!(
            "{name}: its pods are not made ({})",
            without_pod_name(&quote(message))
        ),
        remedy,
    )
}

/// Each try has a name of its own: `pods "shop-b-7d9f-x2x4k" is forbidden`.
fn without_pod_name(message: &str) -> String {
    match message.split_once("pods \"") {
        Some((before, rest)) => match rest.split_once("\" ") {
            Some((_, after)) => format!("{before}{after}"),
            None => message.to_owned(),
        },
        None => message.to_owned(),
    }
}
