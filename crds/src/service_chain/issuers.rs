//! `spec.issuers`: who signs the tokens that the chain trusts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{pod::PodSettings, stores::DatabaseSpec};
use crate::{duration::GatewayDuration, rules};

/// Somebody whose tokens the chain trusts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::ONE_ISSUER_KIND, rules::ONE_ISSUER_KIND_SAYS)])))]
pub struct IssuerSpec {
    /// Name of the issuer within this chain: a DNS label of at most 15 characters.
    #[schemars(length(min = 1, max = 15), regex(pattern = rules::DNS_LABEL))]
    pub name: String,
    /// Narrows `spec.audiences` for this issuer's tokens. Default: empty, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 256), regex(pattern = rules::AUDIENCE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
    /// The claim that holds what the caller may do, a string of words or an array. Dots walk into objects
    /// (`realm_access.roles`). Default `scope`.
    #[serde(default = "scope")]
    #[schemars(length(min = 1, max = 128))]
    pub scopes_claim: String,
    /// Accepted values of a token's `typ` header; the empty string allows a token without one. Default
    /// `[at+jwt]` for a managed issuer, `[at+jwt, JWT]` otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub token_types: Vec<String>,
    /// An issuer that the operator runs, with keys that it rotates. Exactly one of `managed`, `external` and
    /// `static` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedIssuerSpec>,
    /// An OpenID Connect provider that somebody else runs. Its keys are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalIssuerSpec>,
    /// An issuer with a fixed key set.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub fixed: Option<StaticIssuerSpec>,
}

/// An issuer that the operator runs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[
    (rules::ROTATION_PERIOD, rules::ROTATION_PERIOD_SAYS),
    (rules::REFRESH_NEEDS_DATABASE, rules::REFRESH_NEEDS_DATABASE_SAYS),
    (rules::URL_KEPT, rules::URL_KEPT_SAYS),
])))]
pub struct ManagedIssuerSpec {
    /// The `iss` of its tokens, where its keys and tokens are served: a host alone. Cannot be changed. Default
    /// `http://<chain>-issuer-<name>.<namespace>.svc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::ORIGIN))]
    pub url: Option<String>,
    /// Algorithm of its keys. Another one is taken up by a rotation. Default ES256.
    pub algorithm: SigningAlgorithm,
    /// How long an access token lives. 1m to 24h, default 15m.
    #[schemars(extend("x-kubernetes-validations" = rules::whole_seconds_between("1m", "24h")))]
    pub token_lifetime: GatewayDuration,
    /// How long a refresh token lives. 1m to 8760h, default 720h.
    #[schemars(extend("x-kubernetes-validations" = rules::between("1m", "8760h")))]
    pub refresh_token_lifetime: GatewayDuration,
    /// How long a key signs before the next one takes over, at least twice `tokenLifetime`. 2m to 8760h,
    /// default 720h.
    #[schemars(extend("x-kubernetes-validations" = rules::between("2m", "8760h")))]
    pub rotation_period: GatewayDuration,
    /// Number of issuer pods. 1 to 10, default 2.
    #[schemars(range(min = 1, max = 10))]
    pub replicas: i32,
    /// Where refresh tokens are kept. Required when a client has the grant RefreshToken. Default: none. Not
    /// supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// Who may ask this issuer for tokens. Default: nobody.
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"])
    )]
    pub clients: Vec<ClientSpec>,
    /// Settings of its pods, merged over `spec.podDefaults`.
    pub pod: PodSettings,
}

/// Signature algorithm of a managed issuer's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SigningAlgorithm {
    #[default]
    ES256,
    RS256,
    EdDSA,
}

/// Somebody who may ask a managed issuer for tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSpec {
    /// The client's `client_id`, lower-case letters, digits and dashes, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::CLIENT_ID))]
    pub id: String,
    /// Secret with the keys `clientID` and `clientSecret`. Default: the operator makes one, once, named
    /// `<chain>-client-<issuer>-<id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectName>,
    /// How the client may get a token. Default `[ClientCredentials]`. `RefreshToken` is not supported yet.
    #[serde(default = "client_credentials")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub grants: Vec<Grant>,
    /// Scopes the client may ask for. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 128), regex(pattern = rules::SCOPE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub scopes: Vec<String>,
    /// Audiences the client may ask for. Default: empty, those of the issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 256), regex(pattern = rules::AUDIENCE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
}

/// How a client may get a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Grant {
    ClientCredentials,
    RefreshToken,
}

/// An OpenID Connect provider that somebody else runs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalIssuerSpec {
    /// The exact `iss` of its tokens, where its discovery document is looked for. https, unless the operator
    /// allows http. Cannot be changed.
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::ISSUER_URL))]
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[("self == oldSelf", rules::URL_KEPT_SAYS)])))]
    pub url: String,
    /// Where its key set is. https, unless the operator allows http. Default: empty, what its discovery document
    /// says.
    #[serde(default, rename = "jwksURI")]
    #[schemars(length(max = 512), regex(pattern = rules::JWKS_URI))]
    pub jwks_uri: String,
    /// Algorithms it may sign with. Default `[RS256, ES256]`.
    #[serde(default = "common_algorithms")]
    #[schemars(length(min = 1, max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub algorithms: Vec<VerificationAlgorithm>,
    /// Certificate authority of its server, PEM, in a ConfigMap. Default: the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<ConfigMapSource>,
    /// How often its keys are fetched when its answer does not say. 30s to 24h, default 5m.
    #[serde(default = "five_minutes")]
    #[schemars(extend("x-kubernetes-validations" = rules::between("30s", "24h")))]
    pub refresh_interval: GatewayDuration,
}

/// Algorithms that a foreign issuer may sign with; never HS*, never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum VerificationAlgorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// An issuer with a fixed key set.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticIssuerSpec {
    /// The exact `iss` of its tokens. Cannot be changed.
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::ISSUER_URL))]
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[("self == oldSelf", rules::URL_KEPT_SAYS)])))]
    pub url: String,
    /// Its key set, a JWKS document in a ConfigMap.
    pub jwks: ConfigMapSource,
}

/// A value kept in a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// The ConfigMap of the chain's namespace, and the key in it.
    pub config_map_key_ref: ObjectKey,
}

/// A key of an object of the chain's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectKey {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The name of an object of the chain's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

impl Default for ManagedIssuerSpec {
    fn default() -> Self {
        Self {
            url: None,
            algorithm: SigningAlgorithm::ES256,
            token_lifetime: GatewayDuration::from("15m"),
            refresh_token_lifetime: GatewayDuration::from("720h"),
            rotation_period: GatewayDuration::from("720h"),
            replicas: 2,
            database: None,
            clients: Vec::new(),
            pod: PodSettings::default(),
        }
    }
}

fn scope() -> String {
    "scope".to_owned()
}

fn client_credentials() -> Vec<Grant> {
    vec![Grant::ClientCredentials]
}

fn common_algorithms() -> Vec<VerificationAlgorithm> {
    vec![VerificationAlgorithm::RS256, VerificationAlgorithm::ES256]
}

fn five_minutes() -> GatewayDuration {
    GatewayDuration::from("5m")
}
