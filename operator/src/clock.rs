//! The time of day, in the one place that asks the system for it. Deadlines and leases go by `tokio::time` instead.

use std::sync::Arc;
use std::time::SystemTime;

/// Tells the time; a parameter, so that a test can move it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The machine's clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where time comes in"
)]
pub fn system() -> Clock {
    Arc::new(SystemTime::now)
}
