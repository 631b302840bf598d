//! How far a pod's clock is from the operator's, as far as an answer shows it. Pure.
//!
//! A pod says its time in whole seconds, at some moment between the question and the answer, so an answer bounds the
//! offset and does not give it. What people are shown moves only when those bounds leave it behind.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use servicechain_keys::NumericDate;

/// How far beyond the bounds a figure may be that was shown before: two clocks never go at quite the same pace.
const STEADY_MILLIS: i128 = 1000;

/// The offset is between the two, in milliseconds; positive where the pod's clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockOffset {
    least: i128,
    most: i128,
}

impl ClockOffset {
    /// `pod` is what the pod said in an answer that came so long after it was asked at `asked`, by the operator's clock.
    pub(super) fn measured(pod: NumericDate, asked: SystemTime, took: Duration) -> Self {
        let millis = |time: Duration| i128::try_from(time.as_millis()).unwrap_or(i128::MAX);
        let asked = millis(asked.duration_since(UNIX_EPOCH).unwrap_or_default());
        let pod = i128::from(pod.as_seconds()) * 1000;
        Self {
            least: pod - asked - millis(took),
            most: pod + 999 - asked,
        }
    }

    /// The figure for people, in whole seconds: what they were shown before if it may still be so, where nothing is zero;
    /// else the middle, which is what the pod's clock showed half a round trip after the question.
    pub(super) fn shown(self, before: Option<i64>) -> i64 {
        let known = before.unwrap_or_default();
        let bounds = self.least - STEADY_MILLIS..=self.most + STEADY_MILLIS;
        if bounds.contains(&(i128::from(known) * 1000)) {
            return known;
        }
        let middle = i128::midpoint(self.least, self.most);
        let seconds = (middle + 500 * middle.signum()) / 1000;
        // A pod writes any time it likes. The API has 32 bits for it, which is 68 years.
        i64::from(i32::try_from(seconds).unwrap_or(if seconds > 0 { i32::MAX } else { i32::MIN }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Duration = Duration::from_millis(1_800_000_000_400);

    fn measured(pod: u64, took: u64) -> ClockOffset {
        ClockOffset::measured(
            NumericDate::from_seconds(pod),
            UNIX_EPOCH + ASKED,
            Duration::from_millis(took),
        )
    }

    #[test]
    fn clocks_that_agree_are_never_shown_apart_however_long_an_answer_takes() {
        for took in [0, 10, 700, 2000] {
            for pod_read_after in [0, took / 2, took] {
                let pod = (1_800_000_000_400 + pod_read_after) / 1000;
                assert_eq!(measured(pod, took).shown(None), 0, "{took} {pod_read_after}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_off_is_shown_with_half_the_round_trip() {
        assert_eq!(measured(1_800_000_012, 200).shown(None), 12);
        assert_eq!(measured(1_799_999_000, 200).shown(None), -1000);
        assert_eq!(
            measured(1_800_000_013, 1600).shown(None),
            12,
            "it was read somewhere within the round trip"
        );
    }

    #[test]
    fn a_figure_stays_while_it_may_be_true_and_moves_when_it_cannot() {
        for pod in [1_800_000_011, 1_800_000_012, 1_800_000_013] {
            assert_eq!(measured(pod, 20).shown(Some(12)), 12, "{pod}");
        }
        assert_eq!(measured(1_800_000_016, 20).shown(Some(12)), 16);
        assert_eq!(measured(1_800_000_000, 20).shown(Some(12)), 0);
    }

    #[test]
    fn a_pod_may_write_any_time_and_its_clock_is_never_said_to_be_the_other_way_off() {
        assert_eq!(measured(0, 0).shown(None), -1_800_000_000);
        for far in [1 << 63, u64::MAX] {
            assert_eq!(measured(far, 0).shown(None), i64::from(i32::MAX));
        }
    }
}
