//! What a run is told, and how long it may take.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Our gateway against nginx, `HAProxy` and Envoy
    Gateway,
    /// What a service pays to verify and to call on
    Hop,
    /// The library that verifies, alone
    Verify,
    /// Gateway, A, B and C with PostgreSQL and Redis, against the same without verification
    Chain,
    /// Resident memory, start to ready, size of images
    Memory,
    /// Cost as connections, routes, issuers, keys and addresses grow
    Growth,
    /// A bundle on its way to thousands of verifiers
    Keys,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Our gateway's binary
    #[arg(long)]
    pub(crate) gateway: PathBuf,
    /// Our item service's binary
    #[arg(long)]
    pub(crate) item_service: PathBuf,
    /// Another build of the gateway, measured in the same rounds
    #[arg(long)]
    pub(crate) before: Option<PathBuf>,
    /// Whether nginx is there
    #[arg(long)]
    pub(crate) nginx: bool,
    /// Envoy's binary
    #[arg(long)]
    pub(crate) envoy: Option<PathBuf>,
    /// How often each contender has its turn, at most
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
    /// No round begins that would end later than so many minutes from now
    #[arg(long, default_value_t = 9.0)]
    pub(crate) minutes: f64,
    /// Very short slices and few tokens: shows that measuring works, and measures nothing
    #[arg(long)]
    pub(crate) smoke: bool,
    /// The main case alone
    #[arg(long)]
    pub(crate) main_only: bool,
}

impl Settings {
    /// How long each turn takes, the warm-up before it not counted.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_millis(if self.smoke { 100 } else { 1000 })
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.smoke { 20 } else { 100 })
    }

    /// `full`, or `smoke` where nothing is to be measured.
    pub(crate) fn amount<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }

    /// Counts from now.
    pub(crate) fn budget(&self) -> Budget {
        let minutes = self.minutes.clamp(0.0, 60.0);
        Budget(Instant::now() + Duration::from_secs_f64(minutes * 60.0))
    }
}

/// Until when rounds may go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(Instant);

impl Budget {
    /// An equal share of what is left, for one of so many parts that are still to come, this one included.
    pub(crate) fn share(self, parts: usize) -> Self {
        self.part(1.0 / f64::from(u32::try_from(parts).unwrap_or(u32::MAX).max(1)))
    }

    /// So much of what is left.
    pub(crate) fn part(self, of: f64) -> Self {
        Self(Instant::now() + self.left().mul_f64(of.clamp(0.0, 1.0)))
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn allows(self, long: Duration) -> bool {
        self.left() >= long
    }
}
