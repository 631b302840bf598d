//! How long a request may still take, and the header that carries what is left from hop to hop.
//!
//! It travels as a remainder, not as a time of day, so that hops need no common clock.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// Whole milliseconds left; only hops of the chain may set it.
pub const REMAINING: HeaderName = HeaderName::from_static("servicechain-remaining-ms");

/// A header of more digits cannot be a duration that anybody means: 9,999,999 s is 115 days.
const MAX_DIGITS: usize = 10;

/// What a hop keeps of the time it was given, so that its word on who was slow arrives before its caller gives up:
/// a twentieth, within these bounds.
const RESERVE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// When a request must be answered; without one it may take as long as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No end (a timeout of `0s` in configuration).
    pub const NONE: Self = Self(None);

    /// Ends in `timeout` from now; a zero timeout means none.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            Self::NONE
        } else {
            Self(Instant::now().checked_add(timeout))
        }
    }

    /// The earlier of what the caller left us, less a reserve for the way back, and our own `timeout` (zero: none).
    /// A header that is repeated or no plain number is as good as absent.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap, timeout: Duration) -> Self {
        match remaining_in(headers) {
            Some(left) => {
                let reserve = (left / 20).clamp(RESERVE.0, RESERVE.1);
                let given = Instant::now().checked_add(left.saturating_sub(reserve));
                Self(given).earlier(Self::after(timeout))
            }
            None => Self::after(timeout),
        }
    }

    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (one, other) => Self(one.or(other)),
        }
    }

    /// What is left, zero once it has passed; `None` if there is no deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        self.0
    }

    /// Sets what is left for the next hop, rounded down, and takes away what was there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        match self.remaining() {
            Some(left) => {
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                headers.insert(REMAINING, HeaderValue::from(left));
            }
            None => {
                headers.remove(REMAINING);
            }
        }
    }

    /// Runs `work` until the deadline.
    ///
    /// # Errors
    /// [`DeadlinePassed`] when the deadline came first; the work is dropped.
    pub async fn bound<F: Future>(&self, work: F) -> Result<F::Output, DeadlinePassed> {
        match self.0 {
            Some(at) => tokio::time::timeout_at(at, work)
                .await
                .map_err(|_| DeadlinePassed),
            None => Ok(work.await),
        }
    }
}

/// The time that a request may take is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's deadline has passed")]
pub struct DeadlinePassed;

fn remaining_in(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all(REMAINING).iter();
    let (first, None) = (values.next()?, values.next()) else {
        return None;
    };
    let digits = first.to_str().ok()?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(REMAINING, HeaderValue::from_static(value))])
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_header_and_own_timeout_counts() {
        let five = Duration::from_secs(5);
        let left = |value| Deadline::from_headers(&headers(value), five).remaining();
        assert_eq!(left("1200"), Some(Duration::from_millis(1140)));
        assert_eq!(left("100"), Some(Duration::from_millis(95)));
        assert_eq!(left("0"), Some(Duration::ZERO));
        assert_eq!(left("60000"), Some(five));
        assert_eq!(
            Deadline::from_headers(&headers("1200"), Duration::ZERO).remaining(),
            left("1200")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_plain_number_is_as_good_as_absent() {
        for odd in ["", "-1", "+5", "1.5", "5s", " 5", "99999999999", "0x10"] {
            let deadline = Deadline::from_headers(&headers(odd), Duration::from_secs(3));
            assert_eq!(deadline.remaining(), Some(Duration::from_secs(3)), "{odd:?}");
        }
        let mut twice = headers("1");
        twice.append(REMAINING, HeaderValue::from_static("2"));
        assert_eq!(Deadline::from_headers(&twice, Duration::ZERO), Deadline::NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_is_told_what_is_left_now() {
        let deadline = Deadline::after(Duration::from_secs(2));
        tokio::time::advance(Duration::from_millis(500)).await;
        let mut out = headers("777");
        deadline.inject(&mut out);
        assert_eq!(out[REMAINING], "1500");
        Deadline::NONE.inject(&mut out);
        assert!(out.get(REMAINING).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_at_the_deadline() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(
            deadline.bound(std::future::pending::<()>()).await,
            Err(DeadlinePassed)
        );
        assert!(deadline.has_passed());
        assert_eq!(Deadline::NONE.bound(async { 7 }).await, Ok(7));
    }
}
