//! Verifiers, thousands to a process, each on an address of its own. At this end they are only processes and addresses.

use std::env::current_exe;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use servicechain_auth::specimen::Specimen;
use servicechain_auth::{Hop, Verifier, keys_endpoint};
use servicechain_keys::{PodId, Workload};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::listen;
use servicechain_runtime::serve::{Limits, serve};

use crate::process::{Process, ProcessorTime};

/// As many pods are made in a few seconds.
const PATIENCE: Duration = Duration::from_mins(2);
/// What all of them run.
pub(super) const WORKLOAD: &str = "a";
const MEMORY_BACKED: &str = "/dev/shm";

#[derive(Debug, clap::Args)]
pub(crate) struct PodsArgs {
    #[arg(long)]
    first: usize,
    #[arg(long)]
    count: usize,
    /// Where bundles are kept, a folder a pod
    #[arg(long)]
    folder: PathBuf,
    /// Where the addresses go, one a line, once all listen
    #[arg(long)]
    addresses: PathBuf,
}

/// So many pods, all running.
pub(super) struct Pods {
    processes: Vec<Process>,
    pub(super) addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Pods {
    pub(super) fn start(count: usize, in_a_process: usize) -> Result<Self> {
        let folder = if Path::new(MEMORY_BACKED).is_dir() {
            tempfile::tempdir_in(MEMORY_BACKED)
        } else {
            tempfile::tempdir()
        };
        let folder = folder.context("there is no folder for bundles")?;
        let mut processes = Vec::new();
        let mut files = Vec::new();
        for first in (0..count).step_by(in_a_process) {
            let file = folder.path().join(format!("addresses-{first}"));
            let mut command = Command::new(current_exe()?);
            command
                .arg("serve-pods")
                .arg(format!("--first={first}"))
                .arg(format!("--count={}", in_a_process.min(count - first)))
                .arg("--folder")
                .arg(folder.path())
                .arg("--addresses")
                .arg(&file);
            let log = folder.path().join(format!("pods-{first}.log"));
            processes.push(Process::start_anywhere(&mut command, &log)?);
            files.push(file);
        }
        let mut addresses = Vec::new();
        let until = Instant::now() + PATIENCE;
        for (process, file) in processes.iter_mut().zip(&files) {
            while !file.exists() {
                process.check()?;
                if Instant::now() > until {
                    bail!("pods do not listen after {PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            for line in fs::read_to_string(file)?.lines() {
                addresses.push(line.parse()?);
            }
        }
        Ok(Self {
            processes,
            addresses,
            _folder: folder,
        })
    }

    pub(super) fn processor_time(&self) -> Result<ProcessorTime> {
        let mut all = ProcessorTime::default();
        for process in &self.processes {
            all.add(process.processor_time()?);
        }
        Ok(all)
    }
}

pub(super) fn pod_id(number: usize) -> Result<PodId> {
    Ok(PodId::new(format!("pod-{number}"))?)
}

/// Never the network's own address nor its last.
fn address(number: usize) -> Result<Ipv4Addr> {
    let number = u32::try_from(number)?;
    let [_, high, middle, low] = (number / 250 * 256 + number % 250 + 1).to_be_bytes();
    Ok(Ipv4Addr::new(127, 32 + high, middle, low))
}

/// With a thread a core.
pub(crate) fn run(args: &PodsArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_pods(args))
}

async fn serve_pods(args: &PodsArgs) -> Result<()> {
    let specimen = Specimen::new();
    let workload = Workload::new(WORKLOAD)?;
    let mut addresses = String::new();
    let mut served = tokio::task::JoinSet::new();
    for number in args.first..args.first + args.count {
        let mut config = specimen.config(Hop::new(WORKLOAD));
        config.pod = pod_id(number)?;
        config.workload = workload.clone();
        config.ack_key = Some(specimen.ack_key(&workload));
        config.clock = Clock::system().as_fn();
        config.state_dir = Some(args.folder.join(format!("pod-{number}")));
        let verifier = Verifier::start(config).await?;
        let listener = listen(SocketAddr::from((address(number)?, 0)))?;
        addresses.push_str(&listener.local_addr()?.to_string());
        addresses.push('\n');
        let lifecycle = Lifecycle::new(Duration::ZERO, Duration::ZERO);
        served.spawn(serve(
            listener,
            keys_endpoint::router(verifier),
            lifecycle,
            Limits::default(),
        ));
    }
    // It appears whole or not at all.
    let written = args.addresses.with_extension("new");
    fs::write(&written, addresses)?;
    fs::rename(written, &args.addresses)?;
    // Until this process is ended.
    while let Some(ended) = served.join_next().await {
        ended??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_a_loopback_address_of_its_own() {
        let all: std::collections::HashSet<Ipv4Addr> =
            (0..20_000).map(|number| address(number).unwrap()).collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
        assert!(all.iter().all(|address| !matches!(address.octets()[3], 0 | 255)));
    }
}
