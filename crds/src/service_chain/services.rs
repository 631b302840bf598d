//! `spec.services`: the hops behind the gateway.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Probe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    gateway::AutoscalingSpec,
    pod::PodSettings,
    stores::{CacheSpec, DatabaseSpec},
};
use crate::{duration::GatewayDuration, rules};

/// A hop of the chain: it verifies the token by itself, reads its own stores and calls the next hop.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::REPLICAS_OR_AUTOSCALING, rules::REPLICAS_OR_AUTOSCALING_SAYS),
    (&rules::variables(), rules::VARIABLES_SAYS),
    (rules::STEERING_VARIABLES, rules::STEERING_VARIABLES_SAYS),
])))]
pub struct ServiceSpec {
    /// Name of the service: a DNS label of at most 15 characters. Names that other objects of the chain get
    /// are reserved: gateway, issuer, client, postgres, redis, keys, accepted, and all that start with
    /// `issuer-` or `client-` or end with `-postgres` or `-redis`.
    #[schemars(length(min = 1, max = 15), regex(pattern = rules::DNS_LABEL))]
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::SERVICE_NAME, rules::SERVICE_NAME_SAYS)])))]
    pub name: String,
    /// What it calls, by name; at most one. Default: the following service; `[]` = it is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1),
        inner(length(min = 1, max = 15)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub next: Option<Vec<String>>,
    /// Number of pods. 1 to 100; default 2, unless `autoscaling` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler choose the number of pods; not together with `replicas`. Not supported
    /// yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// Image of the service. Default: empty, the operator's own item service. Others are not supported yet.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub image: String,
    /// Port on which the container listens, HTTP/1.1 or h2c; not 9090 and 9091. Default 8080.
    #[serde(default = "http_port")]
    #[schemars(
        range(min = 1024, max = 65535),
        extend("x-kubernetes-validations" = rules::rules(&[(rules::SERVICE_PORT, rules::SERVICE_PORT_SAYS)]))
    )]
    pub port: i32,
    /// `Embedded`: the service verifies by itself, with the library or the admin API. `Sidecar`: a container
    /// beside it does. Default Embedded; Sidecar when `image` is given. `Sidecar` is not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Narrows `spec.audiences`: a token without one of these is refused at this hop. Default: empty, no
    /// narrowing.
    #[serde(default)]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 256), regex(pattern = rules::AUDIENCE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
    /// Whose tokens it accepts, by name. Default: empty, every issuer's.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 15)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub issuers: Vec<String>,
    /// Who may do what. The first rule that fits method and path decides; when none fits, 403. Default: any
    /// verified caller may do anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub authorization: Option<Vec<AuthorizationRule>>,
    /// Its PostgreSQL. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// Its Redis, read before the database. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    /// How long an item may be served from the cache, which bounds how old it may be. 1s to 24h, default
    /// 60s.
    #[serde(default = "a_minute", rename = "cacheTTL")]
    #[schemars(extend("x-kubernetes-validations" = rules::between("1s", "24h")))]
    pub cache_ttl: GatewayDuration,
    /// Command of the container, only with `image`. It is told `PORT`, `DATABASE_URL`,
    /// `REDIS_URL`, `NEXT_HOP_URL` and `OTEL_EXPORTER_OTLP_ENDPOINT`. Default: the image's own. Not supported yet.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(max = 4096)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub command: Vec<String>,
    /// Arguments of the container, only with `image`. Default: the image's own. Not supported yet.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(max = 4096)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub args: Vec<String>,
    /// More environment variables of the container; not those that the operator sets, and not `OTEL_*` and
    /// `*_PROXY`. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
    /// More environment variables, from ConfigMaps and Secrets. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_from: Vec<EnvFromSource>,
    /// How Kubernetes asks whether a pod is well. Default: GET /readyz when Embedded, a TCP connection to
    /// `port` when Sidecar.
    #[serde(default)]
    pub probes: ProbesSpec,
    /// Settings of its pods, merged over `spec.podDefaults`.
    #[serde(default)]
    pub pod: PodSettings,
}

/// Who verifies the tokens of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Verification {
    Embedded,
    Sidecar,
}

/// What a caller needs for some requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationRule {
    /// The methods it is about. Default: empty, all of them.
    #[serde(default)]
    #[schemars(length(max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Vec<HttpMethod>,
    /// Prefix of the paths it is about, by whole segments. Default `/`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 256), regex(pattern = rules::PATH_PREFIX))]
    pub path_prefix: String,
    /// Scopes that a token must all have. Default: none, any verified caller.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub scopes: Vec<String>,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Head,
    Put,
    Post,
    Patch,
    Delete,
    Options,
    Trace,
    Connect,
}

/// How Kubernetes asks whether a pod is well.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbesSpec {
    /// Asked until it succeeds once, before the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Failing it restarts the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// Failing it takes the pod out of its Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
}

fn http_port() -> i32 {
    8080
}

fn root() -> String {
    "/".to_owned()
}

fn a_minute() -> GatewayDuration {
    GatewayDuration::from("60s")
}
