//! What a long test says while it runs. It goes past the harness, which keeps back what tests print.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Instant;

/// When the test began.
#[derive(Clone, Copy, Debug)]
pub struct Progress(Instant);

impl Progress {
    #[must_use]
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn say(&self, line: impl Display) {
        let seconds = self.0.elapsed().as_secs_f64();
        // A closed standard error is no reason to fail.
        let _ = writeln!(std::io::stderr(), "[{seconds:6.1} s] {line}");
    }
}
