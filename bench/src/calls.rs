//! Taking turns in this process: closures are called for some milliseconds each, and the processor time of the calling
//! thread is divided by the calls. What another program does to the machine meanwhile is not in it.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::report::Row;
use crate::rounds::{Series, interleave};
use crate::settings::Budget;

/// Something that is called again and again.
pub(crate) struct Calls<'a> {
    /// What ratios of others call it.
    pub(crate) name: &'static str,
    pub(crate) row: Row,
    /// Divided by that of the same round.
    pub(crate) over: Option<&'static str>,
    /// False where it did not do what it should have done.
    call: Box<dyn FnMut() -> bool + 'a>,
    /// Microseconds a call.
    pub(crate) times: Series,
    failed: u64,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(name: &'static str, row: Row, call: impl FnMut() -> bool + 'a) -> Self {
        Self {
            name,
            row,
            over: None,
            call: Box::new(call),
            times: Series::default(),
            failed: 0,
        }
    }

    pub(crate) fn over(mut self, other: &'static str) -> Self {
        self.over = Some(other);
        self
    }

    /// So many milliseconds of calls, in batches that are long against reading the clock.
    fn slice(&mut self, length: Duration) {
        let (mut batch, mut calls) = (1_u32, 0_u32);
        let begun = thread_time();
        let mut used = Duration::ZERO;
        while used < length {
            let before = used;
            for _ in 0..batch {
                self.failed += u64::from(!(self.call)());
            }
            calls = calls.saturating_add(batch);
            used = thread_time().saturating_sub(begun);
            if used.saturating_sub(before) < length / 100 {
                batch = batch.saturating_mul(2);
            }
        }
        self.times
            .push(used.as_secs_f64() * 1e6 / f64::from(calls.max(1)));
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Runs rounds of all `calls` and returns a row for each.
pub(crate) fn measure(
    calls: &mut [Calls<'_>],
    rounds: usize,
    slice: Duration,
    budget: Budget,
) -> Result<Vec<Row>> {
    interleave(rounds, calls.len(), budget, |turn| {
        calls[turn].slice(slice);
        Ok(())
    })?;
    let row = |one: &Calls<'_>| {
        let row = one.row.clone().micros(&one.times).errors(one.failed);
        let other = one
            .over
            .and_then(|name| calls.iter().find(|other| other.name == name));
        match other {
            Some(other) => row
                .over(other.name, &one.times.over(&other.times))
                .errors(one.failed + other.failed),
            None => row,
        }
    };
    Ok(calls.iter().map(row).collect())
}
