//! In which order pods get a new template: issuers, then services from the end of the chain, then the gateway, one after
//! the other, so that a hop never calls one that is older than itself. Only templates wait: scale, keys and configuration
//! never do, nor does what is not there yet, nor a change to a hop that is stuck, since it may be what mends it. Stores
//! have one instance each, which no order keeps up. It must not know how anything is written.

use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::operations::RolloutOrder;
use servicechain_keys::Digest;

use super::observed::Observed;
use super::resources::{Prepared, Resources};
use super::status::pods;
use super::status::workloads::{Workload, is_owned, of_component, replica_sets};
use crate::key_controller::KeyState;

/// Of a pod template: digest of the template as it was built, by which a change is told from what the API server and
/// others added.
pub const TEMPLATE_ANNOTATION: &str = "servicechain.dev/template";

/// What may be applied now.
#[derive(Clone, Debug)]
pub struct Gated {
    pub resources: Resources<Prepared>,
    pub held: Vec<Held>,
    /// Every pod has its newest template, so that nobody calls what is not part of the chain any more.
    pub is_rolled_out: bool,
}

/// A Deployment that keeps its pods' template for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Name of the Deployment.
    pub name: String,
    /// Name of the Deployment that comes first.
    pub behind: String,
    /// Where that one stands.
    pub because: String,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            behind,
            because,
        } = self;
        write!(f, "{name} keeps its template until {behind} is done ({because})")
    }
}

/// Puts the templates that are live in the place of those whose time has not come.
#[must_use]
pub fn gate(
    mut prepared: Resources<Prepared>,
    chain: &ValidatedChain,
    observed: &Observed,
    keys: Option<&KeyState>,
) -> Gated {
    prepared.deployments.iter_mut().for_each(mark);
    let steps: Vec<Step<'_>> = prepared
        .deployments
        .iter()
        .map(|deployment| Step::of(deployment, observed, keys))
        .collect();
    let holds: Vec<Option<Held>> = match chain.rollout.order {
        RolloutOrder::Parallel => vec![None; steps.len()],
        RolloutOrder::LastFirst => (0..steps.len()).map(|index| hold(&steps, index)).collect(),
    };
    let is_rolled_out = steps.iter().all(Step::is_rolled_out);
    let templates: Vec<Option<PodTemplateSpec>> = steps
        .iter()
        .map(|step| {
            step.live
                .and_then(|live| Some(live.spec.as_ref()?.template.clone()))
        })
        .collect();
    for ((deployment, template), hold) in prepared.deployments.iter_mut().zip(templates).zip(&holds) {
        if let (Some(spec), Some(template), Some(_)) = (&mut deployment.spec, template, hold) {
            spec.template = template;
        }
    }
    Gated {
        resources: prepared,
        held: holds.into_iter().flatten().collect(),
        is_rolled_out,
    }
}

/// One Deployment, in the order of rollouts.
struct Step<'a> {
    name: String,
    live: Option<&'a Deployment>,
    /// Its pods do not have the template that was built, nor are they getting it.
    is_pending: bool,
    standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Done,
    /// Its pods are being replaced, and get on.
    Rolling(String),
    /// Something is wrong with it that does not pass by itself.
    Stuck(String),
    /// It has its template, and something is missing.
    Waiting(String),
}

impl<'a> Step<'a> {
    fn of(prepared: &Deployment, observed: &'a Observed, keys: Option<&KeyState>) -> Self {
        let name = prepared.metadata.name.clone().unwrap_or_default();
        let mut live = observed.deployments.iter();
        let live = live.find(|live| live.metadata.name.as_ref() == Some(&name));
        Self {
            is_pending: live.is_none_or(|live| mark_of(live) != mark_of(prepared)),
            standing: live.map_or_else(
                || Standing::Waiting("it is not there yet".to_owned()),
                |live| stand(&name, live, observed, keys),
            ),
            name,
            live,
        }
    }

    /// What others wait for.
    fn is_done(&self) -> bool {
        !self.is_pending && self.standing == Standing::Done
    }

    fn is_stuck(&self) -> bool {
        matches!(self.standing, Standing::Stuck(_))
    }

