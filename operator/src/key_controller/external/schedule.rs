//! When an external issuer is asked again: ahead of its answer's end, sooner after a failure, at once for a verifier that
//! met an unknown key, and never while it asked to be left alone. Pure; the clock and the jitter are given.

use std::time::Duration;

use tokio::time::Instant;

/// A fetch begins no sooner after the one before.
const BETWEEN_FETCHES: Duration = Duration::from_secs(1);
/// Up to this part of it later: a verifier asks once a second too, and one that came just after a fetch would come just
/// after each, and give up before the next.
const SPREAD: f64 = 0.25;
/// What an issuer says of its answer's life counts within these.
const AHEAD: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));
/// The first and the longest pause after a failure; it doubles.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// An issuer that wants to be left alone for longer is asked again all the same.
const LONGEST_HOLD: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct Schedule {
    /// Where the issuer does not say how long its answer lives.
    interval: Duration,
    failures: u32,
    /// When who asks may be asked for.
    earliest: Option<Instant>,
    next: Instant,
    /// It asked for no question before.
    held_until: Option<Instant>,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(super) const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            failures: 0,
            earliest: None,
            next: now,
            held_until: None,
        }
    }

    /// When the next fetch begins; `is_asked` where somebody waits for it.
    pub(super) fn due(&self, is_asked: bool) -> Instant {
        if !is_asked {
            return self.next;
        }
        self.earliest.max(self.held_until).unwrap_or(self.next)
    }

    pub(super) const fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// `jitter` is in 0..1.
    pub(super) fn begin(&mut self, now: Instant, jitter: f64) {
        self.earliest = Some(now + BETWEEN_FETCHES.mul_f64(1.0 + SPREAD * jitter));
        self.held_until = None;
    }

    /// `max_age` is what the answer says of itself (RFC 9111 section 5.2.2.1); `jitter` is in 0..1.
    pub(super) fn succeeded(&mut self, now: Instant, max_age: Option<Duration>, jitter: f64) {
        self.failures = 0;
        let wait = max_age.map_or(self.interval, |age| {
            // 80 %, without the rounding of floats.
            (age.min(AHEAD.1 * 2) * 4 / 5).clamp(AHEAD.0, AHEAD.1)
        });
        self.next = now + wait.mul_f64(1.0 - 0.1 * jitter);
    }

    /// `retry_after` is what the answer asked for (RFC 9110 section 10.2.3); `jitter` is in 0..1.
    pub(super) fn failed(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        let doubled = RETRY.0 * 2_u32.saturating_pow(self.failures.min(16));
        let wait = doubled.min(RETRY.1).min(self.interval.max(RETRY.0));
        self.failures = self.failures.saturating_add(1);
        let wait = wait.mul_f64(0.5 + 0.5 * jitter).max(BETWEEN_FETCHES);
        let hold = retry_after.map(|hold| hold.min(LONGEST_HOLD));
        self.held_until = hold.map(|hold| now + hold);
        // Its own jitter on top: many who were told the same do not come back together.
        self.next = now + hold.map_or(wait, |hold| hold + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn begun(at: Instant) -> Schedule {
        let mut schedule = Schedule::new(5 * MINUTE, at);
        assert_eq!(schedule.due(false), at, "the first is due at once");
        schedule.begin(at, 0.0);
        schedule
    }

    #[test]
    fn an_answer_is_renewed_before_its_end_within_bounds() {
        let at = Instant::now();
        for (max_age, wait) in [
            (None, 5 * MINUTE),
            (Some(Duration::ZERO), 5 * MINUTE),
            (Some(MINUTE), 5 * MINUTE),
            (Some(10 * MINUTE), 8 * MINUTE),
            (Some(Duration::from_mins(75)), Duration::from_hours(1)),
            (Some(Duration::from_hours(24)), Duration::from_hours(1)),
            (Some(Duration::MAX), Duration::from_hours(1)),
        ] {
            let mut schedule = begun(at);
            schedule.succeeded(at, max_age, 0.0);
            assert_eq!(schedule.due(false), at + wait, "{max_age:?}");
            schedule.succeeded(at, max_age, 1.0);
            assert_eq!(schedule.due(false), at + wait.mul_f64(0.9), "{max_age:?}, jitter");
        }
    }

    #[test]
    fn who_asks_waits_a_second_after_the_last_fetch_and_no_more() {
        let at = Instant::now();
        let mut schedule = begun(at);
        schedule.succeeded(at, None, 0.0);
        assert_eq!(schedule.due(true), at + SECOND);
    }

    #[test]
    fn failures_are_repeated_ever_more_slowly_until_one_answer() {
        let at = Instant::now();
        let mut schedule = begun(at);
        let mut waits = Vec::new();
        for _ in 0..11 {
            schedule.failed(at, None, 1.0);
            waits.push((schedule.due(false) - at).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        schedule.failed(at, None, 0.0);
        assert_eq!(schedule.due(false), at + 150 * SECOND, "jitter");
        assert_eq!(schedule.due(true), at + SECOND, "who asks need not wait for that");
        schedule.succeeded(at, None, 0.0);
        schedule.failed(at, None, 1.0);
        assert_eq!(schedule.due(false), at + SECOND);
    }

    #[test]
    fn an_issuer_that_wants_to_be_left_alone_is_whoever_asks() {
        let at = Instant::now();
        let mut schedule = begun(at);
        schedule.failed(at, Some(MINUTE), 1.0);
        assert_eq!(schedule.held_until(), Some(at + MINUTE));
        assert_eq!(schedule.due(true), at + MINUTE);
        assert_eq!(schedule.due(false), at + MINUTE + SECOND);
        schedule.begin(at + MINUTE, 0.0);
        assert_eq!(schedule.held_until(), None);
        schedule.failed(at, Some(Duration::MAX), 1.0);
        assert_eq!(schedule.due(true), at + Duration::from_hours(1));
    }
}
