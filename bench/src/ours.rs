//! Our own programs as they run in production, on ports of this machine: access log, traces sampled at one in a hundred
//! and exported, metrics, limits and timeouts.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::chain::Chain;
use crate::peers::{Proxy, Setting, ports};
use crate::process::Process;

/// Beyond any cache that is measured.
const CACHE_BYTES: u64 = 1 << 30;

/// How a gateway is started.
pub(crate) struct Gateway<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) cached_tokens: u32,
    pub(crate) access_log: bool,
    /// YAML, an item a line.
    pub(crate) routes: String,
    /// On the measured core; otherwise wherever this thread may run, with a thread for each of those cores.
    pub(crate) on_one_core: bool,
}

impl<'a> Gateway<'a> {
    /// As in production, on the measured core.
    pub(crate) fn new(name: &'a str, program: &'a Path, routes: String) -> Self {
        Self {
            name,
            program,
            cached_tokens: 10_000,
            access_log: true,
            routes,
            on_one_core: true,
        }
    }

    /// Returns once it takes connections on all its ports (`main`, `admin` and `keys`) and says that it is ready: before it
    /// holds keys it answers every token with 503.
    pub(crate) fn start(&self, setting: &Setting<'_>) -> Result<Proxy> {
        let mut proxy = self.spawn(setting)?;
        proxy.wait()?;
        proxy.wait_until_ready()?;
        Ok(proxy)
    }

    /// Returns at once.
    pub(crate) fn spawn(&self, setting: &Setting<'_>) -> Result<Proxy> {
        let config = setting.folder.join(format!("{}.yaml", self.name));
        let workers = if self.on_one_core { "workers: 1\n" } else { "" };
        fs::write(
            &config,
            format!("hop: {{name: gateway}}\n{workers}routes:\n{}", self.routes),
        )?;
        let mut command = Command::new(self.program);
        command
            .arg("--config")
            .arg(&config)
            .arg(format!("--otlp-endpoint=http://{}", setting.upstream))
            .arg(format!("--access-log={}", self.access_log));
        let ports = verifying(&mut command, setting, "gateway", self.cached_tokens)?;
        spawn(setting, self.name, ports, &mut command, self.on_one_core)
    }
}

/// An item service, or what stands in for one.
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    pub(crate) hop: &'a str,
    pub(crate) program: &'a Path,
    /// What comes before the flags, such as a verb.
    pub(crate) arguments: Vec<String>,
    /// What nobody else should read.
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) cached_tokens: u32,
    pub(crate) on_one_core: bool,
}

impl Service<'_> {
    /// Returns at once; it is ready when `/readyz` on its admin port says so, or when it takes connections if it has no
    /// such port.
    pub(crate) fn spawn(&self, setting: &Setting<'_>) -> Result<Proxy> {
        let mut command = Command::new(self.program);
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let ports = verifying(&mut command, setting, self.hop, self.cached_tokens)?;
        spawn(setting, self.name, ports, &mut command, self.on_one_core)
    }
}

/// The flags of whoever verifies, and its ports.
fn verifying(
    command: &mut Command,
    setting: &Setting<'_>,
    workload: &str,
    cached_tokens: u32,
) -> Result<Vec<(&'static str, SocketAddr)>> {
    let bundle = setting.folder.join("bundle.jws");
    let anchor = setting.chain.anchor();
    if !bundle.exists() {
        setting.chain.write_bundle(&bundle)?;
    }
    command
        .args([
            "--listen-address=127.0.0.1".to_owned(),
            format!("--workload={workload}"),
            format!("--pod-uid=bench-{workload}"),
            format!("--chain-uid={}", Chain::chain_uid()),
            format!("--trust-anchor={anchor}"),
            format!("--token-cache-tokens={cached_tokens}"),
            format!("--token-cache-bytes={CACHE_BYTES}"),
        ])
        .args([OsStr::new("--bundle-file"), bundle.as_os_str()]);
    let ports = ports(["main", "admin", "keys"])?;
    for (flag, (_, address)) in ["port", "admin-port", "keys-port"].iter().zip(&ports) {
        command.arg(format!("--{flag}={}", address.port()));
    }
    Ok(ports)
}

fn spawn(
    setting: &Setting<'_>,
    name: &str,
    ports: Vec<(&'static str, SocketAddr)>,
    command: &mut Command,
    on_one_core: bool,
) -> Result<Proxy> {
    let log = setting.folder.join(format!("{name}.log"));
    let process = if on_one_core {
        Process::start(command, &log)?
    } else {
        Process::start_anywhere(command, &log)?
    };
    Ok(Proxy { process, ports })
}
