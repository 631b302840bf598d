//! `cargo xtask apiserver`: an etcd and a kube-apiserver of our own in the foreground, as the tests of controllers
//! start them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;
use clap::Args;

use crate::cache::Cache;
use crate::step::Workshop;
use crate::terminal::say;
use crate::versions::Versions;
use crate::{airgap, child, host, workspace};

#[derive(Debug, Args)]
pub(crate) struct ApiserverArgs {
    /// With kube-controller-manager, whose only controller is the garbage collector.
    #[arg(long)]
    garbage_collector: bool,
}

pub(crate) fn run(args: &ApiserverArgs) -> anyhow::Result<()> {
    let binaries = ensure_binaries()?;
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(workspace::root())
        .args([
            "run",
            "--quiet",
            "--package",
            "servicechain-fixtures",
            "--example",
            "api_server",
            "--",
        ])
        .args(args.garbage_collector.then_some("--garbage-collector"))
        .env("SERVICECHAIN_BIN", binaries);
    let status = child::run_in_the_open(&mut command)?;
    if !status.success() {
        bail!("the API server did not start ({status})");
    }
    Ok(())
}

/// The folder with etcd, kube-apiserver and kube-controller-manager, built if need be. Tests find it in
/// `SERVICECHAIN_BIN`.
pub(crate) fn ensure_binaries() -> anyhow::Result<PathBuf> {
    host::require_go()?;
    let mut workshop = Workshop::new(Cache::open()?);
    let made = workshop.make(&airgap::api_server(&Versions::read()?), None)?;
    say(workshop.finish("api server").0);
    Ok(made.folder)
}
