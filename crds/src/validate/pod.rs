//! How a component's pod settings are merged over the chain's.

use std::{collections::BTreeMap, time::Duration};

use super::{Judge, parsed};
use crate::{duration::GatewayDuration, rules, service_chain::pod::PodSettings};

/// Seconds that Kubernetes itself gives an ending pod.
const TERMINATION_GRACE_SECONDS: i64 = 30;
/// Long enough for the endpoints of a Service to reach every node.
const DRAIN_DELAY: &str = "5s";

impl Judge<'_> {
    /// `own` over `spec.podDefaults`, with how the pod ends resolved.
    pub(super) fn pod(&mut self, own: &PodSettings, path: &str) -> PodSettings {
        self.refuse_template(own, path);
        self.refuse_reserved(own, path);
        let pod = merged(&self.chain.spec.pod_defaults, own);
        let grace = pod.termination_grace_period_seconds.unwrap_or_default();
        let drain = pod.drain_delay.as_ref().map(parsed).unwrap_or_default();
        if drain >= Duration::from_secs(grace.unsigned_abs()) {
            self.mistakes.add(
                format!("{path}.drainDelay"),
                format!("must be shorter than terminationGracePeriodSeconds ({grace}), or the pod is killed while it drains"),
            );
        }
        pod
    }

    /// Refuses labels and annotations that say whose a pod is.
    pub(super) fn refuse_reserved(&mut self, settings: &PodSettings, path: &str) {
        for (field, names) in [
            ("labels", &settings.labels),
            ("annotations", &settings.annotations),
        ] {
            for name in names
                .keys()
                .filter(|name| name.starts_with(rules::RESERVED_PREFIX))
            {
                self.mistakes.add(
                    format!("{path}.{field}"),
                    format!(
                        "{name:?} is reserved: {}; take another one",
                        rules::RESERVED_PREFIX_SAYS
                    ),
                );
            }
        }
    }

    pub(super) fn refuse_template(&mut self, settings: &PodSettings, path: &str) {
        if settings.template.is_some() {
            self.mistakes.add_unsupported(
                format!("{path}.template"),
                "a pod template of your own",
                "use the other settings of the pod",
            );
        }
    }
}

fn merged(defaults: &PodSettings, own: &PodSettings) -> PodSettings {
    PodSettings {
        labels: over(&defaults.labels, &own.labels),
        annotations: over(&defaults.annotations, &own.annotations),
        resources: own.resources.clone().or_else(|| defaults.resources.clone()),
        node_selector: over(&defaults.node_selector, &own.node_selector),
        tolerations: own_or(&defaults.tolerations, &own.tolerations),
        topology_spread_constraints: own_or(
            &defaults.topology_spread_constraints,
            &own.topology_spread_constraints,
        ),
        priority_class_name: own
            .priority_class_name
            .clone()
            .or_else(|| defaults.priority_class_name.clone()),
        image_pull_secrets: own_or(&defaults.image_pull_secrets, &own.image_pull_secrets),
        service_account_name: own
            .service_account_name
            .clone()
            .or_else(|| defaults.service_account_name.clone()),
        termination_grace_period_seconds: own
            .termination_grace_period_seconds
            .or(defaults.termination_grace_period_seconds)
            .or(Some(TERMINATION_GRACE_SECONDS)),
        drain_delay: own
            .drain_delay
            .clone()
            .or_else(|| defaults.drain_delay.clone())
            .or_else(|| Some(GatewayDuration::from(DRAIN_DELAY))),
        template: own.template.clone().or_else(|| defaults.template.clone()),
    }
}

fn over(defaults: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    defaults
        .iter()
        .chain(own)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn own_or<T: Clone>(defaults: &[T], own: &[T]) -> Vec<T> {
    if own.is_empty() {
        defaults.to_vec()
    } else {
        own.to_vec()
    }
}
