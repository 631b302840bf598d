//! Wall-clock time as a value: the one place that asks the system what time it is.
//!
//! Timers and deadlines use `tokio::time` and are none of its business.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

type Now = dyn Fn() -> SystemTime + Send + Sync;

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<Now>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where time comes in"
    )]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that stands at `start` until its [`ManualClock`] moves it.
    #[must_use]
    pub fn manual(start: SystemTime) -> (Self, ManualClock) {
        let hand = ManualClock(Arc::new(Mutex::new(start)));
        let read = hand.clone();
        (Self(Arc::new(move || read.now())), hand)
    }

    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// The same clock as a plain function, for crates that do not know this one.
    #[must_use]
    pub fn as_fn(&self) -> Arc<Now> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    pub fn set(&self, to: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
        hand.advance(Duration::from_secs(5));
        assert_eq!((clock.as_fn())(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    }
}
