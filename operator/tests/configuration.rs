//! The files that are made of a chain, read by the parts that will mount them.
#![expect(
    clippy::unwrap_used,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

use servicechain_crds::ValidatedChain;
use servicechain_item_service::Places as ServicePlaces;
use servicechain_operator::controller::build::configuration::{self, ClientSecret, Places};

const CHAIN: &str = include_str!("../../examples/shop.yaml");

struct Kubernetes;

impl Places for Kubernetes {
    fn service(&self, name: &str) -> String {
        format!("http://shop-{name}.shop.svc:8080")
    }

    fn issuer(&self, name: &str) -> String {
        format!("http://shop-issuer-{name}.shop.svc")
    }
}

fn chain() -> ValidatedChain {
    servicechain_crds::read(CHAIN).unwrap()
}

#[test]
fn the_gateway_reads_its_file() {
    let chain = chain();
    let config =
        servicechain_gateway::Config::from_yaml(&configuration::gateway(&chain, &Kubernetes)).unwrap();
    assert!(config.routes.len() >= chain.gateway.routes.len());
    assert_eq!(config.limits.request_bytes, chain.gateway.request_bytes);
}

#[test]
fn each_service_reads_its_file() {
    let chain = chain();
    for service in &chain.services {
        let places = ServicePlaces {
            database_url: "sqlite::memory:".to_owned(),
            redis_url: None,
            next_hop_url: service.next.as_ref().map(|next| Kubernetes.service(next)),
        };
        let file = configuration::service(&chain, service);
        let config = servicechain_item_service::Config::from_yaml(&file, &places).unwrap();
        assert_eq!(config.hop.name, service.name);
        assert_eq!(config.cache_ttl, service.cache_ttl);
        assert_eq!(config.authorization.is_some(), service.authorization.is_some());
        assert_eq!(config.next_hop.map(|next| next.name), service.next);
    }
}

#[test]
fn each_issuer_reads_its_file() {
    for issuer in &chain().issuers {
        let secret = ClientSecret {
            client: "demo".to_owned(),
            sha256: "00".repeat(32),
        };
        let file = configuration::issuer(issuer, issuer.managed().unwrap(), &[secret]);
        let config = servicechain_token_issuer::Config::from_yaml(&file).unwrap();
        assert_eq!(
            (config.issuer.name, config.issuer.url),
            (issuer.name.clone(), issuer.url.clone())
        );
    }
}
