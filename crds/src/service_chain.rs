//! The resource `ServiceChain` as users write it: one Rust type per object of the YAML.
//! Doc comments become the descriptions of the CRD, so they are the user's documentation.
//! Nothing here decides anything: `validated` does.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::GatewayDuration, rules};

pub mod gateway;
pub mod issuers;
pub mod operations;
pub mod pod;
pub mod services;
pub mod status;
pub mod stores;

use gateway::GatewaySpec;
use issuers::IssuerSpec;
use operations::{NetworkPolicySpec, ObservabilitySpec, RolloutSpec};
use pod::PodSettings;
use services::ServiceSpec;
use status::ServiceChainStatus;

/// A gateway and an ordered chain of services behind it. Every one of them verifies the caller's token
/// again, by itself, with keys that the operator pushes to all of them and rotates.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "servicechain.dev",
    version = "v1alpha1",
    kind = "ServiceChain",
    plural = "servicechains",
    shortname = "chain",
    namespaced,
    status = "ServiceChainStatus",
    derive = "PartialEq",
    doc = "A gateway and an ordered chain of services behind it. Every one of them verifies the caller's token again, by itself, with keys that the operator pushes to all of them and rotates.",
    validation = Rule::new(rules::CHAIN_NAME).message(rules::CHAIN_NAME_SAYS),
    printcolumn = r#"{"name": "READY", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "SERVICES", "type": "string", "jsonPath": ".status.summary.services"}"#,
    printcolumn = r#"{"name": "KEYS", "type": "string", "jsonPath": ".status.summary.keys"}"#,
    printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::ROUTE_TARGETS_EXIST, rules::ROUTE_TARGETS_EXIST_SAYS),
    (rules::ISSUER_URLS_UNIQUE, rules::ISSUER_URLS_UNIQUE_SAYS),
    (rules::NAMES_DIFFER, rules::NAMES_DIFFER_SAYS),
    (rules::NEXT_EXISTS, rules::NEXT_EXISTS_SAYS),
    (rules::ISSUER_NAMES_EXIST, rules::ISSUER_NAMES_EXIST_SAYS),
    (rules::TOKEN_LIFETIME, rules::TOKEN_LIFETIME_SAYS),
    (rules::AUDIENCES_NARROW, rules::AUDIENCES_NARROW_SAYS),
    (rules::CLIENT_AUDIENCES_NARROW, rules::CLIENT_AUDIENCES_NARROW_SAYS),
])))]
pub struct ServiceChainSpec {
    /// Stops the operator from changing any object of this chain, and from taking up edits of it. Status, key
    /// rotation and revocations go on. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// What a token's `aud` must name: any one of these is enough, unless an issuer or a service narrows the
    /// list for itself.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 256), regex(pattern = rules::AUDIENCE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
    /// Whose tokens the chain trusts. Two issuers never share a URL.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub issuers: Vec<IssuerSpec>,
    /// What every verifier demands of every token.
    #[serde(default)]
    pub token_policy: TokenPolicySpec,
    /// How verifiers get their keys, and what they do while they have none.
    #[serde(default)]
    pub key_distribution: KeyDistributionSpec,
    /// The entrance of the chain.
    pub gateway: GatewaySpec,
    /// The services, in the order in which they call each other unless `next` says otherwise.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub services: Vec<ServiceSpec>,
    /// Settings of every pod of the chain. The `pod` of a component is merged over them.
    #[serde(default)]
    pub pod_defaults: PodSettings,
    /// Which NetworkPolicies are made.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// Logs and traces.
    #[serde(default)]
    pub observability: ObservabilitySpec,
    /// In which order pods get a new template.
    #[serde(default)]
    pub rollout: RolloutSpec,
}

/// What every verifier demands of every token.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenPolicySpec {
    /// How far clocks may differ when `exp`, `nbf` and `iat` are judged. 0s to 5m, default 30s.
    #[schemars(extend("x-kubernetes-validations" = rules::whole_seconds_between("0s", "5m")))]
    pub clock_skew: GatewayDuration,
    /// Longest token accepted, in bytes. 1024 to 65536, default 8192.
    #[schemars(range(min = 1024, max = 65536))]
    pub max_token_bytes: i32,
    /// A token that lives longer (`exp` minus `iat`) is refused. It bounds how long retired keys and
    /// revocations must be kept. 1m to 720h, default 24h.
    #[schemars(extend("x-kubernetes-validations" = rules::whole_seconds_between("1m", "720h")))]
    pub max_token_lifetime: GatewayDuration,
    /// The gateway refuses a token with less time left than this. 0s to 1h, default 0s.
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "1h")))]
    pub minimum_remaining: GatewayDuration,
    /// Claims that every token must carry beside the standard ones. Default: none.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub required_claims: Vec<RequiredClaim>,
}

/// A claim that every token must carry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    /// Name of the claim; dots walk into objects.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The claim must hold one of these. Default: empty, any value will do.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub values: Vec<String>,
}

impl Default for TokenPolicySpec {
    fn default() -> Self {
        Self {
            clock_skew: GatewayDuration::from("30s"),
            max_token_bytes: 8192,
            max_token_lifetime: GatewayDuration::from("24h"),
            minimum_remaining: GatewayDuration::from("0s"),
            required_claims: Vec::new(),
        }
    }
}

/// How verifiers get their keys, and what they do while they have none.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyDistributionSpec {
    /// How long a starting verifier waits for the operator to confirm its keys before it serves unconfirmed.
    /// 0s to 1m, default 3s.
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "1m")))]
    pub startup_wait: GatewayDuration,
    /// What a verifier does whose keys nobody confirmed within `startupWait`: `Serve` with what it has, or
    /// `Wait`, not Ready, until somebody does. Default Serve.
    pub unconfirmed_start: UnconfirmedStart,
    /// How long a key goes on being accepted that an external issuer no longer publishes. 0s to 24h,
    /// default 10m.
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "24h")))]
    pub withdrawn_key_grace: GatewayDuration,
    /// A verifier answers 503 when the operator has confirmed nothing for so long. 0s to 720h; default 0s:
    /// it goes on for ever with the keys it has.
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "720h")))]
    pub max_staleness: GatewayDuration,
}

/// What a verifier does whose keys nobody confirmed in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum UnconfirmedStart {
    #[default]
    Serve,
    Wait,
}

impl Default for KeyDistributionSpec {
    fn default() -> Self {
        Self {
            startup_wait: GatewayDuration::from("3s"),
            unconfirmed_start: UnconfirmedStart::Serve,
            withdrawn_key_grace: GatewayDuration::from("10m"),
            max_staleness: GatewayDuration::from("0s"),
        }
    }
}
