//! Who may open which port of whom, derived from who calls whom. A second wall: nothing in the key protocol relies on it.
//! Probes need no rule, since a pod's own node may always reach it.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use servicechain_crds::service_chain::operations::NetworkPolicyMode;
use servicechain_crds::validated::RouteTarget;

use super::metadata::{owned, selector, some_list};
use super::{ADMIN_PORT, Blueprint, KEYS_PORT, MAIN_PORT, POSTGRES_PORT, REDIS_PORT};
use crate::object_names::{self, CHAIN_LABEL, COMPONENT_LABEL, Component};

/// What every namespace is labelled with, by Kubernetes itself.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn network_policies(blueprint: &Blueprint<'_>) -> Vec<NetworkPolicy> {
    match blueprint.chain.network_policy.mode {
        NetworkPolicyMode::Disabled => Vec::new(),
        // Strict is refused before anything is built.
        NetworkPolicyMode::Ingress | NetworkPolicyMode::Strict => {
            let components = object_names::components(blueprint.chain).into_iter();
            components.map(|component| policy(blueprint, component)).collect()
        }
    }
}

fn policy(blueprint: &Blueprint<'_>, component: Component<'_>) -> NetworkPolicy {
    let mut rules = Vec::from_iter(main_rule(blueprint, component));
    if component.workload().is_some() {
        let mut callers = vec![namespace(&blueprint.settings.operator_namespace)];
        if matches!(component, Component::Issuer(_)) {
            callers.push(verifiers(blueprint));
        }
        rules.push(rule(KEYS_PORT, Some(callers)));
        let scrapers = blueprint.chain.network_policy.metrics_from.clone();
        rules.extend(some_list(scrapers).map(|scrapers| rule(ADMIN_PORT, Some(scrapers))));
    }
    NetworkPolicy {
        metadata: owned(
            blueprint,
            component,
            object_names::object(&blueprint.chain.name, component),
        ),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(blueprint, component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            // Without a rule nobody gets in.
            ingress: some_list(rules),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// Who may call what the component is there for; nobody, if the chain leads nobody there.
fn main_rule(blueprint: &Blueprint<'_>, component: Component<'_>) -> Option<NetworkPolicyIngressRule> {
    match component {
        Component::Gateway => Some(rule(MAIN_PORT, None)),
        // Whoever wants a token, or an issuer's public keys, is no part of the chain.
        Component::Issuer(_) => Some(rule(MAIN_PORT, Some(vec![any_namespace()]))),
        Component::Service(name) => {
            let port = blueprint.chain.service(name)?.port;
            Some(rule(port, Some(some_list(callers(blueprint, name))?)))
        }
        Component::Database { service } => Some(rule(POSTGRES_PORT, Some(vec![pods(blueprint, service)]))),
        Component::Cache { service } => Some(rule(REDIS_PORT, Some(vec![pods(blueprint, service)]))),
    }
}

/// The hops right before a service.
fn callers(blueprint: &Blueprint<'_>, name: &str) -> Vec<NetworkPolicyPeer> {
    let is_routed = |target: &RouteTarget| matches!(target, RouteTarget::Service(service) if service == name);
    let routes = &blueprint.chain.gateway.routes;
    let gateway = routes
        .iter()
        .any(|route| is_routed(&route.target))
        .then_some(Component::Gateway);
    let services = blueprint.chain.services.iter();
    let before = services
        .filter(|service| service.next.as_deref() == Some(name))
        .map(|service| Component::Service(&service.name));
    gateway
        .into_iter()
        .chain(before)
        .map(|caller| peer(selector(blueprint, caller)))
        .collect()
}

fn pods(blueprint: &Blueprint<'_>, service: &str) -> NetworkPolicyPeer {
    peer(selector(blueprint, Component::Service(service)))
}

/// Every pod of the chain that verifies tokens, and may ask an issuer for an unknown key.
fn verifiers(blueprint: &Blueprint<'_>) -> NetworkPolicyPeer {
    let components = object_names::components(blueprint.chain).into_iter();
    let labels = components
        .filter(|component| component.workload().is_some())
        .map(Component::label);
    peer(LabelSelector {
        match_labels: Some([(CHAIN_LABEL.to_owned(), blueprint.chain.name.clone())].into()),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: COMPONENT_LABEL.to_owned(),
            operator: "In".to_owned(),
            values: Some(labels.collect()),
        }]),
    })
}

fn peer(pods: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(pods),
        ..NetworkPolicyPeer::default()
    }
}

fn namespace(name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_LABEL.to_owned(), name.to_owned())].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

/// Any pod of the cluster.
fn any_namespace() -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    }
}

fn rule(port: u16, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from,
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(port.into())),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}
