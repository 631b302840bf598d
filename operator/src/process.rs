//! The operator's process from its flags to its end: ports, readiness, the lease, and what a leader does. It decides
//! nothing about a chain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use clap::Parser as _;
use kube::{Client, Config};
use servicechain_runtime::{admin, crypto_provider, listeners, telemetry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Args, Settings};
use crate::controller::{self, Context};
use crate::events::Events;
use crate::health::Health;
use crate::key_controller::knock::{self, KnockPort};
use crate::key_controller::roots::RootsError;
use crate::key_controller::{KeyChains, Missing, OperatorRoots, TrustRotation};
use crate::lease::{Candidate, LeaseState};
use crate::metrics::Metrics;
use crate::streams::Watches;
use crate::{api_client, clock, schema};

const LEASE: &str = "servicechain-operator";
/// What its spans are said to come from.
const SERVICE: &str = "servicechain-operator";
/// Between two looks at what must be there before anything begins.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// What a leader that is told to end may take for what it has begun, within the 30 s that Kubernetes gives a pod.
const END_WITHIN: Duration = Duration::from_secs(20);

/// From the command line to the exit code.
#[must_use]
pub fn main() -> ExitCode {
    crypto_provider::install();
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init_process(&args.telemetry, SERVICE)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let ended = runtime.block_on(async {
        let config = Config::infer().await;
        let config =
            config.context("no API server is known: there is neither a service account nor a kubeconfig")?;
        Box::pin(run(args, config)).await
    });
    // Whoever lost the lease waits for nothing.
    runtime.shutdown_background();
    if let Err(error) = &ended {
        tracing::error!(error = format!("{error:#}"), "the operator ends");
    }
    ended
}

/// Runs until SIGTERM or SIGINT. An error is a reason to end at once: it could not begin, or it lost the lease.
async fn run(args: Args, config: Config) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let config = api_client::configure(config, &args.pod_name);
    let shutdown = end_on_signals()?;
    let (admin_port, knock_port) = (bind(args.admin_port)?, bind(args.knock_port)?);
    let knock_address = SocketAddr::new(args.pod_ip, knock_port.local_addr()?.port());

    let (health, metrics) = (Health::default(), Metrics::default());
    let admin = axum::serve(admin_port, admin(&health, &metrics));
    let _admin = AbortOnDropHandle::new(tokio::spawn(admin.into_future()));

    let plain = Client::try_from(config.clone()).context("the API server cannot be spoken to")?;
    if !until_schema_fits(&plain, &health, &shutdown).await {
        return Ok(());
    }
    let candidate = Candidate::new(
        plain,
        &args.operator_namespace,
        LEASE,
        &args.pod_name,
        knock_address,
        clock::system(),
    );
    let replica = Replica {
        // Not one write without the lease, wherever it is begun.
        client: api_client::guarded(config, candidate.state())
            .context("the API server cannot be spoken to")?,
        lease: candidate.state(),
        args,
        settings,
        health,
        metrics,
    };
    let (found, keys) = watch::channel(None);
    let knocks = async {
        replica.answer_knocks(knock_port, found, shutdown.clone()).await;
        std::future::pending().await
    };
    tokio::select! {
        ended = replica.lead(candidate, keys, shutdown.clone()) => ended,
        never = knocks => never,
    }
}

#[derive(Clone)]
struct Replica {
    args: Args,
    settings: Settings,
    client: Client,
    lease: LeaseState,
    health: Health,
    metrics: Metrics,
}

