//! `status`: what the operator says about a chain. Derived from what it sees, never read back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says about the chain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceChainStatus {
    /// The `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `GatewayReady`, `IssuersReady`, `ServicesReady`, `StoresReady`, `KeysInSync`, `ClocksInSync`,
    /// `Progressing`, `Degraded` and `Ready`.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// What `kubectl get` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryStatus>,
    /// Version of the operator that wrote this last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub operator_version: Option<String>,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// The issuers.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub issuers: Vec<IssuerStatus>,
    /// The services.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub services: Vec<ServiceStatus>,
    /// Who trusts which keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeysStatus>,
}

/// What `kubectl get` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryStatus {
    /// Services that are ready, of all: `3/3`.
    #[schemars(length(max = 32))]
    pub services: String,
    /// Verifiers that acknowledged the newest keys, of all, and the generation of those keys: `10/10@7`.
    #[schemars(length(max = 64))]
    pub keys: String,
}

/// The gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Where clients reach it, as far as the operator knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have the newest template.
    pub updated: i32,
    /// Pods that there should be.
    pub desired: i32,
    /// What is in the way, and what to do.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// An issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerStatus {
    /// Its name in `spec.issuers`.
    #[schemars(length(max = 15))]
    pub name: String,
    /// The `iss` of its tokens.
    #[schemars(length(max = 512))]
    pub url: String,
    /// Pods that are ready; managed issuers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Pods that there should be; managed issuers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i32>,
    /// `Signing`, `Fetched`, `Given`, or what is in the way.
    #[schemars(length(max = 64))]
    pub state: String,
    /// What is in the way, and what to do.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name in `spec.services`.
    #[schemars(length(max = 15))]
    pub name: String,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have the newest template.
    pub updated: i32,
    /// Pods that there should be.
    pub desired: i32,
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<StoreStatus>,
    /// Its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<StoreStatus>,
    /// What is in the way, and what to do.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A database or a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// `Managed`, `External` or `CloudNativePG`.
    #[schemars(length(max = 32))]
    pub kind: String,
    /// Its major version, when the operator runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub version: Option<String>,
    /// Whether it answers.
    pub ready: bool,
}

/// Who trusts which keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeysStatus {
    /// Generation of the newest key bundle that a verifier holds.
    pub generation: i64,
    /// Its digest, `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// Verifiers that hold it.
    pub acknowledged: i32,
    /// Verifiers: gateway pods, service pods and issuer pods, those on their way out too.
    pub verifiers: i32,
    /// Verifiers that do not hold it yet; at most five are named.
    #[serde(default)]
    #[schemars(
        length(max = 5),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"])
    )]
    pub laggards: Vec<LaggardStatus>,
    /// How many verifiers do not hold it yet.
    #[serde(default)]
    pub laggard_count: i32,
    /// The keys in it, at most 64.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer", "kid"])
    )]
    pub entries: Vec<KeyStatus>,
    /// How many keys there are, when there are more than `entries` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_count: Option<i32>,
    /// The trust key that signed it, by its kid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub signed_by: Option<String>,
    /// Verifiers of which something is to be said; at most 32 are named, those in trouble first. Every other one holds the
    /// newest keys and trusts who signed them, the operator has confirmed it, and its clock is in step with the operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"])
    )]
    pub remarks: Vec<RemarkStatus>,
    /// Of how many verifiers something is to be said, when there are more than `remarks` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark_count: Option<i32>,
}

/// What is to be said of a verifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemarkStatus {
    /// Its pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// The generation it holds, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Why it does not hold the newest keys, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub lags: Option<String>,
    /// Why it refused key bundles since it started, whoever sent them, in one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub refused: Vec<String>,
    /// What it, or whoever answers for it, said falsely, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub falsehood: Option<String>,
    /// It serves without having heard the operator since it started, and may accept what was revoked just before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
    /// How many seconds its clock is ahead of the operator's; negative where it is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_seconds: Option<i64>,
    /// The trust keys that it trusts, where the one that signed the newest keys is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 64)))]
    pub anchors: Vec<String>,
}

/// A verifier that does not hold the newest keys yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaggardStatus {
    /// Its pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// The generation it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Why, in one word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// A key of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Name of its issuer.
    #[schemars(length(max = 15))]
    pub issuer: String,
    /// Its id, the `kid` of the tokens it signs.
    #[schemars(length(max = 256))]
    pub kid: String,
    /// `Staged`, `Active`, `Retiring` or `Withdrawn`.
    #[schemars(length(max = 32))]
    pub state: String,
    /// Since when.
    pub since: Time,
}
