//! A chain that can be built: unions are enums, defaults are resolved, names lead somewhere.
//! Pure; it must not know Kubernetes' API server, files or time.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{EnvFromSource, EnvVar},
        networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::service_chain::{
    RequiredClaim, UnconfirmedStart,
    gateway::{AuthenticationMode, GatewayServiceSpec},
    issuers::{ObjectKey, SigningAlgorithm, VerificationAlgorithm},
    operations::{NetworkPolicyMode, ObservabilitySpec, RolloutOrder},
    pod::PodSettings,
    services::{AuthorizationRule, ProbesSpec},
    stores::DeletionPolicy,
};

/// What a route to an issuer exposes of it.
pub const ISSUER_PATHS: [&str; 3] = ["/oauth2", "/jwks.json", "/.well-known"];

/// A chain that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedChain {
    /// A DNS label of at most 20 characters.
    pub name: String,
    pub namespace: String,
    pub paused: bool,
    /// Never empty.
    pub audiences: Vec<String>,
    /// Never empty; names and URLs are unique.
    pub issuers: Vec<Issuer>,
    pub token_policy: TokenPolicy,
    pub key_distribution: KeyDistribution,
    pub gateway: Gateway,
    /// Never empty; names are unique, and `next` leads from every one to an end.
    pub services: Vec<Service>,
    pub network_policy: NetworkPolicy,
    pub observability: ObservabilitySpec,
    pub rollout: Rollout,
}

/// Somebody whose tokens the chain trusts.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    pub name: String,
    /// The exact `iss` of its tokens.
    pub url: String,
    /// Never empty: those of the chain unless the issuer narrows them.
    pub audiences: Vec<String>,
    pub scopes_claim: String,
    /// Never empty; the empty string allows a token without `typ`.
    pub token_types: Vec<String>,
    pub kind: IssuerKind,
}

/// How an issuer's keys come to be.
#[derive(Clone, Debug, PartialEq)]
pub enum IssuerKind {
    Managed(Box<ManagedIssuer>),
    External(ExternalIssuer),
    Static(StaticIssuer),
}

/// An `OpenID` provider that somebody else runs. It has no pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalIssuer {
    /// `None`: where its discovery document says.
    pub jwks_uri: Option<String>,
    /// Never empty.
    pub algorithms: Vec<VerificationAlgorithm>,
    /// `ConfigMap` and key with the certificates that its server is known by; `None`: the public ones.
    pub ca_bundle: Option<ObjectKey>,
    pub refresh_interval: Duration,
}

/// An issuer whose key set is given. It has no pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticIssuer {
    /// `ConfigMap` and key with its JWKS.
    pub jwks: ObjectKey,
}

/// An issuer that the operator runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedIssuer {
    pub algorithm: SigningAlgorithm,
    pub token_lifetime: Duration,
    pub rotation_period: Duration,
    pub replicas: u32,
    pub clients: Vec<Client>,
    pub pod: PodSettings,
}

/// Somebody who may get tokens for itself (RFC 6749, section 4.4); no other grant is supported yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    /// Name of the Secret with its credentials.
    pub secret_name: String,
    /// Whether the Secret is the user's, not one that the operator makes.
    pub secret_is_given: bool,
    pub scopes: Vec<String>,
    /// Never empty: those of the issuer unless the client narrows them.
    pub audiences: Vec<String>,
}

/// What every verifier demands of every token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    pub clock_skew: Duration,
    pub max_token_bytes: u32,
    pub max_token_lifetime: Duration,
    /// Demanded at the gateway.
    pub minimum_remaining: Duration,
    pub required_claims: Vec<RequiredClaim>,
}

/// How verifiers get their keys, and what they do while they have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDistribution {
    pub startup_wait: Duration,
    pub unconfirmed_start: UnconfirmedStart,
    pub withdrawn_key_grace: Duration,
    /// `None`: a verifier goes on for ever with the keys it has.
    pub max_staleness: Option<Duration>,
}

/// The entrance of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    pub replicas: u32,
    pub service: GatewayServiceSpec,
    pub trusted_proxies: Vec<IpNet>,
    pub request_bytes: u64,
    pub header_bytes: u64,
    /// `None`: a request may take for ever.
    pub timeout: Option<Duration>,
    /// Never empty; names are unique, and no two answer for the same host and prefix.
    pub routes: Vec<Route>,
    pub pod: PodSettings,
}

