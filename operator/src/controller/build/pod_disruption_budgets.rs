//! One pod at a time may be evicted of what runs more than once. What runs once has no budget: it would keep a node from
//! ever being drained.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Blueprint;
use super::metadata::{owned, selector};
use crate::object_names;

pub(super) fn pod_disruption_budgets(blueprint: &Blueprint<'_>) -> Vec<PodDisruptionBudget> {
    let components = object_names::components(blueprint.chain).into_iter();
    let several = components.filter(|component| blueprint.replicas(*component) > 1);
    several
        .map(|component| PodDisruptionBudget {
            metadata: owned(
                blueprint,
                component,
                object_names::object(&blueprint.chain.name, component),
            ),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(selector(blueprint, component)),
                // A pod that is not Ready protects nobody; it must not keep a node from being drained.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        })
        .collect()
}
