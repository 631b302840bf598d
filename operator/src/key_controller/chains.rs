//! The chains of this cluster whose keys are looked after: a loop of rounds for each, from the first reconcile that
//! meets the chain until it is gone. Nothing of it outlives the process; all of it is asked again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt as _};
use servicechain_crds::ServiceChain;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::evidence::Evidence;
use super::external::{ExternalIssuers, FetchRules};
use super::leader;
use super::news::{KeyEvent, News};
use super::place::{Cluster, Place, ROTATE_ANNOTATION};
use super::push::Messenger;
use super::roots::OperatorRoots;
use super::rounds::{POLL, Rounds};
use super::state::KeyState;
use super::witness::{Watched, Witness};
use crate::clock::Clock;
use crate::health::{Health, Pulse};
use crate::metrics::keys::KeyMetrics;

/// A round waits for many things, each for some seconds, and for the next poll. One that takes longer than all of them
/// hangs.
const STUCK_AFTER: Duration = POLL.saturating_add(Duration::from_mins(3));

/// Cheap to clone.
#[derive(Clone)]
pub struct KeyChains(Arc<Shared>);

struct Shared {
    client: Client,
    rules: FetchRules,
    roots: OperatorRoots,
    clock: Clock,
    health: Health,
    metrics: KeyMetrics,
    news: Arc<News>,
    chains: Mutex<HashMap<String, Tracked>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One chain.
struct Tracked {
    chain: ObjectRef<ServiceChain>,
    order: Order,
    state: watch::Receiver<Arc<KeyState>>,
    seat: Arc<Seat>,
    shutdown: CancellationToken,
    /// The leader's, held here too, so that a loop that panics is missed.
    _pulse: Arc<Pulse>,
}

/// What a change of makes another round worth while: the seal of the spec that is kept, and the order to rotate.
type Order = (String, Option<String>);

/// Where those who answer knocks find a chain.
pub(super) struct Seat {
    /// Of the chain; empty on one machine.
    pub namespace: Arc<str>,
    pub witness: Witness,
    pub messenger: Arc<Messenger>,
    pub woken: Arc<Notify>,
    pub external: Arc<ExternalIssuers>,
    pub evidence: Arc<Evidence>,
}

impl KeyChains {
    /// `client` writes bundles; `health` is told of every loop; `rules` are for fetches of external issuers' keys.
    #[must_use]
    pub fn new(
        client: Client,
        roots: OperatorRoots,
        clock: Clock,
        health: Health,
        rules: FetchRules,
        metrics: KeyMetrics,
    ) -> Self {
        Self(Arc::new(Shared {
            metrics,
            rules,
            client,
            roots,
            clock,
            health,
            news: News::new(),
            chains: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Looks after the chain's keys from now on, on the current tokio runtime, by the spec that is kept under this `seal`.
    /// Where it is looked after already, another seal or another order to rotate is looked at now.
    pub fn track(&self, chain: &ServiceChain, seal: &str) {
        let Some(uid) = chain.uid() else { return };
        let order = (
            seal.to_owned(),
            chain.annotations().get(ROTATE_ANNOTATION).cloned(),
        );
        let mut chains = self.0.chains();
        if let Some(tracked) = chains.get_mut(&uid) {
            if tracked.order != order {
                tracked.order = order;
                tracked.seat.woken.notify_one();
            }
            return;
        }
        if let Some(tracked) = self.0.start(chain, order) {
            chains.insert(uid, tracked);
        }
    }

    /// The chain is gone, or somebody else's. Its loop ends after the round it is in.
    pub fn forget(&self, uid: &str) {
        if let Some(tracked) = self.0.chains().remove(uid) {
            tracked.shutdown.cancel();
        }
    }

    /// Asks every pod of the chain now, rather than at the next poll: pods came or went, or a Revocation did.
    pub fn wake(&self, uid: &str) {
        if let Some(tracked) = self.0.chains().get(uid) {
            tracked.seat.woken.notify_one();
        }
    }

    /// Other trust keys: every chain's pods are to know them, and they may sign its next bundle.
    pub(super) fn trust_changed(&self) {
        for tracked in self.0.chains().values() {
            tracked.seat.woken.notify_one();
            self.0.news.change(&tracked.chain);
        }
    }

    /// What the last round found; none before the first.
    #[must_use]
    pub fn state(&self, uid: &str) -> Option<Arc<KeyState>> {
        let chains = self.0.chains();
        let state = chains.get(uid)?.state.borrow().clone();
        (*state != KeyState::default()).then_some(state)
    }

    /// Whether the chain's first bundle is in its `ConfigMap`. Before that, nothing that runs pods may be made.
    #[must_use]
    pub fn bundle_exists(&self, uid: &str) -> bool {
        self.state(uid).is_some_and(|state| state.newest.is_some())
    }

    /// Chains whose state changed, each once however often it did. For one listener.
    pub fn changes(&self) -> impl Stream<Item = ObjectRef<ServiceChain>> + Send + 'static {
        Arc::clone(&self.0.news).changes()
    }

    /// What happens to keys from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<KeyEvent> {
        self.0.news.events()
    }

    #[must_use]
    pub fn roots(&self) -> &OperatorRoots {
        &self.0.roots
    }

    /// Ends every loop after the round it is in.
    pub async fn end(&self) {
        let chains: Vec<Tracked> = self.0.chains().drain().map(|(_, tracked)| tracked).collect();
        for tracked in &chains {
            tracked.shutdown.cancel();
        }
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    pub(super) fn seat(&self, uid: &str) -> Option<Arc<Seat>> {
        self.0.chains().get(uid).map(|tracked| Arc::clone(&tracked.seat))
    }
}

impl Shared {
    fn chains(&self) -> MutexGuard<'_, HashMap<String, Tracked>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, chain: &ServiceChain, order: Order) -> Option<Tracked> {
        let woken = Arc::new(Notify::new());
        let external = ExternalIssuers::new(self.rules.clone(), Arc::clone(&self.clock), Arc::clone(&woken));
        let external = Arc::new(external);
        let cluster = Cluster::new(
            self.client.clone(),
            Arc::clone(&self.roots.secret),
            chain,
            Arc::clone(&external),
            self.rules.clone(),
        )?;
        let roots = self.roots.of(cluster.chain().clone());
        let mut leader = leader(
            roots,
            Place::Cluster(Box::new(cluster.clone())),
            Arc::clone(&self.clock),
        );
        leader.audience = Some((ObjectRef::from_obj(chain), Arc::clone(&self.news)));
        let namespace = chain.namespace().unwrap_or_default();
        leader.metrics = Some(self.metrics.of_chain(namespace, chain.name_any()));
        let what = format!(
            "the keys of chain {}/{}",
            chain.namespace().unwrap_or_default(),
            chain.name_any()
        );
        let pulse = Arc::new(self.health.expect(what, STUCK_AFTER));
        let shutdown = CancellationToken::new();
        let tracked = Tracked {
            chain: ObjectRef::from_obj(chain),
            order,
            state: leader.state.subscribe(),
            seat: Arc::new(Seat {
                namespace: chain.namespace().unwrap_or_default().into(),
                witness: Witness::new(Watched::Cluster(Box::new(cluster)), Arc::clone(&leader.evidence)),
                messenger: Arc::clone(&leader.messenger),
                woken: Arc::clone(&woken),
                external,
                evidence: Arc::clone(&leader.evidence),
            }),
            shutdown: shutdown.clone(),
            _pulse: Arc::clone(&pulse),
        };
        leader.pulse = Some(pulse);
        let rounds = Rounds {
            leader,
            woken,
            shutdown,
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(rounds.run());
        Some(tracked)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let chains = self.chains.get_mut().unwrap_or_else(PoisonError::into_inner);
        for tracked in chains.values() {
            tracked.shutdown.cancel();
        }
    }
}

impl fmt::Debug for KeyChains {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chains = self.0.chains().len();
        formatter
            .debug_struct("KeyChains")
            .field("chains", &chains)
            .finish_non_exhaustive()
    }
}
