//! The life of a process: not ready, ready, draining, closing, closed.
//!
//! It knows nothing of sockets. Servers watch it and hold it open while they have work.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

/// Phases only move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting; ready as soon as every gate is open.
    Serving,
    /// Not ready, but still accepting, until load balancers have noticed. Every answer ends its connection.
    Draining,
    /// No new connections; requests in flight finish.
    Closing,
    /// Over: what is still running is dropped.
    Closed,
}

/// Shared by everything in a process that starts and ends together.
pub struct Lifecycle {
    drain_delay: Duration,
    grace: Duration,
    phase: watch::Sender<Phase>,
    /// The phase once more, to be read on every request without a lock.
    current: AtomicU8,
    gates: Mutex<Vec<Gate>>,
    ready: watch::Sender<bool>,
    held: AtomicUsize,
    released: Notify,
}

struct Gate {
    name: String,
    /// Why it is closed; `None` when open.
    closed: Option<String>,
}

impl Lifecycle {
    /// `drain_delay` is how long a draining process keeps accepting; `grace` how long requests in flight may
    /// take after that.
    #[must_use]
    pub fn new(drain_delay: Duration, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            drain_delay,
            grace,
            phase: watch::Sender::new(Phase::Serving),
            current: AtomicU8::new(Phase::Serving as u8),
            gates: Mutex::default(),
            ready: watch::Sender::new(false),
            held: AtomicUsize::new(0),
            released: Notify::new(),
        })
    }

    /// Something that must be in place before the process is ready. It starts closed; a process without any
    /// gate is never ready.
    pub fn gate(self: &Arc<Self>, name: impl Into<String>) -> ReadinessGate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.push(Gate {
            name: name.into(),
            closed: Some("starting".to_owned()),
        });
        let index = gates.len() - 1;
        self.judge_readiness(&gates);
        drop(gates);
        ReadinessGate {
            lifecycle: Arc::clone(self),
            index,
        }
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// What keeps the process from being ready, as `name: why`; empty when it is ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.what_is_not_ready(&self.gates.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// True from the first signal on. One atomic read.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.current.load(Ordering::Relaxed) != Phase::Serving as u8
    }

    /// Begins to end the process, and returns at once. Again: nothing happens.
    /// It must be called within a tokio runtime, which carries the timers.
    pub fn drain(self: &Arc<Self>) {
        if !self.advance(Phase::Draining) {
            return;
        }
        tracing::info!(delay = ?self.drain_delay, grace = ?self.grace, "draining: still accepting, no longer ready");
        let lifecycle = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(lifecycle.drain_delay).await;
            lifecycle.advance(Phase::Closing);
            if tokio::time::timeout(lifecycle.grace, lifecycle.all_released())
                .await
                .is_err()
            {
                let left = lifecycle.held.load(Ordering::SeqCst);
                tracing::warn!(left, "connections still open after the grace are dropped");
            }
            lifecycle.advance(Phase::Closed);
        });
    }

    /// Ends the process without waiting for anything.
    pub fn end_at_once(&self) {
        self.advance(Phase::Closed);
    }

    /// Drains at the first SIGTERM or SIGINT and ends at once at the second.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn drain_on_signals(self: &Arc<Self>) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifecycle = Arc::clone(self);
        tokio::spawn(async move {
            let mut next = async || tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () };
            next().await;
            lifecycle.drain();
            next().await;
            tracing::warn!("second signal: ending at once");
            lifecycle.end_at_once();
        });
        Ok(())
    }

    /// Waits until every gate is open for the first time, or the process drains.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => (),
            () = self.draining() => (),
        }
    }

    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// From here on no new connections are taken.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    pub async fn closed(&self) {
        self.reached(Phase::Closed).await;
    }

    /// Keeps a closing process open (until its grace is over) while there is work, such as a connection.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(self))
    }

    /// How many [`Hold`]s there are.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so waiting ends only by the phase.
        let _ = self.phase.subscribe().wait_for(|current| *current >= phase).await;
    }

    async fn all_released(&self) {
        loop {
            let released = self.released.notified();
            if self.held() == 0 {
                return;
            }
            released.await;
        }
    }

    fn advance(&self, to: Phase) -> bool {
        let advanced = self.phase.send_if_modified(|phase| {
            let advances = *phase < to;
            *phase = to.max(*phase);
            self.current.store(*phase as u8, Ordering::SeqCst);
            advances
        });
        self.judge_readiness(&self.gates.lock().unwrap_or_else(PoisonError::into_inner));
        advanced
    }

    /// Under the lock of the gates, so that of two changes the later one has the last word.
    fn judge_readiness(&self, gates: &[Gate]) {
        let ready = self.what_is_not_ready(gates).is_empty();
        self.ready
            .send_if_modified(|current| std::mem::replace(current, ready) != ready);
    }

    fn what_is_not_ready(&self, gates: &[Gate]) -> Vec<String> {
        if self.is_draining() {
            return vec!["process: draining".to_owned()];
        }
        if gates.is_empty() {
            return vec!["process: starting".to_owned()];
        }
        let closed = |gate: &Gate| gate.closed.as_ref().map(|why| format!("{}: {why}", gate.name));
        gates.iter().filter_map(closed).collect()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("phase", &self.phase())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// One condition of readiness. It keeps its last word when dropped.
#[derive(Debug)]
pub struct ReadinessGate {
    lifecycle: Arc<Lifecycle>,
    index: usize,
}

impl ReadinessGate {
    pub fn open(&self) {
        self.set(None);
    }

    /// `why` is shown to people who ask `/readyz`.
    pub fn close(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, closed: Option<String>) {
        let mut gates = self
            .lifecycle
            .gates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get_mut(self.index) {
            gate.closed = closed;
        }
        self.lifecycle.judge_readiness(&gates);
    }
}

/// Work that a closing process waits for; dropping it lets go.
#[derive(Debug)]
pub struct Hold(Arc<Lifecycle>);

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.held.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.released.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const DELAY: Duration = Duration::from_secs(5);
    const GRACE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn ready_only_when_every_gate_is_open() {
        let lifecycle = Lifecycle::new(DELAY, GRACE);
        assert_eq!(lifecycle.not_ready(), ["process: starting"]);
        let (keys, database) = (lifecycle.gate("keys"), lifecycle.gate("database"));
        keys.open();
        database.close("connection refused");
        assert_eq!(lifecycle.not_ready(), ["database: connection refused"]);
        assert!(!lifecycle.is_ready());
        database.open();
        assert!(lifecycle.is_ready());
        lifecycle.ready().await;
        database.close("gone");
        assert!(!lifecycle.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_keeps_accepting_for_the_delay_then_waits_for_what_is_held() {
        let lifecycle = Lifecycle::new(DELAY, GRACE);
        lifecycle.gate("server").open();
        let hold = lifecycle.hold();
        let begun = Instant::now();
        lifecycle.drain();
        lifecycle.drain();
        assert!(lifecycle.is_draining());
        assert_eq!(lifecycle.not_ready(), ["process: draining"]);
        lifecycle.closing().await;
        assert_eq!(begun.elapsed(), DELAY);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(lifecycle.phase(), Phase::Closing);
        drop(hold);
        lifecycle.closed().await;
        assert_eq!(begun.elapsed(), DELAY + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_is_dropped_after_the_grace() {
        let lifecycle = Lifecycle::new(DELAY, GRACE);
        let _hold = lifecycle.hold();
        let begun = Instant::now();
        lifecycle.drain();
        lifecycle.closed().await;
        assert_eq!(begun.elapsed(), DELAY + GRACE);
    }

    #[tokio::test]
    async fn first_signal_drains_and_second_ends_at_once() {
        let lifecycle = Lifecycle::new(DELAY, GRACE);
        let _hold = lifecycle.hold();
        lifecycle.drain_on_signals().unwrap();
        let begun = Instant::now();
        interrupt_myself();
        lifecycle.draining().await;
        interrupt_myself();
        lifecycle.closed().await;
        assert!(begun.elapsed() < DELAY, "{:?}", begun.elapsed());
    }

    /// By way of `kill`, since raising a signal oneself takes unsafe code.
    fn interrupt_myself() {
        let kill = std::process::Command::new("kill")
            .args(["-INT", &std::process::id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }
}
