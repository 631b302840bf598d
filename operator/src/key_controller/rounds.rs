//! The loop of rounds of one chain: when the next one begins. It ends when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chain_of;
use super::step::{After, Leader};
use crate::trace;

/// Changes that come together are published together.
const GATHER: Duration = Duration::from_millis(200);
/// How often every pod is asked when nothing happens.
pub(super) const POLL: Duration = Duration::from_secs(30);
/// The first and the longest pause while something is still to be done; it doubles while nothing moves.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Rounds that follow at once because something moved; one comes back every other second. A pod that answers now and
/// then moves something for ever, and each round costs the API server half a dozen requests.
const AT_ONCE: (u32, Duration) = (30, Duration::from_secs(2));

pub(super) struct Rounds {
    pub leader: Leader,
    pub woken: Arc<Notify>,
    pub shutdown: CancellationToken,
}

impl Rounds {
    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let (namespace, chain) = match &self.leader.audience {
            Some((chain, _)) => (chain.namespace.clone().unwrap_or_default(), chain.name.clone()),
            None => (String::new(), self.leader.roots.chain.to_string()),
        };
        let mut pace = Pace::new();
        // A round is never given up between REPLACE and its end: what it wrote would look like somebody else's.
        while !shutdown.is_cancelled() {
            self.leader.beat();
            let begun = Instant::now();
            let round = trace::of_chain("round of keys", &namespace, &chain, self.leader.round());
            let pause = match round.await {
                Ok(after) => pace.after(after),
                Err(error) => {
                    tracing::warn!(chain = %self.leader.roots.chain, error = %chain_of(&error), "a round of keys failed");
                    self.leader.fail(&error);
                    pace.after(After::Waiting)
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

/// How long to pause between rounds.
struct Pace {
    retry: Duration,
    /// When all rounds that may follow at once will have come back.
    used_up: Instant,
}

impl Pace {
    fn new() -> Self {
        Self {
            retry: RETRY.0,
            used_up: Instant::now(),
        }
    }

    fn after(&mut self, round: After) -> Duration {
        match round {
            After::InSync | After::Gone => {
                self.retry = RETRY.0;
                POLL
            }
            After::Moved if self.may_follow_at_once() => {
                self.retry = RETRY.0;
                Duration::ZERO
            }
            After::Moved | After::Waiting => {
                let pause = self.retry;
                self.retry = (pause * 2).min(RETRY.1);
                pause
            }
        }
    }

    fn may_follow_at_once(&mut self) -> bool {
        let now = Instant::now();
        let (most, every) = AT_ONCE;
        let next = self.used_up.max(now) + every;
        let may = next <= now + every * most;
        if may {
            self.used_up = next;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_for_ever_is_followed_more_slowly() {
        let mut pace = Pace::new();
        let begun = Instant::now();
        let mut rounds = 0;
        while begun.elapsed() < Duration::from_mins(1) {
            // A pod that answers every other time.
            let after = [After::Moved, After::Waiting][rounds % 2];
            tokio::time::sleep(pace.after(after) + Duration::from_millis(1)).await;
            rounds += 1;
        }
        assert!((60..300).contains(&rounds), "{rounds}");
        tokio::time::advance(Duration::from_mins(1)).await;
        let at_once = (0..100).filter(|_| pace.after(After::Moved).is_zero()).count();
        assert_eq!(at_once, 30, "what comes by itself comes back");
    }
}
