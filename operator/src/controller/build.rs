//! What a validated chain becomes, one Kubernetes kind a file. Pure, infallible, and the same bytes for the same chain,
//! in the form in which the API server stores them, so that nothing differs that nobody changed.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use servicechain_crds::ValidatedChain;
use servicechain_crds::mistakes::Mistakes;
use servicechain_crds::service_chain::pod::PodSettings;
use servicechain_crds::validated::{Cache, Database, Issuer, IssuerKind, ManagedDatabase};
use servicechain_keys::{ChainId, Digest, RootSecret, TrustAnchor, Workload};
use zeroize::Zeroizing;

use super::resources::{Prepared, Resources};
use crate::config::Settings;
use crate::object_names::Component;
use configuration::ClientSecret;
use places::InCluster;

mod config_maps;
pub mod configuration;
mod deployments;
mod environment;
mod metadata;
mod network_policies;
mod persistent_volume_claims;
mod places;
mod pod;
mod pod_disruption_budgets;
mod postgres;
mod probe;
mod quantity;
mod redis;
mod secrets;
mod service_accounts;
mod services;
mod stateful_sets;

/// Ports of every pod of ours. Services may listen on another one than the main port.
const MAIN_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;
const KEYS_PORT: u16 = 9091;
const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;

/// Old `ReplicaSets` and revisions that are kept: enough to look back, too few to fill a namespace.
const REVISIONS_KEPT: i32 = 3;

/// What a chain is built with beside itself.
pub struct Given<'a> {
    /// The chain, as its objects name it.
    pub owner: OwnerReference,
    /// The uid of the chain.
    pub chain_id: ChainId,
    /// One or two keys that may sign its bundles.
    pub anchors: &'a [TrustAnchor],
    pub root: &'a RootSecret,
    pub settings: &'a Settings,
    /// The Secrets of clients that exist and have both keys, by name.
    pub client_secrets: &'a BTreeMap<String, FoundClient>,
    /// The Secrets of databases ([`store_secret`](crate::object_names::store_secret)) that exist, by name, and whether
    /// they have an owner.
    pub store_secrets: &'a BTreeMap<String, bool>,
    /// The recorded major version of each database whose claim exists, by service.
    pub majors: &'a BTreeMap<String, String>,
    /// 256 random bits in letters that need no escaping in a URL or in SQL.
    pub new_password: &'a mut dyn FnMut() -> Zeroizing<String>,
}

/// What was read of a client's Secret. The client's secret itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundClient {
    pub id: String,
    /// SHA-256 of the client's secret, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What of the chain cannot be built with these settings. Such a chain is refused, and nothing of it is built.
#[must_use]
pub fn mistakes(chain: &ValidatedChain, settings: &Settings, majors: &BTreeMap<String, String>) -> Mistakes {
    let mut mistakes = Mistakes::new();
    refuse_clear_text(chain, settings, &mut mistakes);
    for (index, service) in chain.services.iter().enumerate() {
        let Some(Database::Managed(database)) = &service.database else {
            continue;
        };
        let major = major(&service.name, database, settings, majors);
        if !settings.images.postgres.contains_key(&major) {
            let known: Vec<_> = settings.images.postgres.keys().map(String::as_str).collect();
            mistakes.add(
                format!("spec.services[{index}].database.managed.version"),
                format!(
                    "this operator has no image of PostgreSQL {major}; it has {}. Name one of these, or add an image \
                     of {major} to the operator's settings",
                    known.join(", ")
                ),
            );
        }
    }
    mistakes
}

/// Keys that anybody on the way can change are no keys.
fn refuse_clear_text(chain: &ValidatedChain, settings: &Settings, mistakes: &mut Mistakes) {
    if settings.fetch_rules.allow_http {
        return;
    }
    for (index, issuer) in chain.issuers.iter().enumerate() {
        let IssuerKind::External(external) = &issuer.kind else {
            continue;
        };
        let uri = external.jwks_uri.as_deref().unwrap_or_default();
        let url = if external.jwks_uri.is_none() {
            issuer.url.as_str()
        } else {
            ""
        };
        for (field, url) in [("url", url), ("jwksURI", uri)] {
            if url.starts_with("http://") {
                mistakes.add(
                    format!("spec.issuers[{index}].external.{field}"),
                    format!(
                        "{url:?} is fetched in clear text, so that anybody on the way can change its keys; use https, or run \
                         the operator with --allow-http-issuers"
                    ),
                );
            }
        }
    }
}

/// All objects of the chain, in which [`mistakes`] has found none.
#[must_use]
pub fn build(chain: &ValidatedChain, given: &mut Given<'_>) -> Resources<Prepared> {
    let blueprint = Blueprint {
        chain,
        owner: given.owner.clone(),
        chain_id: given.chain_id.clone(),
        anchors: given.anchors,
        root: given.root,
        settings: given.settings,
        clients: secrets::clients(chain, given),
        databases: databases(chain, given),
    };
    Resources {
        service_accounts: service_accounts::service_accounts(&blueprint),
        config_maps: config_maps::config_maps(&blueprint),
        secrets: secrets::secrets(&blueprint, given),
        created_once: secrets::created_once(&blueprint, given),
        persistent_volume_claims: persistent_volume_claims::persistent_volume_claims(&blueprint),
        services: services::services(&blueprint),
        network_policies: network_policies::network_policies(&blueprint),
        pod_disruption_budgets: pod_disruption_budgets::pod_disruption_budgets(&blueprint),
        stateful_sets: stateful_sets::stateful_sets(&blueprint),
        deployments: deployments::deployments(&blueprint),
        ..Resources::default()
    }
}

