//! `cargo xtask apiserver`: an etcd and a kube-apiserver of our own in the foreground, as the tests of controllers
//! start them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
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
    let mut workshop = open()?;
    let servers = servers(&mut workshop)?;
    say(workshop.finish("api server").0);
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
        .env("SERVICECHAIN_BIN", servers);
    let status = child::run_in_the_open(&mut command)?;
    if !status.success() {
        bail!("the API server did not start ({status})");
    }
    Ok(())
}

/// The folders with etcd, kube-apiserver, kube-controller-manager, kubectl and helm, built if need be, joined as in a
/// PATH. Tests find them in `SERVICECHAIN_BIN`.
pub(crate) fn ensure_programs() -> anyhow::Result<OsString> {
    let versions = Versions::read()?;
    let mut workshop = open()?;
    let folders = [
        servers(&mut workshop)?,
        workshop.make(&airgap::kubernetes(&versions), None)?.folder,
        workshop.make(&airgap::helm(&versions), None)?.folder,
    ];
    say(workshop.finish("api server").0);
    std::env::join_paths(folders).context("the cache's path cannot be part of a search path")
}

fn open() -> anyhow::Result<Workshop> {
    host::require_go()?;
    Ok(Workshop::new(Cache::open()?))
}

fn servers(workshop: &mut Workshop) -> anyhow::Result<PathBuf> {
    Ok(workshop
        .make(&airgap::api_server(&Versions::read()?), None)?
        .folder)
}
