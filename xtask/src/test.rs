//! `cargo xtask test`: all that must hold before a change lands, cheapest first.
//! It owns the order of the tiers and what each one checks; a tier's own machinery lives with the tier.

mod checks;
mod keycloak;
mod long_run;
pub(crate) mod prerequisites;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::terminal::say;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Which tiers to run; none named means all of them, in this order.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Leave the end-to-end cluster up afterwards, to look at it.
    #[arg(long)]
    keep: bool,
    /// Search the key protocol's interleavings for longer, and write what this run took to docs/long-run.md.
    #[arg(long)]
    long: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Format, dependencies, lints, tests against real PostgreSQL and Redis, documentation. No cluster.
    Fast,
    /// Tests against a real etcd and kube-apiserver, without a node.
    Apiserver,
    /// Tests on a kind cluster of their own, `servicechain-e2e`.
    E2e,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let tiers = if args.tiers.is_empty() {
        Tier::value_variants()
    } else {
        &args.tiers
    };
    let mut took = Vec::new();
    for tier in tiers {
        let started = Instant::now();
        let outcome = match tier {
            Tier::Fast => checks::fast(if args.long {
                long_run::ROTATION_CASES
            } else {
                checks::ROTATION_CASES
            }),
            Tier::Apiserver => checks::api_server(),
            Tier::E2e => crate::e2e::run(args.keep, args.long),
        };
        took.push((*tier, started.elapsed(), outcome));
    }
    if args.long && took.iter().all(|(_, _, outcome)| outcome.is_ok()) {
        long_run::write(
            &took
                .iter()
                .map(|(tier, elapsed, _)| (tier.name(), *elapsed))
                .collect::<Vec<_>>(),
        )?;
    }
    report(took)
}

impl Tier {
    const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Apiserver => "apiserver",
            Self::E2e => "e2e",
        }
    }
}

/// Prints what each tier took, then fails with the first failure's own words.
fn report(took: Vec<(Tier, Duration, Result<()>)>) -> Result<()> {
    let mut failures = Vec::new();
    for (tier, elapsed, outcome) in took {
        let minutes = elapsed.as_secs_f64() / 60.0;
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        say(format_args!(
            "tier {}: {verdict} in {minutes:.1} min",
            tier.name()
        ));
        failures.extend(outcome.err());
    }
    if let Some(first) = failures.into_iter().next() {
        bail!(first);
    }
    Ok(())
}