/// What the builders of all kinds share: the chain, with everything resolved that it leaves open.
struct Blueprint<'a> {
    chain: &'a ValidatedChain,
    owner: OwnerReference,
    chain_id: ChainId,
    anchors: &'a [TrustAnchor],
    root: &'a RootSecret,
    settings: &'a Settings,
    /// By issuer.
    clients: BTreeMap<&'a str, Vec<ClientSecret>>,
    /// In the order of their services.
    databases: Vec<(Component<'a>, BuiltDatabase<'a>)>,
}

/// A managed database with what was decided about it before.
struct BuiltDatabase<'a> {
    spec: &'a ManagedDatabase,
    major: String,
    has_volume: bool,
}

impl<'a> Blueprint<'a> {
    fn places(&self) -> InCluster<'_> {
        InCluster {
            chain: self.chain,
            settings: self.settings,
        }
    }

    /// The file of a verifier.
    fn file(&self, component: Component<'_>) -> Option<String> {
        match component {
            Component::Gateway => Some(configuration::gateway(self.chain, &self.places())),
            Component::Issuer(name) => {
                let clients = self.clients.get(name).map(Vec::as_slice).unwrap_or_default();
                let issuer = self.chain.issuer(name)?;
                Some(configuration::issuer(issuer, issuer.managed()?, clients))
            }
            Component::Service(name) => Some(configuration::service(self.chain, self.chain.service(name)?)),
            Component::Database { .. } | Component::Cache { .. } => None,
        }
    }

    /// What authenticates a verifier's answers and knocks.
    fn ack_key(&self, component: Component<'_>) -> Option<Zeroizing<String>> {
        let workload = Workload::new(component.workload()?).ok()?;
        Some(self.root.ack_key(&self.chain_id, &workload).to_text())
    }

    /// Of all that a verifier reads at its start only. The key makes it a digest from which nothing is guessed.
    fn config_digest(&self, component: Component<'_>) -> String {
        let key = self.ack_key(component).unwrap_or_default();
        let file = self.file(component).unwrap_or_default();
        let cache = match component {
            Component::Service(service) => redis::password(self, Component::Cache { service }),
            _ => Zeroizing::default(),
        };
        digest(&[&key, &cache, &file])
    }

    fn replicas(&self, component: Component<'_>) -> u32 {
        match component {
            Component::Gateway => self.chain.gateway.replicas,
            Component::Issuer(name) => {
                let managed = self.chain.issuer(name).and_then(Issuer::managed);
                managed.map_or(0, |managed| managed.replicas)
            }
            Component::Service(name) => self.chain.service(name).map_or(0, |service| service.replicas),
            Component::Database { .. } | Component::Cache { .. } => 1,
        }
    }

    fn pod_settings(&self, component: Component<'_>) -> &'a PodSettings {
        let chain = self.chain;
        let own = match component {
            Component::Gateway => None,
            Component::Issuer(name) => {
                let managed = chain.issuer(name).and_then(Issuer::managed);
                managed.map(|managed| &managed.pod)
            }
            Component::Service(name) => chain.service(name).map(|service| &service.pod),
            Component::Database { service } => {
                let database = chain
                    .service(service)
                    .and_then(|service| service.database.as_ref());
                database.map(|Database::Managed(database)| &database.pod)
            }
            Component::Cache { service } => {
                let cache = chain.service(service).and_then(|service| service.cache.as_ref());
                cache.map(|Cache::Managed { pod, .. }| pod)
            }
        };
        own.unwrap_or(&chain.gateway.pod)
    }
}

fn databases<'a>(chain: &'a ValidatedChain, given: &Given<'_>) -> Vec<(Component<'a>, BuiltDatabase<'a>)> {
    let services = chain.services.iter();
    let managed = services.filter_map(|service| {
        let Database::Managed(spec) = service.database.as_ref()?;
        let database = BuiltDatabase {
            spec,
            major: major(&service.name, spec, given.settings, given.majors),
            has_volume: given.majors.contains_key(&service.name),
        };
        Some((
            Component::Database {
                service: &service.name,
            },
            database,
        ))
    });
    managed.collect()
}

/// A volume belongs to the major that it was made with, whatever is said later.
fn major(
    service: &str,
    database: &ManagedDatabase,
    settings: &Settings,
    majors: &BTreeMap<String, String>,
) -> String {
    let chosen = majors.get(service).or(database.version.as_ref());
    chosen.unwrap_or(&settings.default_postgres_major).clone()
}

fn digest(parts: &[&str]) -> String {
    Digest::of(parts.join("\n").as_bytes()).to_string()
}

impl fmt::Debug for Given<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Given")
            .field("chain_id", &self.chain_id)
            .field("store_secrets", &self.store_secrets)
            .field("majors", &self.majors)
            .finish_non_exhaustive()
    }
}

/// A digest of a secret that people chose is guessed from as the secret itself.
impl fmt::Debug for FoundClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FoundClient")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
