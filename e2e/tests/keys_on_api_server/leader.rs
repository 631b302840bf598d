//! An operator's key controller in this process: its loops and its knock port, with or without a lease.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, ResourceExt as _};
use servicechain_crds::ServiceChain;
use servicechain_fixtures::await_condition;
use servicechain_operator::clock;
use servicechain_operator::health::Health;
use servicechain_operator::key_controller::external::FetchRules;
use servicechain_operator::key_controller::knock::{KnockPort, serve};
use servicechain_operator::key_controller::{KeyChains, KeyState, OperatorRoots};
use servicechain_operator::lease::LeaseState;
use servicechain_operator::metrics::keys::KeyMetrics;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take on a machine that is busy.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Leader {
    pub(crate) keys: KeyChains,
    pub(crate) health: Health,
    pub(crate) knock_address: SocketAddr,
    _shutdown: DropGuard,
}

impl Leader {
    pub(crate) async fn start(client: &Client, roots: &OperatorRoots, lease: LeaseState) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, client, roots, lease)
    }

    pub(crate) fn on(
        listener: TcpListener,
        client: &Client,
        roots: &OperatorRoots,
        lease: LeaseState,
    ) -> Self {
        let health = Health::default();
        let keys = KeyChains::new(
            client.clone(),
            roots.clone(),
            clock::system(),
            health.clone(),
            // The pods of these tests are on this machine.
            FetchRules::unrestricted(),
            KeyMetrics::default(),
        );
        let knock_address = listener.local_addr().unwrap();
        let router = KnockPort::new(keys.clone(), lease).router();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, router, shutdown.clone()));
        Self {
            keys,
            health,
            knock_address,
            _shutdown: shutdown.drop_guard(),
        }
    }

    /// As a pass that has kept the chain's spec.
    pub(crate) fn track(&self, chain: &ServiceChain) {
        self.keys.track(chain, "kept");
    }

    /// Waits until the chain's keys are as wanted, looking at every change.
    pub(crate) async fn await_state(
        &self,
        chain: &ServiceChain,
        what: &str,
        is_reached: impl Fn(&KeyState) -> bool,
    ) -> Arc<KeyState> {
        let uid = chain.uid().unwrap();
        await_condition(what, DEADLINE, async || match self.keys.state(&uid) {
            Some(state) if is_reached(&state) => Ok(state),
            state => Err(format!("{state:#?}")),
        })
        .await
        .unwrap()
    }

    pub(crate) async fn await_in_sync(&self, chain: &ServiceChain, verifiers: usize) -> Arc<KeyState> {
        let what = format!("{verifiers} verifiers in sync, and a key that signs");
        self.await_state(chain, &what, |state| {
            state.in_sync && state.verifiers == verifiers && state.active_key("platform").is_some()
        })
        .await
    }
}
