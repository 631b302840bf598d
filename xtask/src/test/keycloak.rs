//! The Keycloak that tests of external issuers run: from Maven's repository into the project's cache, by its digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::prerequisites::{Program, ensure};
use crate::child;
use crate::terminal::say;

const PROGRAMS: [Program; 2] = [
    Program {
        name: "java",
        package: "openjdk-17-jre-headless",
    },
    Program {
        name: "mvn",
        package: "maven",
    },
];
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";
/// 147 MB, and what Maven itself needs at first.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(15);
const UNPACK_LIMIT: Duration = Duration::from_mins(5);

/// The folder with `kc.sh`.
pub(super) fn ensure_keycloak() -> Result<PathBuf> {
    ensure(&PROGRAMS)?;
    let version = crate::versions::tool("keycloak")?;
    let cache = crate::cache::folder()?;
    let home = cache.join(format!("keycloak-{version}"));
    let programs = home.join("bin");
    if programs.join("kc.sh").is_file() {
        return Ok(programs);
    }
    say(format_args!("fetching Keycloak {version} …"));
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Beside its place, so that it gets its name at once or never.
    let partial = cache.join(format!("keycloak-{version}.{}", std::process::id()));
    fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let fetched = fetch(&version, &partial, &home);
    // What is left of it is of no use to anybody.
    let _ = fs::remove_dir_all(&partial);
    fetched?;
    Ok(programs)
}

fn fetch(version: &str, partial: &Path, home: &Path) -> Result<()> {
    let mut copy = Command::new("mvn");
    copy.args(["--batch-mode", "--quiet", COPY])
        .arg(format!(
            "-Dartifact=org.keycloak:keycloak-quarkus-dist:{version}:tar.gz"
        ))
        .arg(format!("-DoutputDirectory={}", partial.display()));
    run(&mut copy, DOWNLOAD_LIMIT)?;
    let archive = partial.join(format!("keycloak-quarkus-dist-{version}.tar.gz"));
    check_digest(&archive, &crate::versions::tool("keycloak-sha256")?)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(&archive).arg("-C").arg(partial);
    run(&mut unpack, UNPACK_LIMIT)?;
    let unpacked = partial.join(format!("keycloak-{version}"));
    fs::rename(&unpacked, home).with_context(|| format!("cannot make {}", home.display()))
}

fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let status = child::run_within(command, limit)?;
    if !status.success() {
        bail!("{command:?} failed; its own words are above");
    }
    Ok(())
}

fn check_digest(archive: &Path, expected: &str) -> Result<()> {
    let bytes = fs::read(archive).with_context(|| format!("there is no {}", archive.display()))?;
    let digest = Sha256::digest(&bytes);
    let found: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let found = found.concat();
    if found != expected {
        bail!(
            "{} has the digest {found}, and should have {expected}; it is not used",
            archive.display()
        );
    }
    Ok(())
}
