//! The programs that the tests run for real. On Debian, as root, what is missing is installed, and said;
//! anywhere else nothing is changed and the error says what to install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::terminal::say;

/// A program that a test starts, and the Debian package that brings it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "cc",
        package: "gcc",
    },
    Program {
        name: "initdb",
        package: "postgresql",
    },
    Program {
        name: "redis-server",
        package: "redis-server",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
    },
    Program {
        name: "curl",
        package: "curl",
    },
    Program {
        name: "python3",
        package: "python3-venv",
    },
];

/// Makes every program of [`PROGRAMS`] available, or says which packages are wanted.
pub(super) fn ensure_programs() -> Result<()> {
    ensure(&PROGRAMS)
}

/// The same for these programs.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|program| !is_installed(program.name))
        .map(|program| program.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_debian_root()? {
        bail!(
            "programs are needed that are not installed; install the Debian packages `{}` (or your system's equals) and run this again",
            missing.join(" ")
        );
    }
    say(format_args!("installing Debian packages: {}", missing.join(" ")));
    apt_get(&["update", "-qq"])?;
    apt_get(
        &[
            &["install", "-y", "-qq", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat(),
    )
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Packages of servers start them; the tests start their own, on their own ports.
        .env("RUNLEVEL", "1")
        .status()
        .context("apt-get does not start")?;
    if !status.success() {
        bail!(
            "`apt-get {}` failed; its own words are above",
            arguments.join(" ")
        );
    }
    Ok(())
}

fn is_debian_root() -> Result<bool> {
    let id = Command::new("id")
        .arg("-u")
        .output()
        .context("`id -u` does not start")?;
    Ok(id.stdout.trim_ascii() == b"0" && Path::new("/etc/debian_version").exists())
}

/// Debian keeps PostgreSQL's programs outside the search path, one folder a major version.
fn is_installed(program: &str) -> bool {
    let postgres = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let folders = postgres.map(|version| version.path().join("bin"));
    search_path()
        .into_iter()
        .chain(folders)
        .any(|folder| folder.join(program).is_file())
}

fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}