/// What is forwarded where, and who may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub name: String,
    pub hosts: Vec<String>,
    pub path_prefix: String,
    pub target: RouteTarget,
    pub authentication: AuthenticationMode,
    /// Names of issuers; empty: all.
    pub issuers: Vec<String>,
    pub scopes: Vec<String>,
    /// That of the gateway unless the route has its own; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// Who gets a route's requests, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    Service(String),
    /// A managed issuer: only [`ISSUER_PATHS`] of it.
    Issuer(String),
}

/// A hop behind the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    /// Name of the service it calls; `None`: it is the last.
    pub next: Option<String>,
    pub replicas: u32,
    pub port: u16,
    /// Empty: those of the chain, or of the token's issuer.
    pub audiences: Vec<String>,
    /// Names of issuers; empty: all.
    pub issuers: Vec<String>,
    /// `None`: any verified caller may do anything.
    pub authorization: Option<Vec<AuthorizationRule>>,
    pub database: Option<Database>,
    pub cache: Option<Cache>,
    pub cache_ttl: Duration,
    pub env: Vec<EnvVar>,
    pub env_from: Vec<EnvFromSource>,
    pub probes: ProbesSpec,
    pub pod: PodSettings,
}

/// Where a service keeps its data. Databases of others are refused by this version.
#[derive(Clone, Debug, PartialEq)]
pub enum Database {
    Managed(ManagedDatabase),
}

/// A PostgreSQL that the operator runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedDatabase {
    /// Major version; `None`: the operator's default.
    pub version: Option<String>,
    pub storage_bytes: u64,
    /// `None`: the cluster's own.
    pub storage_class: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub parameters: BTreeMap<String, String>,
    pub pod: PodSettings,
}

/// What a service reads before its database. Caches of others are refused by this version.
#[derive(Clone, Debug, PartialEq)]
pub enum Cache {
    Managed { max_memory_bytes: u64, pod: PodSettings },
}

/// Which NetworkPolicies are made.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPolicy {
    pub mode: NetworkPolicyMode,
    pub metrics_from: Vec<NetworkPolicyPeer>,
    pub egress: Vec<NetworkPolicyEgressRule>,
}

/// In which order pods get a new template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub order: RolloutOrder,
    pub progress_deadline: Duration,
}

/// A revocation that is about one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedRevocation {
    pub chain: String,
    /// Name of the issuer whose tokens it is about.
    pub issuer: String,
    pub revoked: Revoked,
    /// `None`: as long as a token may live, and the clocks' difference.
    pub expires_after: Option<Duration>,
}

/// Whose tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Those that the key with this `kid` signed.
    Key(String),
    /// Those about a subject that were issued before a time; `None`: before the revocation was created.
    Subject {
        subject: String,
        issued_before: Option<Time>,
    },
    /// Those of a session (`sid`).
    Session(String),
    /// Those that a client was given before a time; `None`: before the revocation was created.
    Client {
        client_id: String,
        issued_before: Option<Time>,
    },
    /// The one with this `jti`.
    Token(String),
    /// All that the issuer issued before a time.
    Everything { issued_before: Time },
}

impl Issuer {
    /// How the operator runs it, if it does.
    #[must_use]
    pub const fn managed(&self) -> Option<&ManagedIssuer> {
        match &self.kind {
            IssuerKind::Managed(managed) => Some(managed),
            IssuerKind::External(_) | IssuerKind::Static(_) => None,
        }
    }
}

impl ValidatedChain {
    /// The issuers that the operator runs, in their order: those that have pods.
    pub fn managed_issuers(&self) -> impl Iterator<Item = (&Issuer, &ManagedIssuer)> {
        self.issuers
            .iter()
            .filter_map(|issuer| Some((issuer, issuer.managed()?)))
    }

    #[must_use]
    pub fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.name == name)
    }

    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The services that a request to `first` passes, in that order.
    pub fn path_from<'a>(&'a self, first: &'a str) -> impl Iterator<Item = &'a Service> {
        std::iter::successors(self.service(first), |service| {
            service.next.as_deref().and_then(|next| self.service(next))
        })
    }
}
