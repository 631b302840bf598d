//! How a verifier begins and goes on (key protocol, line 16): the highest of what its directory and its file hold, a
//! knock, and readiness by the operator's word or after waiting for it. It owns the two background tasks.

use std::error::Error as _;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use servicechain_keys::{BundleRefusal, Generation, KnockReason};
use tokio::time::Instant;

use super::{UnconfirmedStart, Verifier, VerifierConfig};
use crate::verifier::Delivered;

/// How often the bundle file is read again.
const BETWEEN_READINGS: Duration = Duration::from_secs(10);
/// A pod knocks no more often.
pub(super) const BETWEEN_KNOCKS: Duration = Duration::from_secs(1);
/// Between knocks that brought no word, once readiness waits for it no more.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why a verifier does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("state directory {} cannot be used; mount a writable directory there", path.display())]
    StateDir {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("an operator to knock at is configured and no acknowledgement key; mount the workload's key")]
    NoAckKey,
    #[error("expected one or two trust anchors and found {0}")]
    Anchors(usize),
}

/// What the operator said since this verifier started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Awaited,
    /// The newest generation is this one.
    Newest(Generation),
    /// Nothing within `startupWait`.
    Silence,
}

impl Verifier {
    /// Reads what the state directory and the bundle file hold, and starts to knock and to read again, on the runtime
    /// it is called on. It does not wait until a bundle is there: [`Verifier::ready`] does.
    ///
    /// # Errors
    /// A configuration under which it could never become ready.
    pub async fn start(config: VerifierConfig) -> Result<Arc<Self>, StartError> {
        if !(1..=2).contains(&config.trust.anchors.len()) {
            return Err(StartError::Anchors(config.trust.anchors.len()));
        }
        if config.operator_url.is_some() && config.ack_key.is_none() {
            return Err(StartError::NoAckKey);
        }
        if let Some(path) = &config.state_dir {
            let made = tokio::fs::create_dir_all(path).await;
            made.map_err(|source| StartError::StateDir {
                path: path.clone(),
                source,
            })?;
        }
        let verifier = Self::new(config);
        verifier.inquiries.answer_on(tokio::runtime::Handle::current());
        let reader = Arc::clone(&verifier);
        let read = tokio::task::spawn_blocking(move || (reader.restore(), reader.deliver_file())).await;
        if let Ok((restored, delivered)) = read {
            warn_if_refused("state directory", restored);
            warn_if_refused("bundle file", delivered);
        }
        let mut tasks = verifier.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if verifier.config.bundle_file.is_some() {
            tasks.spawn(read_again(Weak::clone(&verifier.this)));
        }
        if verifier.config.operator_url.is_some() {
            tasks.spawn(keep_knocking(Weak::clone(&verifier.this)));
            tasks.spawn(give_up_waiting(
                Weak::clone(&verifier.this),
                verifier.config.startup_wait,
            ));
        }
        drop(tasks);
        Ok(verifier)
    }

    /// Waits until requests may be served: a bundle is held, as new as the operator's word, or the operator said
    /// nothing for `startupWait` and the configuration says to serve then.
    pub async fn ready(&self) {
        let mut generations = self.generations.subscribe();
        let mut words = self.word.subscribe();
        while !self.is_ready() {
            // Neither sender is dropped while `self` is borrowed.
            tokio::select! {
                _ = generations.changed() => {}
                _ = words.changed() => {}
            }
        }
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        let may_serve_unconfirmed = self.config.unconfirmed_start == UnconfirmedStart::Serve;
        let is_silent = *self.word.borrow() == Word::Silence;
        self.is_confirmed() || (self.held().is_some() && is_silent && may_serve_unconfirmed)
    }

    /// Whether what is held is as new as an authority said since the start.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        let generation = self.generation();
        let newest = match *self.word.borrow() {
            Word::Newest(newest) => newest,
            _ if self.config.operator_url.is_none() => Generation::default(),
            _ => return false,
        };
        generation > Generation::default() && generation >= newest
    }
}

fn warn_if_refused(place: &'static str, delivered: Option<Delivered>) {
    // A file that is older than what is held is the normal case after a restart.
    if let Some(reason) = delivered.and_then(|delivered| delivered.reason)
        && reason != BundleRefusal::Lower
    {
        tracing::warn!(reason = reason.word(), "key bundle of the {place} refused");
    }
}

async fn read_again(verifier: Weak<Verifier>) {
    loop {
        tokio::time::sleep(BETWEEN_READINGS).await;
        let Some(verifier) = verifier.upgrade() else {
            return;
        };
        if let Ok(delivered) = tokio::task::spawn_blocking(move || verifier.deliver_file()).await {
            warn_if_refused("bundle file", delivered);
        }
    }
}

/// Knocks until the operator answers, and from then on whenever it must be heard of again.
async fn keep_knocking(verifier: Weak<Verifier>) {
    let mut pause = BETWEEN_KNOCKS;
    loop {
        let Some(this) = verifier.upgrade() else { return };
        let due = this.knock_due();
        if due > Instant::now() {
            drop(this);
            tokio::time::sleep_until(due).await;
            continue;
        }
        match this.knock(KnockReason::Started, None).await {
            Ok(answer) => {
                this.heed(answer.generation.unwrap_or_default());
                pause = BETWEEN_KNOCKS;
            }
            Err(error) => {
                tracing::warn!(%error, cause = error.source().map(tracing::field::display), "no word from the operator");
                // As long as readiness waits for it, as often as may be: `knock` keeps its distance by itself.
                if *this.word.borrow() != Word::Awaited {
                    drop(this);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// The operator had its time to say something.
async fn give_up_waiting(verifier: Weak<Verifier>, startup_wait: Duration) {
    tokio::time::sleep(startup_wait).await;
    let Some(this) = verifier.upgrade() else { return };
    this.word.send_if_modified(|word| {
        let was_awaited = *word == Word::Awaited;
        if was_awaited {
            *word = Word::Silence;
        }
        was_awaited
    });
}
