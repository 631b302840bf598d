//! The rules between the fields of a chain, all judged, whatever is wrong before. The shape of each field is
//! `check`'s business: a value that does not parse here has been complained about there.

use std::time::Duration;

use crate::{
    check::did_you_mean,
    duration::GatewayDuration,
    mistakes::Mistakes,
    rules,
    service_chain::{
        KeyDistributionSpec, ServiceChain, TokenPolicySpec, gateway::AutoscalingSpec,
        operations::NetworkPolicyMode,
    },
    validated::{KeyDistribution, NetworkPolicy, Rollout, TokenPolicy, ValidatedChain},
};

mod gateway;
mod issuers;
mod pod;
pub(crate) mod revocation;
mod services;
mod stores;

/// Namespace of a chain that names none, as kubectl has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What all rules share while they judge a chain.
struct Judge<'a> {
    mistakes: Mistakes,
    chain: &'a ServiceChain,
    name: String,
    namespace: String,
}

/// The chain as far as it can be resolved, and the rules it breaks.
pub(crate) fn chain(chain: &ServiceChain) -> (ValidatedChain, Mistakes) {
    let spec = &chain.spec;
    let mut judge = Judge {
        mistakes: Mistakes::new(),
        chain,
        name: chain.metadata.name.clone().unwrap_or_default(),
        namespace: chain
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
    };
    judge.name_of_chain();
    judge.whole_seconds(&spec.token_policy.clock_skew, "spec.tokenPolicy.clockSkew");
    judge.whole_seconds(
        &spec.token_policy.max_token_lifetime,
        "spec.tokenPolicy.maxTokenLifetime",
    );
    judge.refuse_template(&spec.pod_defaults, "spec.podDefaults");
    judge.refuse_reserved(&spec.pod_defaults, "spec.podDefaults");
    if spec.observability.otlp_endpoint.starts_with("https://") {
        judge.mistakes.add_unsupported(
            "spec.observability.otlpEndpoint",
            "sending traces over TLS",
            "use an http:// endpoint, such as a collector in the cluster",
        );
    }
    if !spec.network_policy.egress.is_empty() {
        judge.mistakes.add_unsupported(
            "spec.networkPolicy.egress",
            "a list of what may be reached, which is for the mode Strict,",
            "leave it out",
        );
    }
    if spec.network_policy.mode == NetworkPolicyMode::Strict {
        judge.mistakes.add_unsupported(
            "spec.networkPolicy.mode",
            "the mode Strict, which denies what leaves a hop,",
            "use Ingress, and a policy of your own for the rest",
        );
    }
    let validated = ValidatedChain {
        name: judge.name.clone(),
        namespace: judge.namespace.clone(),
        paused: spec.paused,
        audiences: spec.audiences.clone(),
        issuers: judge.issuers(),
        token_policy: token_policy(&spec.token_policy),
        key_distribution: key_distribution(&spec.key_distribution),
        gateway: judge.gateway(),
        services: judge.services(),
        network_policy: NetworkPolicy {
            mode: spec.network_policy.mode,
            metrics_from: spec.network_policy.metrics_from.clone(),
            egress: spec.network_policy.egress.clone(),
        },
        observability: spec.observability.clone(),
        rollout: Rollout {
            order: spec.rollout.order,
            progress_deadline: parsed(&spec.rollout.progress_deadline),
        },
    };
    (validated, judge.mistakes)
}

fn token_policy(spec: &TokenPolicySpec) -> TokenPolicy {
    TokenPolicy {
        clock_skew: parsed(&spec.clock_skew),
        max_token_bytes: spec.max_token_bytes.unsigned_abs(),
        max_token_lifetime: parsed(&spec.max_token_lifetime),
        minimum_remaining: parsed(&spec.minimum_remaining),
        required_claims: spec.required_claims.clone(),
    }
}

