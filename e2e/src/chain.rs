//! A chain of gateway, A, B and C in this process, on stores of its own, with a recorder and a breakable link before
//! each service.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use servicechain_fixtures::{Proxy, Stores};
use servicechain_item_service as item_service;
use servicechain_item_service::config::Places;
use servicechain_item_service::pause::PausePoints;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::Listeners;
use tempfile::TempDir;

use crate::keys::Keys;
use crate::recorder::Recorder;
use crate::running::{DrainTimes, Running, gateway, show_logs_of_failures};

/// The services, first to last.
pub const SERVICES: [&str; 3] = ["a", "b", "c"];

/// What a chain is made of; change it before the start.
#[derive(Debug)]
pub struct Plan {
    /// Of A, B and C.
    pub stores: [Stores; 3],
    pub pauses: [PausePoints; 3],
    pub cache_ttl: &'static str,
    /// Of the gateway's routes.
    pub timeout: &'static str,
}

/// A running chain. Dropping it ends its hops.
#[derive(Debug)]
pub struct Chain {
    pub keys: Keys,
    pub gateway: Running,
    /// A, B and C.
    pub services: [Running; 3],
    /// What stands between each service and its caller.
    pub links: [Link; 3],
    _folder: TempDir,
}

/// The way to one service.
#[derive(Debug)]
pub struct Link {
    /// What the service received on this way.
    pub recorder: Recorder,
    /// Cuts or stalls the way.
    pub network: Proxy,
}

impl Plan {
    /// Databases and keyspaces of their own on this test process' servers.
    pub fn new() -> anyhow::Result<Self> {
        use servicechain_fixtures::shared;
        Ok(Self {
            stores: [shared()?, shared()?, shared()?],
            pauses: Default::default(),
            cache_ttl: "60s",
            timeout: "5s",
        })
    }
}

impl Chain {
    /// Starts the last service first, and waits until every hop is ready.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        show_logs_of_failures();
        let folder = tempfile::tempdir()?;
        let keys = Keys::new();
        let bundle = keys.write_bundle(folder.path())?;
        let mut started = Vec::new();
        let mut next: Option<(&str, SocketAddr)> = None;
        for ((name, stores), pauses) in SERVICES.into_iter().zip(&plan.stores).zip(&plan.pauses).rev() {
            let places = Places {
                database_url: stores.database_url.clone(),
                redis_url: Some(stores.redis_url.clone()),
                next_hop_url: next.map(|(_, address)| format!("http://{address}")),
            };
            let yaml = service_yaml(name, next.map(|(name, _)| name), plan.cache_ttl);
            let config = item_service::Config::from_yaml(&yaml, &places)?;
            let mut verifier = keys.verifier(name, &bundle)?;
            verifier.hop = config.hop.clone();
            let listeners = Listeners::on_loopback()?;
            let (address, admin) = (listeners.main.local_addr()?, listeners.admin.local_addr()?);
            let lifecycle = Lifecycle::new(Duration::ZERO, Duration::ZERO);
            let run = item_service::run_with(
                config,
                verifier,
                listeners,
                Arc::clone(&lifecycle),
                pauses.clone(),
            );
            let running = Running::new(address, admin, lifecycle, run).ready().await;
            let running = running.with_context(|| format!("service {name}"))?;
            let recorder = Recorder::before(address).await?;
            let network = Proxy::start(recorder.address())?;
            next = Some((name, network.address()));
            started.push((running, Link { recorder, network }));
        }
        let first = next.map(|(_, address)| address).context("a chain has services")?;
        let yaml = gateway_yaml(first, plan.timeout);
        let gateway = gateway(&yaml, keys.verifier("gateway", &bundle)?, DrainTimes::default())
            .await
            .context("gateway")?;
        let (services, links): (Vec<_>, Vec<_>) = started.into_iter().rev().unzip();
        let (Ok(services), Ok(links)) = (services.try_into(), links.try_into()) else {
            anyhow::bail!("a chain has three services");
        };
        Ok(Self {
            keys,
            gateway,
            services,
            links,
            _folder: folder,
        })
    }

    /// Every hop by name, first to last, and the ways that lead on from it.
    #[must_use]
    pub fn hop(&self, name: &str) -> (SocketAddr, &[Link]) {
        match SERVICES.iter().position(|service| *service == name) {
            Some(index) => (self.services[index].address, &self.links[index + 1..]),
            None => (self.gateway.address, &self.links),
        }
    }
}

fn service_yaml(name: &str, next: Option<&str>, cache_ttl: &str) -> String {
    let mut yaml = format!(
        "hop: {{name: {name}}}\ncacheTTL: {cache_ttl}\nauthorization:\n\
         - {{methods: [GET, HEAD], pathPrefix: /, scopes: [\"items:read\"]}}\n\
         - {{methods: [PUT], pathPrefix: /, scopes: [\"items:write\"]}}\n"
    );
    if let Some(next) = next {
        let _ = writeln!(yaml, "nextHop: {next}");
    }
    yaml
}

/// One route as every chain has it, and one on which a token may be absent.
fn gateway_yaml(first: SocketAddr, timeout: &str) -> String {
    format!(
        "hop: {{name: gateway}}\nworkers: 1\nlimits: {{requestBytes: 100000, headerBytes: 32768}}\ntimeout: {timeout}\nroutes:\n\
         - {{name: items, pathPrefix: /, upstream: \"http://{first}\", service: a}}\n\
         - {{name: open, pathPrefix: /open, upstream: \"http://{first}\", service: a, authentication: Optional}}\n"
    )
}
