//! The loop of rounds of one chain: when the next one begins. It ends when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chain_of;
use super::step::{After, Leader};
use crate::health::Pulse;

/// Changes that come together are published together.
const GATHER: Duration = Duration::from_millis(200);
/// How often every pod is asked when nothing happens.
pub(super) const POLL: Duration = Duration::from_secs(30);
/// The first and the longest pause while something is still to be done; it doubles while nothing moves.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

pub(super) struct Rounds {
    pub leader: Leader,
    pub woken: Arc<Notify>,
    pub shutdown: CancellationToken,
    /// Beats with every round. Whoever started the loop has it too: a loop that panics is missed.
    pub pulse: Option<Arc<Pulse>>,
}

impl Rounds {
    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let mut retry = RETRY.0;
        // A round is never given up between REPLACE and its end: what it wrote would look like somebody else's.
        while !shutdown.is_cancelled() {
            if let Some(pulse) = &self.pulse {
                pulse.beat();
            }
            let begun = Instant::now();
            let pause = match self.leader.round().await {
                Ok(After::InSync | After::Gone) => {
                    retry = RETRY.0;
                    POLL
                }
                Ok(After::Moved) => {
                    retry = RETRY.0;
                    Duration::ZERO
                }
                Ok(After::Waiting) => next_pause(&mut retry),
                Err(error) => {
                    tracing::warn!(chain = %self.leader.roots.chain, error = %chain_of(&error), "a round of keys failed");
                    self.leader.fail(&error);
                    next_pause(&mut retry)
                }
            };
            tracing::debug!(took = ?begun.elapsed(), ?pause, "a round of keys");
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.woken.notified() => tokio::time::sleep(GATHER).await,
                changed = self.leader.place.changed() => match changed {
                    Ok(()) => tokio::time::sleep(GATHER).await,
                    // Whoever asked for keys is gone.
                    Err(_) => return,
                },
            }
        }
    }
}

fn next_pause(retry: &mut Duration) -> Duration {
    let pause = *retry;
    *retry = (pause * 2).min(RETRY.1);
    pause
}
