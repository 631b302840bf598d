//! Comparing on a noisy machine: everything runs in short slices in turn, the order reversed each round, and only
//! figures of the same round are divided by each other. What is reported are medians over rounds, and how far they spread.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::settings::Budget;

/// One figure for each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

/// The middle, and what nine tenths of the rounds stay above and below of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Runs `slice` for each of `count` contenders in every round, in alternating order. It is given the contender. Returns
/// how many rounds there were: at least one, and none that would not fit into the budget.
pub(crate) fn interleave(
    rounds: usize,
    count: usize,
    budget: Budget,
    mut slice: impl FnMut(usize) -> Result<()>,
) -> Result<usize> {
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        if round > 0 && !budget.allows(longest) {
            return Ok(round);
        }
        let begun = Instant::now();
        for turn in 0..count {
            slice(if round % 2 == 0 { turn } else { count - 1 - turn })?;
        }
        longest = longest.max(begun.elapsed());
    }
    Ok(rounds)
}

impl Series {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(one, other)| one / other).collect())
    }

    /// Round by round.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(one, other)| one - other).collect())
    }

    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// `None` without rounds.
    pub(crate) fn middle(&self) -> Option<Middle> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Middle {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.1)?,
            high: quantile(&sorted, 0.9)?,
        })
    }
}

/// Of sorted figures, with a straight line between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there are never more figures than a float can count"
)]
pub(crate) fn quantile(sorted: &[f64], of: f64) -> Option<f64> {
    let place = of * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (
        sorted.get(place.floor() as usize)?,
        sorted.get(place.ceil() as usize)?,
    );
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::Settings;

    fn budget(minutes: f64) -> Budget {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        let minutes = format!("--minutes={minutes}");
        let line = ["bench", "--gateway=g", "--item-service=s", &minutes];
        Line::parse_from(line).settings.budget()
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        let (mut one, mut other) = (Series::default(), Series::default());
        // The second round is twice as slow for everybody.
        for (figure, against) in [(10.0, 20.0), (20.0, 40.0), (11.0, 20.0)] {
            one.push(figure);
            other.push(against);
        }
        let middle = one.over(&other).middle().unwrap();
        assert!((middle.median - 0.5).abs() < 1e-9);
        assert!(middle.low >= 0.5 && middle.high <= 0.55);
        assert!(Series::default().middle().is_none());
    }

    #[test]
    fn the_order_is_reversed_each_round() {
        let mut order = Vec::new();
        let budget = budget(1.0);
        let rounds = interleave(2, 3, budget, |contender| {
            order.push(contender);
            Ok(())
        });
        assert_eq!((rounds.unwrap(), order), (2, vec![0, 1, 2, 2, 1, 0]));
    }

    #[test]
    fn one_round_runs_and_no_more_than_the_budget_allows() {
        let mut turns = 0;
        let spent = budget(0.0);
        let rounds = interleave(5, 2, spent, |_| {
            turns += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        });
        assert_eq!((rounds.unwrap(), turns), (1, 2));
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
    }
}
