//! Where everything listens: three loopback ports for each part of the chain, bound before anything starts, so that
//! everybody can be told where the others are.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use servicechain_crds::ValidatedChain;
use servicechain_gateway as gateway;
use servicechain_runtime::listeners::{Listeners, listen};

/// A part of the chain with its ports.
#[derive(Debug)]
pub(crate) struct Part {
    pub name: String,
    pub listeners: Listeners,
    pub ports: Ports,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub main: SocketAddr,
    pub admin: SocketAddr,
    pub keys: SocketAddr,
}

/// Managed issuers and services, in the order of the chain.
#[derive(Debug)]
pub(crate) struct Bound {
    pub issuers: Vec<Part>,
    pub services: Vec<Part>,
}

#[derive(Debug)]
pub(crate) struct Gateway {
    pub listeners: gateway::Listeners,
    pub ports: Ports,
}

/// What people and programs are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub gateway: String,
    pub issuers: Vec<(String, String)>,
    pub services: Vec<(String, String)>,
    pub admin: Vec<(String, String)>,
}

/// What a data directory remembers of the run before: an item belongs to (iss, sub), and an issuer's `iss` here is
/// its address.
const REMEMBERED: &str = "issuers.json";

/// With a data directory, issuers get the ports that they had in it before.
pub(crate) fn bind(chain: &ValidatedChain, data: Option<&Path>) -> anyhow::Result<Bound> {
    let file = data.map(|data| data.join(REMEMBERED));
    let remembered: BTreeMap<String, u16> = file
        .as_ref()
        .and_then(|file| fs::read(file).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let issuers = chain.managed_issuers().map(|(issuer, _)| {
        let port = remembered.get(&issuer.name).copied().unwrap_or_default();
        part(&issuer.name, port).with_context(|| match data {
            Some(data) if port != 0 => format!(
                "issuer {} had port {port} when {} was last used, and its items are named by it; is a chain still running on that directory? end it, or choose another --data",
                issuer.name,
                data.display()
            ),
            _ => format!("issuer {} has no port", issuer.name),
        })
    });
    let services = chain.services.iter().map(|service| part(&service.name, 0));
    let bound = Bound {
        issuers: issuers.collect::<anyhow::Result<_>>()?,
        services: services.collect::<anyhow::Result<_>>()?,
    };
    if let Some(file) = file {
        let ports = bound
            .issuers
            .iter()
            .map(|issuer| (issuer.name.as_str(), issuer.ports.main.port()));
        let ports = serde_json::to_vec(&ports.collect::<BTreeMap<_, _>>())?;
        fs::write(&file, ports)
            .with_context(|| format!("{} cannot be written: choose another --data", file.display()))?;
    }
    Ok(bound)
}

/// Port 0 is a free one.
pub(crate) fn bind_gateway(port: u16, config: &gateway::Config) -> anyhow::Result<Gateway> {
    let listeners = gateway::Listeners {
        main: gateway::bind(loopback(port), config.worker_threads())?,
        admin: listen(loopback(0))?,
        keys: listen(loopback(0))?,
    };
    let first = listeners.main.first().context("the gateway has no socket")?;
    let ports = Ports {
        main: first.local_addr()?,
        admin: listeners.admin.local_addr()?,
        keys: listeners.keys.local_addr()?,
    };
    Ok(Gateway { listeners, ports })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn part(name: &str, port: u16) -> anyhow::Result<Part> {
    let listeners = Listeners {
        main: listen(loopback(port))?,
        admin: listen(loopback(0))?,
        keys: listen(loopback(0))?,
    };
    let ports = Ports {
        main: listeners.main.local_addr()?,
        admin: listeners.admin.local_addr()?,
        keys: listeners.keys.local_addr()?,
    };
    Ok(Part {
        name: name.to_owned(),
        listeners,
        ports,
    })
}

impl Bound {
    pub(crate) fn url_of_issuer(&self, name: &str) -> String {
        url_of(&self.issuers, name)
    }

    pub(crate) fn url_of_service(&self, name: &str) -> String {
        url_of(&self.services, name)
    }

    pub(crate) fn addresses(&self, gateway: &Gateway) -> Addresses {
        let mains = |parts: &[Part]| {
            parts
                .iter()
                .map(|part| (part.name.clone(), url(part.ports.main)))
                .collect()
        };
        let behind = self
            .services
            .iter()
            .chain(&self.issuers)
            .map(|part| (part.name.clone(), url(part.ports.admin)));
        Addresses {
            gateway: url(gateway.ports.main),
            issuers: mains(&self.issuers),
            services: mains(&self.services),
            admin: std::iter::once(("gateway".to_owned(), url(gateway.ports.admin)))
                .chain(behind)
                .collect(),
        }
    }
}

fn url_of(parts: &[Part], name: &str) -> String {
    parts
        .iter()
        .find(|part| part.name == name)
        .map(|part| url(part.ports.main))
        .unwrap_or_default()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
