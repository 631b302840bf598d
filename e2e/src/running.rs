//! Hops running in this process through their `run` functions, as `servicechain local` runs them.

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::bail;
use axum::Router;
use servicechain_auth::VerifierConfig;
use servicechain_fixtures::await_condition;
use servicechain_gateway as gateway;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::{Listeners, listen};
use servicechain_runtime::serve::{Limits, serve};
use servicechain_token_issuer as token_issuer;
use tokio::task::JoinHandle;

use crate::client::get;

/// Long enough for a machine that compiles beside the tests.
pub const START: Duration = Duration::from_secs(30);

/// A hop or an upstream; dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    /// Health and metrics; of a plain upstream the same as `address`.
    pub admin: SocketAddr,
    pub lifecycle: Arc<Lifecycle>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// How long a hop keeps accepting when drained, and how long it then waits.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    pub delay: Duration,
    pub grace: Duration,
}

impl Default for DrainTimes {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(600),
            grace: Duration::from_secs(10),
        }
    }
}

impl Running {
    pub(crate) fn new(
        address: SocketAddr,
        admin: SocketAddr,
        lifecycle: Arc<Lifecycle>,
        run: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            address,
            admin,
            lifecycle,
            task: tokio::spawn(run),
        }
    }

    /// Waits until it is ready; an early end is an error that says why.
    pub async fn ready(mut self) -> anyhow::Result<Self> {
        let ready = await_condition("a hop to be ready", START, async || {
            if self.lifecycle.is_ready() || self.task.is_finished() {
                return Ok(());
            }
            Err(self.lifecycle.not_ready().join(", "))
        });
        ready.await?;
        if self.task.is_finished() {
            (&mut self.task).await??;
            bail!("a hop ended before it was ready");
        }
        Ok(self)
    }

    /// Waits for the end of a drained hop.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        tokio::time::timeout(START, &mut self.task).await??
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lifecycle.end_at_once();
        self.task.abort();
    }
}

/// Starts a gateway replica from its YAML document.
pub async fn gateway(yaml: &str, verifier: VerifierConfig, times: DrainTimes) -> anyhow::Result<Running> {
    show_logs_of_failures();
    let config = gateway::Config::from_yaml(yaml)?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = gateway::Listeners {
        main: gateway::bind(any, config.worker_threads())?,
        admin: listen(any)?,
        keys: listen(any)?,
    };
    let (address, admin) = (listeners.main[0].local_addr()?, listeners.admin.local_addr()?);
    let lifecycle = Lifecycle::new(times.delay, times.grace);
    let run = gateway::run(config, verifier, listeners, Arc::clone(&lifecycle));
    Running::new(address, admin, lifecycle, run).ready().await
}

/// Starts an issuer. Nobody takes its keys, so it answers and signs nothing.
pub async fn issuer(yaml: &str, verifier: VerifierConfig) -> anyhow::Result<Running> {
    show_logs_of_failures();
    let config = token_issuer::Config::from_yaml(yaml)?;
    let listeners = Listeners::on_loopback()?;
    let (address, admin) = (listeners.main.local_addr()?, listeners.admin.local_addr()?);
    let lifecycle = Lifecycle::new(Duration::ZERO, Duration::ZERO);
    let run = token_issuer::run(config, verifier, listeners, Arc::clone(&lifecycle));
    let running = Running::new(address, admin, lifecycle, run);
    let serves = await_condition("an issuer to serve", START, async || {
        get(address, "/.well-known/openid-configuration", None)
            .await
            .map_err(|error| format!("{error:#}"))
    });
    serves.await?;
    Ok(running)
}

/// Starts an upstream of the test's own.
pub async fn upstream(router: Router) -> anyhow::Result<Running> {
    show_logs_of_failures();
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let lifecycle = Lifecycle::new(Duration::ZERO, Duration::ZERO);
    lifecycle.gate("upstream").open();
    let serving = serve(listener, router, Arc::clone(&lifecycle), Limits::default());
    Running::new(address, address, lifecycle, async { Ok(serving.await?) })
        .ready()
        .await
}

/// The test harness shows what a test wrote only if the test fails.
pub fn show_logs_of_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing_subscriber::filter::LevelFilter::INFO);
        // Somebody else's subscriber is as good.
        let _ = lines.try_init();
    });
}
