//! Whoever keeps something open for a caller (a streamed answer) judges it again at every bundle. A generation is
//! acknowledged only once all of them have: then nobody is served any more whom it revokes (key protocol, line 16).

use std::sync::PoisonError;
use std::time::Duration;

use servicechain_keys::Generation;
use tokio::sync::watch;

use super::{Judged, Verifier};
use crate::caller::Caller;
use crate::verify::still_holds;

/// Judging what is open takes milliseconds. A follower that takes longer delays the acknowledgement, not this pod's
/// answer: it says what it holds, and that it cannot be counted on yet.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

/// One who judges again; from [`Verifier::follow`]. When it is dropped nobody waits for it any more.
#[derive(Debug)]
pub struct Follower {
    generations: watch::Receiver<Generation>,
    judged: watch::Sender<Generation>,
}

impl Follower {
    /// Waits for a bundle that is newer than the one before, and says its generation. Whoever stops waiting misses none.
    pub async fn newer(&mut self) -> Generation {
        if self.generations.changed().await.is_err() {
            // The verifier is gone, and with it whoever could bring another.
            std::future::pending::<()>().await;
        }
        *self.generations.borrow()
    }

    /// All that is open was judged by this generation or a newer one, and what it refuses is ended.
    pub fn judged(&self, generation: Generation) {
        self.judged.send_if_modified(|judged| {
            let is_newer = generation > *judged;
            *judged = generation.max(*judged);
            is_newer
        });
    }
}

impl Verifier {
    /// From here on no generation is acknowledged that the follower has not judged by. It holds nothing open yet.
    #[must_use]
    pub fn follow(&self) -> Follower {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = self.generations.subscribe();
        let judged = watch::Sender::new(*generations.borrow());
        followers.retain(|follower| follower.has_changed().is_ok());
        followers.push(judged.subscribe());
        Follower { generations, judged }
    }

    /// Whether the caller's token would pass now, by the newest bundle. Where nothing but revocations and other keys
    /// have changed it costs no signature check and counts nothing; else it is judged anew, and counted as a request is.
    #[must_use]
    pub fn is_still_good(&self, caller: &Caller) -> bool {
        let holds = {
            let held = self.held.load();
            held.as_deref().is_some_and(|bundle| {
                bundle.generation() >= self.generation()
                    && still_holds(caller.verdict(), bundle, &self.config.hop, self.now())
            })
        };
        holds || matches!(self.judge_again(caller), Judged::Verified(_))
    }

    /// Whether every follower has judged by this generation or a newer one.
    pub(super) fn is_followed(&self, generation: Generation) -> bool {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers
            .iter()
            .all(|follower| *follower.borrow() >= generation || follower.has_changed().is_err())
    }

    /// Waits until every follower has judged by the generation that is held, but not for ever.
    pub(super) async fn followed(&self) {
        let held = self.generation();
        let followers = self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let all = async {
            for mut follower in followers {
                // One that is gone has ended what it kept open.
                let _ = follower.wait_for(|judged| *judged >= held).await;
            }
        };
        if tokio::time::timeout(FOLLOWED_WITHIN, all).await.is_err() {
            tracing::warn!(
                generation = held.number(),
                "what is open was not judged by the newest keys in time, so they are not acknowledged yet"
            );
        }
    }
}
