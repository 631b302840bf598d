//! `spec.gateway`: the entrance of the chain and its routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::PodSettings;
use crate::{duration::GatewayDuration, quantity::Quantity, rules};

/// The entrance of the chain.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::REPLICAS_OR_AUTOSCALING, rules::REPLICAS_OR_AUTOSCALING_SAYS),
    (rules::TRUSTED_PROXIES, rules::TRUSTED_PROXIES_SAYS),
])))]
pub struct GatewaySpec {
    /// Number of gateway pods. 1 to 100; default 2, unless `autoscaling` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler choose the number of pods; not together with `replicas`. Not supported
    /// yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// The Service in front of the gateway pods.
    #[serde(default)]
    pub service: GatewayServiceSpec,
    /// An Ingress in front of the Service. Default: none. Not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// A Gateway API HTTPRoute to the Service. Default: none. Not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteSpec>,
    /// Lets the gateway itself terminate TLS, on the Service's port 443. Default: clear HTTP. Not
    /// supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTlsSpec>,
    /// Address ranges (CIDR) whose `X-Forwarded-*` headers are believed. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 3, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub trusted_proxies: Vec<String>,
    /// How large a request may be.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// How long a request may take, unless its route says otherwise; 0s = for ever. 0s to 1h, default 5s.
    #[serde(default = "five_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "1h")))]
    pub timeout: GatewayDuration,
    /// What is forwarded where. The longest matching host wins, then the longest matching path prefix; the
    /// order means nothing.
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub routes: Vec<RouteSpec>,
    /// Settings of its pods, merged over `spec.podDefaults`.
    #[serde(default)]
    pub pod: PodSettings,
}

/// Bounds for a HorizontalPodAutoscaler. The operator then never writes the number of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[("self.minReplicas <= self.maxReplicas", rules::MIN_ABOVE_MAX_SAYS)])))]
pub struct AutoscalingSpec {
    /// Fewest pods. 1 to 100, default 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Most pods. 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Average CPU use to aim at, in percent of the CPU request. 1 to 100, default 70.
    #[serde(default = "seventy", rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization_percentage: i32,
}

/// The Service in front of the gateway pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::NODE_PORT, rules::NODE_PORT_SAYS),
    (rules::LOAD_BALANCER_CLASS, rules::LOAD_BALANCER_CLASS_SAYS),
])))]
pub struct GatewayServiceSpec {
    /// ClusterIP, NodePort or LoadBalancer. Default ClusterIP.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Port of the Service. Default 80.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port on every node, only with NodePort or LoadBalancer. Default: one that Kubernetes chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// `Cluster` lets any node answer, `Local` only nodes with a gateway pod, which keeps the client's
    /// address. Default Cluster.
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// Annotations of the Service. Default: none.
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Class of the load balancer, only with LoadBalancer. Default: empty, the cluster's own.
    #[schemars(length(max = 253))]
    pub load_balancer_class: String,
}

/// How the gateway's Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Which nodes answer for the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ExternalTrafficPolicy {
    #[default]
    Cluster,
    Local,
}

/// An Ingress in front of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// Class of the Ingress. Default: empty, the cluster's own.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub class_name: String,
    /// Host names it answers for.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hosts: Vec<String>,
    /// Secret with its certificate. Default: empty, no TLS.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub tls_secret_name: String,
    /// Annotations of the Ingress. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// A Gateway API HTTPRoute to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways it attaches to.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentRef>,
    /// Host names it answers for. Default: those of the Gateways.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
}

/// A Gateway that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Its namespace. Default: the chain's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// The gateway's own certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTlsSpec {
    /// Secret of type kubernetes.io/tls. It is read again when it changes.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub secret_name: String,
}

/// How large a request may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsSpec {
    /// Largest body, a quantity of bytes. Up to 1Gi, default 10Mi; larger ones get 413.
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::REQUEST_BYTES, rules::REQUEST_BYTES_SAYS)])))]
    pub request_bytes: Quantity,
    /// Longest request line and headers together, a quantity of bytes. 4Ki to 256Ki, default 32Ki; longer
    /// ones get 431.
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::HEADER_BYTES, rules::HEADER_BYTES_SAYS)])))]
    pub header_bytes: Quantity,
}

/// What is forwarded where, and who may pass.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::ONE_ROUTE_TARGET, rules::ONE_ROUTE_TARGET_SAYS),
    (rules::SCOPES_NEED_TOKEN, rules::SCOPES_NEED_TOKEN_SAYS),
    (rules::ISSUERS_NEED_TOKEN, rules::ISSUERS_NEED_TOKEN_SAYS),
    (rules::ISSUER_ROUTE_OPEN, rules::ISSUER_ROUTE_OPEN_SAYS),
    (rules::ISSUER_ROUTE_PREFIX, rules::ISSUER_ROUTE_PREFIX_SAYS),
])))]
pub struct RouteSpec {
    /// Name of the route: a DNS label of at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_LABEL))]
    pub name: String,
    /// Host names it answers for; `*.` in front stands for any first label. Default: empty, all of them.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = rules::HOST)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hosts: Vec<String>,
    /// Prefix of the paths it answers for, by whole segments. Default `/`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 256), regex(pattern = rules::PATH_PREFIX))]
    pub path_prefix: String,
    /// The service that gets the request. Exactly one of `service` and `issuer` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub service: Option<String>,
    /// The managed issuer whose `/oauth2`, `/jwks.json` and `/.well-known` are exposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub issuer: Option<String>,
    /// `Required` refuses a request without a good token, `Optional` only one with a bad token, `None` looks
    /// at none. Default Required; None for an `issuer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationMode>,
    /// Whose tokens pass here, by name. Default: empty, every issuer's.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 15)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub issuers: Vec<String>,
    /// Scopes that a token must all have. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub scopes: Vec<String>,
    /// How long a request may take; 0s = for ever. 0s to 1h; default: `spec.gateway.timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::between("0s", "1h")))]
    pub timeout: Option<GatewayDuration>,
    /// How many requests a caller may make, counted by each gateway pod for itself. Default: any number. Not
    /// supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
}

/// Whether a route asks for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AuthenticationMode {
    #[default]
    Required,
    Optional,
    None,
}

/// How many requests a caller may make, counted by each gateway pod for itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Requests a second, for ever. 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: i32,
    /// Requests at once, after a pause. 1 to 1000000; default: those of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
    /// Who is counted together: the token's `Subject`, the client's `Address` or the token's `Issuer`.
    /// Default Subject.
    #[serde(default)]
    pub key: RateLimitKey,
}

/// Who is counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RateLimitKey {
    #[default]
    Subject,
    Address,
    Issuer,
}

impl Default for GatewayServiceSpec {
    fn default() -> Self {
        Self {
            kind: ServiceType::ClusterIP,
            port: 80,
            node_port: None,
            external_traffic_policy: ExternalTrafficPolicy::Cluster,
            annotations: BTreeMap::new(),
            load_balancer_class: String::new(),
        }
    }
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            request_bytes: Quantity::from("10Mi"),
            header_bytes: Quantity::from("32Ki"),
        }
    }
}

fn five_seconds() -> GatewayDuration {
    GatewayDuration::from("5s")
}

fn root() -> String {
    "/".to_owned()
}

fn two() -> i32 {
    2
}

fn seventy() -> i32 {
    70
}
