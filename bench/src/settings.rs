//! What a run is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Our gateway against nginx, `HAProxy` and Envoy
    Gateway,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Our gateway's binary
    #[arg(long)]
    pub(crate) gateway: PathBuf,
    /// Another build of it, measured in the same rounds
    #[arg(long)]
    pub(crate) before: Option<PathBuf>,
    /// Whether nginx is there
    #[arg(long)]
    pub(crate) nginx: bool,
    /// Envoy's binary
    #[arg(long)]
    pub(crate) envoy: Option<PathBuf>,
    /// How often each contender has its turn
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
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
}
