//! What concerns the chain as a whole: network policies, logs and traces, rollouts.

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::GatewayDuration, rules};

/// Which NetworkPolicies are made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// `Disabled` makes none, `Ingress` lets a hop be called only by the hops before it, `Strict` also denies
    /// what leaves it but for its hops, its stores, DNS and `egress`. Default Ingress. `Strict` is not
    /// supported yet.
    pub mode: NetworkPolicyMode,
    /// Who may scrape metrics. Default: none.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics_from: Vec<NetworkPolicyPeer>,
    /// What else may be reached in mode Strict. Default: none. Not supported yet.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<NetworkPolicyEgressRule>,
}

/// Which NetworkPolicies are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum NetworkPolicyMode {
    Disabled,
    #[default]
    Ingress,
    Strict,
}

/// Logs and traces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservabilitySpec {
    /// Where traces are sent, an OTLP endpoint (HTTP). Default: empty, nowhere.
    #[schemars(length(max = 512), regex(pattern = r"^(https?://[^\s]+)?$"))]
    pub otlp_endpoint: String,
    /// How many requests of a hundred are traced, unless the client's own trace says. 0 to 100, default 1.
    #[schemars(range(min = 0, max = 100))]
    pub trace_sampling_percent: i32,
    /// How much is logged: `Error`, `Warn`, `Info`, `Debug` or `Trace`. Default Info.
    pub log_level: LogLevel,
    /// Whether every request is logged. Default: true.
    pub access_log: bool,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// In which order pods get a new template. Scale, keys and configuration never wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// `LastFirst` changes one hop after the other, from the end of the chain to the gateway; `Parallel` all at
    /// once. Default `LastFirst`.
    pub order: RolloutOrder,
    /// How long a hop may take before the chain is called Degraded. 1m to 24h, default 10m.
    #[schemars(extend("x-kubernetes-validations" = rules::between("1m", "24h")))]
    pub progress_deadline: GatewayDuration,
}

/// In which order pods get a new template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RolloutOrder {
    #[default]
    LastFirst,
    Parallel,
}

impl Default for ObservabilitySpec {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            trace_sampling_percent: 1,
            log_level: LogLevel::Info,
            access_log: true,
        }
    }
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            order: RolloutOrder::LastFirst,
            progress_deadline: GatewayDuration::from("10m"),
        }
    }
}