    /// Its template goes out now, before its turn: where it is made, and where nothing gets worse by it.
    fn is_free(&self) -> bool {
        self.live.is_none() || self.is_stuck()
    }

    fn is_rolled_out(&self) -> bool {
        !self.is_pending && matches!(self.standing, Standing::Done | Standing::Waiting(_))
    }
}

fn hold(steps: &[Step<'_>], index: usize) -> Option<Held> {
    let (before, rest) = steps.split_at(index);
    let (step, after) = rest.split_first()?;
    if !step.is_pending || step.is_free() {
        return None;
    }
    let behind = |other: &Step<'_>| Held {
        name: step.name.clone(),
        behind: other.name.clone(),
        because: match &other.standing {
            Standing::Done => "its own change comes first".to_owned(),
            Standing::Rolling(why) | Standing::Stuck(why) | Standing::Waiting(why) => why.clone(),
        },
    };
    let unfinished = before.iter().find(|other| !other.is_done());
    // One that is rolling already, or is being mended now, has begun: two at a time would leave too few at once.
    let begun = |other: &&Step<'_>| {
        matches!(other.standing, Standing::Rolling(_)) || other.is_pending && other.is_stuck()
    };
    unfinished.or_else(|| after.iter().find(begun)).map(behind)
}

fn stand(name: &str, live: &Deployment, observed: &Observed, keys: Option<&KeyState>) -> Standing {
    let workload = Workload::of_deployment(name, Some(live), "its spec", observed);
    if let Some(trouble) = workload.troubles.first() {
        return Standing::Stuck(trouble.what().to_owned());
    }
    let status = live.status.clone().unwrap_or_default();
    let (desired, updated) = (workload.desired, workload.updated);
    let available = status.available_replicas.unwrap_or_default();
    let is_current = status.observed_generation >= live.metadata.generation;
    if is_current && available == 0 && desired > 0 {
        return Standing::Stuck(format!("none of its {desired} pods are available"));
    }
    if workload.is_rolling {
        return Standing::Rolling(format!("{updated} of {desired} pods have its newest template"));
    }
    if available != desired {
        return Standing::Waiting(format!("{available} of {desired} pods are available"));
    }
    if let Some(pod) = older_pods(live, observed).first() {
        return Standing::Rolling(format!("its older pod {} is still there", pods::name(pod)));
    }
    let lagging = keys.into_iter().flat_map(|keys| &keys.laggards);
    let own = of_component(&live.metadata, observed);
    let is_own = |uid: &str| own.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid));
    match lagging.into_iter().find(|laggard| is_own(laggard.pod.as_str())) {
        _ if keys.is_none() => Standing::Waiting("its pods are being asked which keys they hold".to_owned()),
        Some(laggard) => Standing::Waiting(format!("its pod {} does not hold the newest keys", laggard.name)),
        None => Standing::Done,
    }
}

/// Pods of templates before the newest, those on their way out included, but for those whose node is lost: nobody can
/// say when they are gone.
fn older_pods<'a>(live: &Deployment, observed: &'a Observed) -> Vec<&'a Pod> {
    let older = replica_sets(&live.metadata, observed).into_iter().skip(1);
    let older: Vec<Option<&str>> = older.map(|set| set.metadata.uid.as_deref()).collect();
    let is_lost = |pod: &Pod| {
        let disrupted = pods::condition(pod, "DisruptionTarget");
        disrupted.is_some_and(|disrupted| disrupted.reason.as_deref() == Some("DeletionByTaintManager"))
    };
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let mut pods = of_component(&live.metadata, observed);
    pods.retain(|pod| {
        !is_lost(pod) && !has_ended(pod) && older.iter().any(|set| is_owned(&pod.metadata, *set))
    });
    pods
}

fn mark(deployment: &mut Deployment) {
    let Some(spec) = &mut deployment.spec else {
        return;
    };
    // These types always serialize, and maps in order.
    let bytes = serde_json::to_vec(&spec.template).unwrap_or_default();
    let metadata = spec.template.metadata.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_ANNOTATION.to_owned(), Digest::of(&bytes).to_string());
}

fn mark_of(deployment: &Deployment) -> Option<&str> {
    let metadata = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    metadata
        .annotations
        .as_ref()?
        .get(TEMPLATE_ANNOTATION)
        .map(String::as_str)
}
