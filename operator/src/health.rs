//! Whether the process is ready, and whether it still gets on: what must happen again and again, and did not.
//! It must not know how that is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By what waits: a sentence for people.
    not_ready: BTreeMap<&'static str, String>,
    /// What must get on, by a number of its own.
    running: BTreeMap<u64, Running>,
    next: u64,
}

#[derive(Debug)]
struct Running {
    what: String,
    limit: Duration,
    last: Instant,
}

/// Something that must say within its limit that it got on, until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    health: Health,
    id: u64,
}

impl Health {
    /// `gate` holds readiness back; the sentence says what is wrong and what to do.
    pub fn close(&self, gate: &'static str, sentence: impl Into<String>) {
        let sentence = sentence.into();
        self.with(|state| state.not_ready.insert(gate, sentence));
    }

    pub fn open(&self, gate: &'static str) {
        self.with(|state| state.not_ready.remove(gate));
    }

    /// From now on `what` must say at least every `limit` that it got on.
    #[must_use]
    pub fn expect(&self, what: impl Into<String>, limit: Duration) -> Pulse {
        let running = Running {
            what: what.into(),
            limit,
            last: Instant::now(),
        };
        let id = self.with(|state| {
            state.next += 1;
            state.running.insert(state.next, running);
            state.next
        });
        Pulse {
            health: self.clone(),
            id,
        }
    }

    /// One line for each gate that is closed.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.with(|state| {
            let lines = state.not_ready.iter();
            lines
                .map(|(gate, sentence)| format!("{gate}: {sentence}"))
                .collect()
        })
    }

    /// One line for each thing that should have got on and did not.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let now = Instant::now();
        self.with(|state| {
            let stuck = state
                .running
                .values()
                .filter(|running| now - running.last > running.limit);
            stuck
                .map(|running| {
                    let silent = (now - running.last).as_secs();
                    format!("{} made no progress for {silent} s", running.what)
                })
                .collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pulse {
    /// It got on.
    pub fn beat(&self) {
        self.health.with(|state| {
            if let Some(running) = state.running.get_mut(&self.id) {
                running.last = Instant::now();
            }
        });
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.with(|state| state.running.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_makes_no_progress_within_its_limit_is_stuck_until_it_does_or_ends() {
        let health = Health::default();
        let watch = health.expect("the watch of Pods", Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(health.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.stuck(), ["the watch of Pods made no progress for 11 s"]);
        watch.beat();
        assert!(health.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(11)).await;
        drop(watch);
        assert!(health.stuck().is_empty());
    }
}
