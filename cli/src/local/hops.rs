//! The parts of the chain as tasks of this process: started together, ready together, and drained from the entrance
//! to the end, so that what is under way still finds everything it needs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use servicechain_auth::{Hop, VerifierConfig};
use servicechain_keys::Workload;
use servicechain_operator::key_controller::Roots;
use servicechain_runtime::clock::Clock;
use servicechain_runtime::lifecycle::Lifecycle;
use tokio::task::JoinSet;

use super::addresses::{Bound, Gateway};
use super::configuration::Plan;
use super::publisher::{Authorities, pod_of};

/// Nobody balances load here, so nobody has to notice first.
const DRAIN_DELAY: Duration = Duration::ZERO;
/// For what is under way: whoever pressed Ctrl-C waits for it.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Hops {
    tasks: JoinSet<(String, anyhow::Result<()>)>,
    gateway: Arc<Lifecycle>,
    behind: Vec<(String, Arc<Lifecycle>)>,
}

impl Hops {
    pub(crate) fn start(
        plan: Plan,
        bound: Bound,
        gateway: Gateway,
        roots: &Roots,
        folder: &Path,
        bundle_file: &Path,
        authorities: &Authorities,
    ) -> anyhow::Result<Self> {
        let verifier = |hop: Hop| {
            let mut config = verifier(hop, roots, folder, bundle_file)?;
            authorities.tell(&mut config)?;
            anyhow::Ok(config)
        };
        let mut tasks = JoinSet::new();
        let mut behind = Vec::new();
        for (part, config) in bound.issuers.into_iter().zip(plan.issuers) {
            let lifecycle = Lifecycle::new(DRAIN_DELAY, GRACE);
            let verifier = verifier(Hop::new(part.name.clone()))?;
            behind.push((part.name.clone(), Arc::clone(&lifecycle)));
            tasks.spawn(async move {
                (
                    part.name,
                    servicechain_token_issuer::run(config, verifier, part.listeners, lifecycle).await,
                )
            });
        }
        for (part, config) in bound.services.into_iter().zip(plan.services) {
            let lifecycle = Lifecycle::new(DRAIN_DELAY, GRACE);
            let verifier = verifier(config.hop.clone())?;
            behind.push((part.name.clone(), Arc::clone(&lifecycle)));
            tasks.spawn(async move {
                (
                    part.name,
                    servicechain_item_service::run(config, verifier, part.listeners, lifecycle).await,
                )
            });
        }
        let entrance = Lifecycle::new(DRAIN_DELAY, GRACE);
        let verifier = verifier(plan.gateway.verifier_hop())?;
        let (config, lifecycle) = (plan.gateway, Arc::clone(&entrance));
        tasks.spawn(async move {
            (
                "gateway".to_owned(),
                servicechain_gateway::run(config, verifier, gateway.listeners, lifecycle).await,
            )
        });
        Ok(Self {
            tasks,
            gateway: entrance,
            behind,
        })
    }

    /// Waits until every part is ready.
    pub(crate) async fn ready(&mut self, within: Duration) -> anyhow::Result<()> {
        let all = async {
            for lifecycle in self
                .behind
                .iter()
                .map(|(_, lifecycle)| lifecycle)
                .chain([&self.gateway])
            {
                lifecycle.ready().await;
            }
        };
        tokio::select! {
            ended = first_end(&mut self.tasks) => ended,
            ready = tokio::time::timeout(within, all) => match ready {
                Ok(()) => Ok(()),
                Err(_) => bail!("the chain is not ready after {within:?}: {}", self.not_ready()),
            },
        }
    }

    /// Waits until a part ends that nobody told to.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        first_end(&mut self.tasks).await
    }

    pub(crate) async fn drain(&mut self) {
        self.gateway.drain();
        self.gateway.closed().await;
        for (_, lifecycle) in &self.behind {
            lifecycle.drain();
        }
        for (_, lifecycle) in &self.behind {
            lifecycle.closed().await;
        }
        let _ = tokio::time::timeout(GRACE, async { while self.tasks.join_next().await.is_some() {} }).await;
    }

    fn not_ready(&self) -> String {
        let parts = self
            .behind
            .iter()
            .map(|(name, lifecycle)| (name.as_str(), lifecycle));
        let waiting = parts
            .chain([("gateway", &self.gateway)])
            .filter(|(_, lifecycle)| !lifecycle.is_ready());
        waiting
            .map(|(name, lifecycle)| format!("{name} waits for {}", lifecycle.not_ready().join(", ")))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

async fn first_end(tasks: &mut JoinSet<(String, anyhow::Result<()>)>) -> anyhow::Result<()> {
    match tasks.join_next().await {
        Some(Ok((name, Ok(())))) => Err(anyhow!("{name} ended by itself")),
        Some(Ok((name, Err(error)))) => Err(error.context(format!("{name} cannot go on"))),
        Some(Err(lost)) => Err(anyhow!(lost)).context("a part of the chain was lost"),
        None => bail!("there is no part of the chain left"),
    }
}

/// The bundle's file is the authority on keys, where nobody else is named.
fn verifier(hop: Hop, roots: &Roots, folder: &Path, bundle_file: &Path) -> anyhow::Result<VerifierConfig> {
    let name = hop.name.clone();
    let workload = Workload::new(name.clone())?;
    let clock = Clock::system().as_fn();
    let mut config = VerifierConfig::new(roots.trust(), pod_of(&name)?, workload.clone(), hop, clock);
    config.ack_key = Some(roots.ack_key(&workload));
    config.bundle_file = Some(bundle_file.to_owned());
    let state = folder.join("state").join(&name);
    std::fs::create_dir_all(&state).with_context(|| format!("{} cannot be made", state.display()))?;
    config.state_dir = Some(state);
    Ok(config)
}
