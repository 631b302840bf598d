//! Where the parts of a chain are reached from its pods.
//!
//! Names are whole, with the dot at their end: the resolver then asks once instead of trying every search domain first
//! (`ndots:5`), and never asks for the name outside the cluster, where somebody else's wildcard would get the tokens.

use super::configuration::Places;
use super::{KEYS_PORT, POSTGRES_PORT, REDIS_PORT};
use crate::config::Settings;
use crate::object_names::{self, Component};
use servicechain_crds::ValidatedChain;

pub(super) struct InCluster<'a> {
    pub(super) chain: &'a ValidatedChain,
    pub(super) settings: &'a Settings,
}

impl InCluster<'_> {
    pub(super) fn host(&self, component: Component<'_>) -> String {
        let name = object_names::object(&self.chain.name, component);
        let (namespace, domain) = (&self.chain.namespace, &self.settings.cluster_domain);
        format!("{name}.{namespace}.svc.{domain}.")
    }

    /// The keys port of an issuer.
    pub(super) fn issuer_keys(&self, name: &str) -> String {
        format!("http://{}:{KEYS_PORT}", self.host(Component::Issuer(name)))
    }

    /// `password` stands in the URL as it is.
    pub(super) fn database(&self, service: &str, password: &str) -> String {
        let host = self.host(Component::Database { service });
        // Without TLS at the server, offering it would only cost a round trip.
        format!("postgres://app:{password}@{host}:{POSTGRES_PORT}/app?sslmode=disable")
    }

    /// `password` stands in the URL as it is.
    pub(super) fn cache(&self, service: &str, password: &str) -> String {
        format!(
            "redis://:{password}@{}:{REDIS_PORT}/0",
            self.host(Component::Cache { service })
        )
    }
}

impl Places for InCluster<'_> {
    fn service(&self, name: &str) -> String {
        let port = self
            .chain
            .service(name)
            .map_or(super::MAIN_PORT, |service| service.port);
        format!("http://{}:{port}", self.host(Component::Service(name)))
    }

    fn issuer(&self, name: &str) -> String {
        format!("http://{}", self.host(Component::Issuer(name)))
    }
}
