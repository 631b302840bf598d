//! The resource `Revocation`: tokens that every verifier refuses although they are otherwise good.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::GatewayDuration, rules, service_chain::issuers::ObjectName};

/// Tokens of one issuer that every verifier of a chain refuses. It cannot be changed; deleting it takes the
/// revocation back.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "servicechain.dev",
    version = "v1alpha1",
    kind = "Revocation",
    plural = "revocations",
    namespaced,
    status = "RevocationStatus",
    derive = "PartialEq",
    doc = "Tokens of one issuer that every verifier of a chain refuses. It cannot be changed; deleting it takes the revocation back.",
    printcolumn = r#"{"name": "CHAIN", "type": "string", "jsonPath": ".spec.chainRef.name"}"#,
    printcolumn = r#"{"name": "ISSUER", "type": "string", "jsonPath": ".spec.issuer"}"#,
    printcolumn = r#"{"name": "ENFORCED", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Enforced\")].status"}"#,
    printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    ("self == oldSelf", rules::REVOCATION_KEPT_SAYS),
    (rules::ONE_REVOCATION_KIND, rules::ONE_REVOCATION_KIND_SAYS),
])))]
pub struct RevocationSpec {
    /// The chain, in the same namespace.
    pub chain_ref: ObjectName,
    /// Name of the issuer in the chain; the other fields mean nothing without one.
    #[schemars(length(min = 1, max = 15), regex(pattern = rules::DNS_LABEL))]
    pub issuer: String,
    /// Id (`kid`) of a key: every token it signed is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub key: Option<String>,
    /// A subject (`sub`): every token about it is refused, or those issued before `issuedBefore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub subject: Option<String>,
    /// A session (`sid`).
    #[serde(rename = "sessionID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub session_id: Option<String>,
    /// A client (`client_id`, RFC 9068 section 2.2): every token it was given is refused, or those issued before
    /// `issuedBefore`.
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub client_id: Option<String>,
    /// One token (`jti`).
    #[serde(rename = "tokenID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub token_id: Option<String>,
    /// Only tokens issued before this time (`iat`), for a subject or a client; a token that does not say counts as
    /// older. Alone, it is about every token of the issuer. A time to come refuses new tokens until then, and an issuer
    /// of the chain grants none. Default: the time the revocation was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Time>,
    /// How long the revocation is kept. 1m to 8760h; default: as long as a token may live, and the clocks'
    /// difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::between("1m", "8760h")))]
    pub expires_after: Option<GatewayDuration>,
}

/// How far the revocation has got.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationStatus {
    /// The `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Generation of the first key bundle that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_generation: Option<i64>,
    /// Verifiers that hold that bundle.
    pub acknowledged: i32,
    /// Verifiers of the chain.
    pub verifiers: i32,
    /// Enforced: every verifier holds it.
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}