fn key_distribution(spec: &KeyDistributionSpec) -> KeyDistribution {
    KeyDistribution {
        startup_wait: parsed(&spec.startup_wait),
        unconfirmed_start: spec.unconfirmed_start,
        withdrawn_key_grace: parsed(&spec.withdrawn_key_grace),
        max_staleness: unless_zero(parsed(&spec.max_staleness)),
    }
}

/// The duration, or none where `check` complained about it.
fn parsed(duration: &GatewayDuration) -> Duration {
    duration.parse().unwrap_or_default()
}

fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

impl<'a> Judge<'a> {
    fn name_of_chain(&mut self) {
        let name = &self.name;
        let is_label = name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if name.is_empty() {
            self.mistakes.add("metadata.name", "is required; try \"shop\"");
        } else if !is_label || name.len() > 20 {
            let says = rules::CHAIN_NAME_SAYS.trim_start_matches("metadata.name ");
            self.mistakes.add("metadata.name", format!("{name:?} {says}"));
        }
    }

    /// Refuses fractions where bundles and tokens count whole seconds.
    fn whole_seconds(&mut self, duration: &GatewayDuration, path: &str) {
        if duration.as_str().contains("ms") {
            self.mistakes.add(
                path,
                format!("{} {}", duration.as_str(), rules::WHOLE_SECONDS_SAYS),
            );
        }
    }

    /// Refuses names that `known` does not hold; `what` says what they should be.
    fn known(&mut self, path: &str, names: &[String], known: &[&str], what: &str) {
        for (index, name) in names.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let path = format!("{path}[{index}]");
                self.unknown(&path, name, known, what);
            }
        }
    }

    fn unknown(&mut self, path: &str, name: &str, known: &[&str], what: &str) {
        let meant = did_you_mean(name, known.iter().copied());
        let hint = if meant.is_empty() {
            format!("; there are {}", known.join(", "))
        } else {
            meant
        };
        self.mistakes
            .add(path, format!("there is no {what} {name:?}{hint}"));
    }

    /// Refuses what a narrowing list adds, and resolves an empty one to the whole.
    fn narrowed(&mut self, path: &str, narrow: &[String], whole: &[String], says: &str) -> Vec<String> {
        for (index, audience) in narrow.iter().enumerate() {
            if !whole.contains(audience) {
                let meant = did_you_mean(audience, whole.iter().map(String::as_str));
                let hint = if meant.is_empty() {
                    format!("; there are {}", whole.join(", "))
                } else {
                    meant
                };
                self.mistakes.add(
                    format!("{path}[{index}]"),
                    format!("{audience:?} is not one: {says}{hint}"),
                );
            }
        }
        if narrow.is_empty() {
            whole.to_vec()
        } else {
            narrow.to_vec()
        }
    }

    /// The number of pods of a component that may be scaled automatically instead.
    fn replicas(&mut self, path: &str, replicas: Option<i32>, autoscaling: Option<&AutoscalingSpec>) -> u32 {
        if let Some(autoscaling) = autoscaling {
            let path_of_autoscaling = format!("{path}.autoscaling");
            if replicas.is_some() {
                self.mistakes.add(path, rules::REPLICAS_OR_AUTOSCALING_SAYS);
            }
            if autoscaling.min_replicas > autoscaling.max_replicas {
                self.mistakes.add(&path_of_autoscaling, rules::MIN_ABOVE_MAX_SAYS);
            }
            self.mistakes.add_unsupported(
                path_of_autoscaling,
                "autoscaling",
                "give replicas a number instead",
            );
        }
        replicas.unwrap_or(2).unsigned_abs()
    }

    fn issuer_names(&self) -> Vec<&'a str> {
        self.chain
            .spec
            .issuers
            .iter()
            .map(|issuer| issuer.name.as_str())
            .collect()
    }

    fn service_names(&self) -> Vec<&'a str> {
        self.chain
            .spec
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect()
    }
}
