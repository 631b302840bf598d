//! The keys of one chain: a loop of rounds until shut down, each of which asks every pod, decides with
//! `keys::rotation`, publishes and pushes. It must not know where the list of pods and what is desired come from.

pub mod bundle_file;
pub mod desired;
mod publish;
mod push;
pub mod state;
mod step;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use servicechain_keys::rotation::{Desired, ListedPod};
use servicechain_keys::{ChainId, RootSecret, TrustKey, Workload};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use bundle_file::BundleFile;
pub use push::Unheard;
pub use state::KeyState;
use step::{After, Leader};

/// Changes that come together are published together.
const GATHER: Duration = Duration::from_millis(200);
/// How often every pod is asked when nothing happens.
const POLL: Duration = Duration::from_secs(30);
/// The first and the longest pause while something is still to be done; it doubles while nothing moves.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The time of day; a parameter, so that a test can move it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What authenticates one chain's bundles and answers.
#[derive(Debug)]
pub struct Roots {
    pub chain: ChainId,
    pub trust: TrustKey,
    pub secret: RootSecret,
}

/// A pod to be asked.
#[derive(Clone, Debug)]
pub struct Pod {
    pub listed: ListedPod,
    pub workload: Workload,
    /// Host and port of its keys port; without one it cannot be asked yet.
    pub keys_address: Option<String>,
}

/// The running loop of one chain. It ends when its token is cancelled.
#[derive(Debug)]
pub struct KeyController {
    desired: watch::Sender<Desired>,
    pods: watch::Sender<Vec<Pod>>,
    state: watch::Receiver<Arc<KeyState>>,
    woken: Arc<Notify>,
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
        let (desired, desired_changes) = watch::channel(desired);
        let (pods, pod_changes) = watch::channel(Vec::new());
        let (published, state) = watch::channel(Arc::new(KeyState::default()));
        let woken = Arc::new(Notify::new());
        let leader = Leader::new(
            roots,
            store,
            clock,
            desired_changes.clone(),
            pod_changes.clone(),
            published,
        );
        let rounds = Rounds {
            leader,
            desired: desired_changes,
            pods: pod_changes,
            woken: Arc::clone(&woken),
            shutdown,
        };
        Self {
            desired,
            pods,
            state,
            woken,
            task: tokio::spawn(rounds.run()),
        }
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
        self.woken.notify_one();
    }

    /// Returns once the loop has ended.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the key controller's loop ended badly");
        }
    }
}

struct Rounds {
    leader: Leader,
    desired: watch::Receiver<Desired>,
    pods: watch::Receiver<Vec<Pod>>,
    woken: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Rounds {
    async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        // A round is never given up between REPLACE and its end: what it wrote would look like somebody else's.
        let mut retry = RETRY.0;
        while !shutdown.is_cancelled() {
            self.desired.mark_unchanged();
            self.pods.mark_unchanged();
            let begun = Instant::now();
            let pause = match self.leader.round().await {
                Ok(After::InSync) => {
                    retry = RETRY.0;
                    POLL
                }
                Ok(After::Moved) => {
                    retry = RETRY.0;
                    Duration::ZERO
                }
                Ok(After::Waiting) => next_pause(&mut retry),
                Err(error) => {
                    tracing::warn!(error = %chain_of(&error), "a round of keys failed");
                    next_pause(&mut retry)
                }
            };
            tracing::debug!(took = ?begun.elapsed(), ?pause, "a round of keys");
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.woken.notified() => {}
                changed = changed(&mut self.desired, &mut self.pods) => {
                    if changed {
                        tokio::time::sleep(GATHER).await;
                    } else {
                        // Whoever asked for keys is gone.
                        return;
                    }
                }
            }
        }
    }
}

async fn changed(desired: &mut watch::Receiver<Desired>, pods: &mut watch::Receiver<Vec<Pod>>) -> bool {
    tokio::select! {
        changed = desired.changed() => changed.is_ok(),
        changed = pods.changed() => changed.is_ok(),
    }
}

fn next_pause(retry: &mut Duration) -> Duration {
    let pause = *retry;
    *retry = (pause * 2).min(RETRY.1);
    pause
}

/// An error with its causes, in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