impl Replica {
    /// Returns when it was told to end and has, the lease released.
    async fn lead(
        &self,
        mut candidate: Candidate,
        keys: watch::Receiver<Option<KeyChains>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        tokio::select! {
            () = candidate.acquire() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        self.metrics.leads(true);
        let mut work = AbortOnDropHandle::new(tokio::spawn(self.clone().work(keys, shutdown)));
        tokio::select! {
            ended = &mut work => ended.context("what a leader does ended badly")??,
            lost = candidate.keep() => return Err(lost.into()),
        }
        candidate.release().await;
        Ok(())
    }

    /// What a leader does, until it is told to end.
    async fn work(
        self,
        mut keys: watch::Receiver<Option<KeyChains>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let keys = tokio::select! {
            keys = keys.wait_for(Option::is_some) => keys?.clone(),
            () = shutdown.cancelled() => return Ok(()),
        };
        let Some(keys) = keys else { return Ok(()) };
        let rotation = TrustRotation::new(
            self.client.clone(),
            self.args.operator_namespace.clone(),
            self.args.watch_namespace.clone(),
            keys.clone(),
            clock::system(),
        );
        tokio::select! {
            () = rotation.catch_up() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let _rotation = AbortOnDropHandle::new(tokio::spawn(rotation.run()));
        let events = Events::new(self.client.clone(), &self.args.pod_name);
        let _told = AbortOnDropHandle::new(tokio::spawn(events.clone().tell_of_keys(keys.events())));
        let context = Context {
            watches: Watches {
                client: self.client.clone(),
                namespace: self.args.watch_namespace.clone(),
                health: self.health,
                metrics: self.metrics,
            },
            client: self.client,
            settings: self.settings,
            keys: keys.clone(),
            events,
            clock: clock::system(),
        };
        let all = async {
            controller::run(Arc::new(context), shutdown.clone()).await;
            keys.end().await;
        };
        let too_long = async {
            shutdown.cancelled().await;
            tokio::time::sleep(END_WITHIN).await;
        };
        tokio::select! {
            () = all => {}
            () = too_long => tracing::warn!("what was begun did not end in time, and is left to the next leader"),
        }
        anyhow::ensure!(
            shutdown.is_cancelled(),
            "the passes over chains ended by themselves"
        );
        Ok(())
    }

    /// Every replica answers; who leads decides what.
    async fn answer_knocks(
        &self,
        port: TcpListener,
        found: watch::Sender<Option<KeyChains>>,
        shutdown: CancellationToken,
    ) {
        let roots = tokio::select! {
            roots = self.roots() => roots,
            () = shutdown.cancelled() => return,
        };
        let keys = KeyChains::new(
            self.client.clone(),
            roots,
            clock::system(),
            self.health.clone(),
            self.settings.fetch_rules.clone(),
            self.metrics.keys(),
        );
        found.send_replace(Some(keys.clone()));
        let router = KnockPort::new(keys, self.lease.clone()).router();
        knock::serve(port, router, shutdown).await;
    }

    /// A leader makes them where there are none; the others wait for that.
    async fn roots(&self) -> OperatorRoots {
        const GATE: &str = "roots of trust";
        let missing = if self.args.replace_lost_roots {
            Missing::MadeAnew
        } else {
            Missing::MadeOnce(self.args.watch_namespace.as_deref())
        };
        loop {
            match OperatorRoots::ensure(&self.client, &self.args.operator_namespace, missing).await {
                Ok(roots) => {
                    self.health.open(GATE);
                    return roots;
                }
                Err(RootsError::Api(error)) if !self.lease.is_surely_held() => {
                    tracing::debug!(error = %error.message(), "no roots of trust yet: {error}");
                }
                Err(error) => {
                    tracing::error!(%error, "there are no roots of trust");
                    self.health.close(GATE, error.to_string());
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// `/livez`, `/readyz` and `/metrics`.
fn admin(health: &Health, metrics: &Metrics) -> Router {
    let (alive, ready, metrics) = (health.clone(), health.clone(), metrics.clone());
    admin::of(
        move || alive.stuck(),
        move || ready.not_ready(),
        move || metrics.encode(),
    )
}

/// Not Ready, with a sentence, as long as the CRDs do not fit; `false` when it was told to end before they did.
async fn until_schema_fits(client: &Client, health: &Health, shutdown: &CancellationToken) -> bool {
    const GATE: &str = "schema";
    health.close(GATE, "the CRDs have not been read yet");
    while let Err(error) = schema::check(client).await {
        tracing::warn!(%error, "nothing is written before the CRDs fit");
        health.close(GATE, error.to_string());
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = shutdown.cancelled() => return false,
        }
    }
    health.open(GATE);
    true
}

fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let listen = |address: IpAddr| listeners::listen(SocketAddr::new(address, port));
    // Where there is no IPv6.
    let listener = listen(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into()))?;
    Ok(TcpListener::from_std(listener)?)
}

fn end_on_signals() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut received = signal(kind).context("signals cannot be received")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            received.recv().await;
            tracing::info!("told to end");
            shutdown.cancel();
        });
    }
    Ok(shutdown)
}
