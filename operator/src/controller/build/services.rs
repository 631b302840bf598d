//! How components are found. A hop is found address by address (headless), so that callers balance and retry by
//! themselves; gateway, issuers and stores have one address, which moves to another pod at once.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use servicechain_crds::service_chain::gateway::{ExternalTrafficPolicy, ServiceType};

use super::metadata::{owned, some_map, some_text};
use super::{Blueprint, KEYS_PORT, POSTGRES_PORT, REDIS_PORT};
use crate::object_names::{self, Component};

/// Port of an issuer's Service: that of its URL.
const ISSUER_PORT: u16 = 80;

pub(super) fn services(blueprint: &Blueprint<'_>) -> Vec<Service> {
    let components = object_names::components(blueprint.chain).into_iter();
    components
        .map(|component| service(blueprint, component))
        .collect()
}

fn service(blueprint: &Blueprint<'_>, component: Component<'_>) -> Service {
    let mut metadata = owned(
        blueprint,
        component,
        object_names::object(&blueprint.chain.name, component),
    );
    let mut spec = match component {
        Component::Gateway => gateway(blueprint, &mut metadata),
        // Pods that are not Ready are left out on its keys port too: they could not answer as an authority.
        Component::Issuer(_) => inside(vec![port("http", ISSUER_PORT), port("keys", KEYS_PORT)]),
        Component::Service(name) => {
            let number = blueprint
                .chain
                .service(name)
                .map_or(super::MAIN_PORT, |service| service.port);
            ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                ..inside(vec![port("http", number)])
            }
        }
        Component::Database { .. } => inside(vec![port("postgres", POSTGRES_PORT)]),
        Component::Cache { .. } => inside(vec![port("redis", REDIS_PORT)]),
    };
    spec.selector = Some(object_names::selector(&blueprint.chain.name, component));
    Service {
        metadata,
        spec: Some(spec),
        ..Service::default()
    }
}

fn gateway(blueprint: &Blueprint<'_>, metadata: &mut ObjectMeta) -> ServiceSpec {
    let given = &blueprint.chain.gateway.service;
    metadata.annotations = some_map(given.annotations.clone());
    let http = ServicePort {
        node_port: given.node_port,
        port: given.port,
        ..port("http", 0)
    };
    let kind = match given.kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let policy = match given.external_traffic_policy {
        ExternalTrafficPolicy::Cluster => "Cluster",
        ExternalTrafficPolicy::Local => "Local",
    };
    let is_external = given.kind != ServiceType::ClusterIP;
    let is_balanced = given.kind == ServiceType::LoadBalancer;
    ServiceSpec {
        type_: Some(kind.to_owned()),
        external_traffic_policy: is_external.then(|| policy.to_owned()),
        load_balancer_class: some_text(Some(given.load_balancer_class.clone()).filter(|_| is_balanced)),
        ..inside(vec![http])
    }
}

fn inside(ports: Vec<ServicePort>) -> ServiceSpec {
    ServiceSpec {
        ports: Some(ports),
        type_: Some("ClusterIP".to_owned()),
        ..ServiceSpec::default()
    }
}

/// A port that leads to the container's port of the same name.
fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
