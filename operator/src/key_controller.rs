//! The keys of chains: for each a loop of rounds, each of which asks every pod, decides with `keys::rotation`, publishes
//! and pushes. The rounds must not know whether they run on Kubernetes ([`KeyChains`]) or on one machine
//! ([`KeyController`]).

pub mod bundle_file;
pub mod chains;
mod clock_offset;
mod config_map_store;
pub mod desired;
mod evidence;
pub mod external;
mod foreign;
mod incident;
pub mod knock;
pub mod news;
mod place;
mod pod_list;
mod publish;
mod push;
pub mod revocation_status;
pub mod revocations;
pub mod roots;
mod rounds;
mod show;
pub mod state;
mod step;
pub mod trust_keys;
pub mod trust_rotation;
pub mod trust_secret;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;

use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::ObjectKey;
use servicechain_keys::Workload;
use servicechain_keys::rotation::{Desired, ListedPod};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use bundle_file::BundleFile;
pub use chains::KeyChains;
pub use config_map_store::FIELD_MANAGER;
pub use place::{Claim, PlaceError, ROTATE_ANNOTATION, Stored};
pub use pod_list::KEYS_PORT;
pub(crate) use pod_list::is_ready;
pub use push::Unheard;
pub use roots::{Missing, OperatorRoots, Roots};
pub use state::{KeyState, Laggard, PodKeys};
pub use trust_keys::TrustKeys;
pub use trust_rotation::TrustRotation;

use crate::clock::Clock;
use chains::Seat;
use evidence::Evidence;
use external::{ExternalIssuers, FetchRules};
use foreign::Foreign;
use knock::KnockPort;
use place::{Local, Place};
use push::Messenger;
use rounds::Rounds;
use step::Leader;
use witness::{Watched, Witness};

/// A pod to be asked.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What people know it by.
    pub name: String,
    pub listed: ListedPod,
    pub workload: Workload,
    /// Host and port of its keys port; without one it cannot be asked yet.
    pub keys_address: Option<String>,
}

/// The running loop of one chain on this machine, over a file. It ends when its token is cancelled.
#[derive(Debug)]
pub struct KeyController {
    desired: watch::Sender<Desired>,
    pods: watch::Sender<Vec<Pod>>,
    state: watch::Receiver<Arc<KeyState>>,
    roots: Roots,
    seat: Arc<Seat>,
    task: JoinHandle<()>,
}

impl KeyController {
    /// Starts the loop on the current tokio runtime, with no pods yet.
    #[must_use]
    pub fn start(
        roots: Roots,
        store: BundleFile,
        clock: Clock,
        desired: Desired,
        shutdown: CancellationToken,
    ) -> Self {
        Self::start_with(roots, store, clock, desired, Foreign::default(), shutdown)
    }

    /// Starts the loop for a chain as it is written. `value_of` finds a key of a `ConfigMap`, or says why it is not there.
    #[must_use]
    pub fn of_chain(
        chain: &ValidatedChain,
        value_of: impl Fn(&ObjectKey) -> Result<String, String>,
        roots: Roots,
        store: BundleFile,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Self {
        let foreign = Foreign::new(chain, value_of);
        let id = roots.chain.clone();
        let desired = desired::desired(chain, id, Vec::new(), None, &foreign.given);
        Self::start_with(roots, store, clock, desired, foreign, shutdown)
    }

    fn start_with(
        roots: Roots,
        store: BundleFile,
        clock: Clock,
        desired: Desired,
        foreign: Foreign,
        shutdown: CancellationToken,
    ) -> Self {
        let (desired, desired_changes) = watch::channel(desired);
        let (pods, pod_changes) = watch::channel(Vec::new());
        let woken = Arc::new(Notify::new());
        // Who runs this could call anybody as well without it.
        let rules = FetchRules::unrestricted();
        let external = ExternalIssuers::new(rules, Arc::clone(&clock), Arc::clone(&woken));
        let external = Arc::new(external);
        external.follow(foreign.sources, foreign.standings);
        let watched = Watched::Local {
            store: store.clone(),
            pods: pods.subscribe(),
        };
        let place = Place::Local(Local {
            store,
            desired: desired_changes,
            pods: pod_changes,
            external: Arc::clone(&external),
        });
        let leader = leader(roots.clone(), place, clock);
        let state = leader.state.subscribe();
        let seat = Arc::new(Seat {
            namespace: Arc::default(),
            witness: Witness::new(watched, Arc::clone(&leader.evidence)),
            messenger: Arc::clone(&leader.messenger),
            woken: Arc::clone(&woken),
            external,
            evidence: Arc::clone(&leader.evidence),
        });
        let rounds = Rounds {
            leader,
            woken,
            shutdown,
        };
        Self {
            desired,
            pods,
            state,
            roots,
            seat,
            task: tokio::spawn(rounds.run()),
        }
    }

    /// Where this chain's verifiers may knock.
    #[must_use]
    pub fn knock_port(&self) -> KnockPort {
        KnockPort::local(self.roots.clone(), Arc::clone(&self.seat))
    }

    pub fn set_desired(&self, desired: Desired) {
        self.desired.send_replace(desired);
    }

    /// All pods there are now. One that is no longer among them has vanished.
    pub fn set_pods(&self, pods: Vec<Pod>) {
        self.pods.send_replace(pods);
    }

    /// What is known after each round.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<KeyState>> {
        self.state.clone()
    }

    /// Asks every pod now, rather than at the next poll.
    pub fn wake(&self) {
        self.seat.woken.notify_one();
    }

    /// Returns once the loop has ended.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the key controller's loop ended badly");
        }
    }
}

/// One that knows nothing yet.
fn leader(roots: Roots, place: Place, clock: Clock) -> Leader {
    Leader {
        messenger: Arc::new(Messenger::new(&roots)),
        roots,
        place,
        clock,
        evidence: Evidence::new(),
        state: watch::Sender::default(),
        audience: None,
        lags: BTreeMap::new(),
        told: Vec::new(),
        last_answers: 0,
        pulse: None,
        issuers: BTreeMap::new(),
        metrics: None,
    }
}

/// An error with its causes, in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
