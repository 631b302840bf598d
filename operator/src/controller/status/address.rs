//! Where clients reach the gateway, as far as Kubernetes and the operator's settings tell. It must not know pods.

use k8s_openapi::api::core::v1::Service;
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::gateway::ServiceType;

use crate::config::Settings;
use crate::object_names::{Component, object};

/// The schema's bound of a URL.
const MAX_URL: usize = 512;

/// `None` where it is not known: a load balancer without an address yet, a node port that nobody told the operator about.
pub(crate) fn url(chain: &ValidatedChain, service: Option<&Service>, settings: &Settings) -> Option<String> {
    let wanted = &chain.gateway.service;
    let url = match wanted.kind {
        ServiceType::ClusterIP => {
            let name = object(&chain.name, Component::Gateway);
            http(&format!("{name}.{}.svc", chain.namespace), wanted.port)
        }
        ServiceType::NodePort => {
            let ports = service?.spec.as_ref()?.ports.as_ref()?;
            let port = ports.iter().find_map(|port| port.node_port)?;
            settings.node_port_urls.get(&u16::try_from(port).ok()?)?.clone()
        }
        ServiceType::LoadBalancer => {
            let balancer = service?.status.as_ref()?.load_balancer.as_ref()?;
            let ingress = balancer.ingress.as_ref()?.first()?;
            let address = ingress.ip.as_ref().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]")
                } else {
                    ip.clone()
                }
            });
            http(&ingress.hostname.clone().or(address)?, wanted.port)
        }
    };
    (url.len() <= MAX_URL).then_some(url)
}

fn http(host: &str, port: i32) -> String {
    if port == 80 {
        format!("http://{host}")
    } else {
        format!("http://{host}:{port}")
    }
}
