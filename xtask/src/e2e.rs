//! The end-to-end tier: a cluster of its own on a free port, the tests in it, and its end.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cache::Cache;
use crate::cluster::Record;
use crate::down::{self, DownArgs};
use crate::step::Workshop;
use crate::terminal::{print, say};
use crate::up::{self, ClusterName, For, UpArgs};
use crate::{charts, child, workspace};

const CLUSTER: &str = "servicechain-e2e";
/// A control plane and two workers, one of which a test stops.
const NODES: u8 = 3;

/// Brings the cluster up, runs the tests that need one, and takes it down again unless it is to be kept.
pub(crate) fn run(keep: bool, long: bool) -> anyhow::Result<()> {
    let mut workshop = Workshop::new(Cache::open()?);
    let cache = workshop.cache.clone();
    let port = match Record::read(&cache, CLUSTER) {
        Some(record) => record.port,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
    };
    let args = UpArgs {
        cluster: ClusterName {
            name: CLUSTER.to_owned(),
        },
        nodes: Some(NODES),
        port: Some(port),
        airgap: false,
        online: false,
        without_example: true,
        json: false,
    };
    let record = up::bring_up(&mut workshop, &args, For::Tests)?;
    say(workshop.finish("end-to-end cluster").0);

    let outcome = test(&cache, &record, long);
    if outcome.is_err() {
        show(&record);
    }
    if keep {
        print(format_args!(
            "cluster {CLUSTER} is kept; `cargo xtask down --cluster {CLUSTER}` removes it"
        ));
    } else {
        down::run(&DownArgs {
            cluster: args.cluster,
        })
        .context("the tests are over, but their cluster is not gone")?;
    }
    outcome
}

fn test(cache: &Cache, record: &Record, long: bool) -> anyhow::Result<()> {
    let cargo = |verb: &str| {
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(workspace::root())
            .args([verb, "--locked", "--package"]);
        command
    };
    // The tests find it beside themselves.
    let built = child::run_in_the_open(cargo("build").args(["servicechain", "--bin", "servicechain"]))?;
    if !built.success() {
        bail!("the command line does not build; what the compiler said is above");
    }
    let mut command = cargo("test");
    command
        .args([
            "servicechain-e2e",
            "--no-fail-fast",
            "--features",
            "kind",
            "--test",
            "operate_*",
        ])
        .env("SERVICECHAIN_CLUSTER", record.path(cache));
    if long {
        command.env("SERVICECHAIN_LONG", "1");
    }
    let status = child::run_in_the_open(&mut command)?;
    if !status.success() {
        bail!("the end-to-end tests failed; what they said is above");
    }
    Ok(())
}

/// The cluster's state, for whoever reads the log of a failure.
fn show(record: &Record) {
    for what in [
        ["get", "nodes,pods", "--all-namespaces", "--output=wide"].as_slice(),
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
        &["get", "servicechains", "--all-namespaces", "--output=yaml"],
        &[
            "logs",
            "--namespace",
            charts::NAMESPACE,
            charts::OPERATOR,
            "--all-pods",
            "--prefix",
            "--tail=200",
        ],
    ] {
        say(child::ask(record.kubectl().args(what))
            .unwrap_or_else(|| "the cluster does not answer".to_owned()));
    }
}
