//! What this machine has and what it lacks. Only as root on Debian is anything installed; elsewhere it is said.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::cache::Cache;
use crate::child;
use crate::terminal::say;
use crate::workspace;

/// What a cluster without a network needs of Debian.
const PACKAGES: [&str; 12] = [
    "binutils",
    "ca-certificates",
    "containerd",
    "curl",
    "debootstrap",
    "docker.io",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "runc",
    "util-linux",
];
/// The oldest Go that reads the go.mod files of what is built.
const OLDEST_GO: (u32, u32) = (1, 25);
/// An image registry that does not answer within this is not there.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(3);
/// Its root answers 200 or 401.
const REGISTRY: &str = "https://registry-1.docker.io/v2/";

/// Whether an image registry answers. Quick either way.
pub(crate) fn reaches_a_registry() -> bool {
    let status = child::ask(
        Command::new("curl")
            .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"])
            .arg(format!("--max-time={}", REGISTRY_TIMEOUT.as_secs()))
            .arg(REGISTRY),
    );
    matches!(status.as_deref(), Some("200" | "401"))
}

/// Installs what the air-gapped path lacks, or says what to install. True if anything was.
pub(crate) fn prepare_airgap(cache: &Cache) -> anyhow::Result<bool> {
    if std::env::consts::ARCH != "x86_64" || !is_debian() || !rustix::process::geteuid().is_root() {
        bail!(
            "without an image registry, a cluster is made from Debian's packages and needs Debian on x86-64 and root; \
             this is {} on {}, as uid {}. Where a registry answers, install Docker, kind, kubectl and helm and pass \
             --online",
            system(),
            std::env::consts::ARCH,
            rustix::process::geteuid().as_raw()
        );
    }
    require_go()?;
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    say(format_args!("packages: installing {}", missing.join(" ")));
    child::run(
        Command::new(workspace::path("cluster/airgap/packages.sh")).env("PACKAGES", missing.join(" ")),
        "packages",
        &cache.log("packages"),
    )?;
    Ok(true)
}

/// The online path takes what is there.
pub(crate) fn require_online_tools() -> anyhow::Result<()> {
    let missing: Vec<&str> = ["docker", "kind", "kubectl", "helm", "curl"]
        .into_iter()
        .filter(|tool| !is_on_the_path(tool))
        .collect();
    if !missing.is_empty() {
        bail!(
            "not on the PATH: {}. Install {} and run this again; nothing was changed",
            missing.join(", "),
            if missing.len() == 1 { "it" } else { "them" }
        );
    }
    Ok(())
}

/// Go compiles what no registry serves.
pub(crate) fn require_go() -> anyhow::Result<()> {
    let (major, minor) = OLDEST_GO;
    let Some(found) = child::ask(Command::new("go").args(["env", "GOVERSION"])) else {
        bail!("no `go` on the PATH; install Go {major}.{minor} or later");
    };
    if go_version(&found) < Some(OLDEST_GO) {
        bail!("{found} is too old; install Go {major}.{minor} or later");
    }
    Ok(())
}

/// `go1.26.8` is (1, 26).
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split(['.', 'r', 'b', ' ', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn is_installed(package: &str) -> bool {
    let status =
        child::ask(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]));
    status.as_deref() == Some("installed")
}

fn is_on_the_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn is_debian() -> bool {
    os_release("ID").as_deref() == Some("debian")
}

fn system() -> String {
    os_release("PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn os_release(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_compare_by_their_numbers() {
        assert!(go_version("go1.25") >= Some(OLDEST_GO));
        assert!(go_version("go1.26.8") >= Some(OLDEST_GO));
        assert!(go_version("go1.9.7") < Some(OLDEST_GO));
        assert!(go_version("go1.25rc1") >= Some(OLDEST_GO));
        assert!(go_version("devel") < Some(OLDEST_GO));
    }
}
