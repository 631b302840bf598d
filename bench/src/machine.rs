//! On what and with what a figure was taken.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use servicechain_runtime::clock::Clock;

use crate::settings::{Section, Settings};

pub(crate) fn describe() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    format!(
        "{cores} cores of {}, {} of memory, Linux {}",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        system.release().to_string_lossy()
    )
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// `2026-11-22`, in UTC.
pub(crate) fn today() -> String {
    jiff::Timestamp::try_from(Clock::system().now())
        .map(|now| now.strftime("%Y-%m-%d").to_string())
        .unwrap_or_default()
}

/// What each program says it is.
pub(crate) fn versions(section: Section, settings: &Settings) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let mut add = |name: &str, program: &Path, flag: &str| {
        if let Ok(output) = Command::new(program).arg(flag).output() {
            let said = [output.stdout, output.stderr].concat();
            if let Some(version) = version_in(&String::from_utf8_lossy(&said)) {
                versions.insert(name.to_owned(), version);
            }
        }
    };
    add("servicechain", &settings.gateway, "--version");
    if section == Section::Gateway {
        add("haproxy", Path::new("haproxy"), "-v");
    }
    if section == Section::Chain {
        add("redis-server", Path::new("redis-server"), "--version");
        add("psql", Path::new("psql"), "--version");
    }
    if section == Section::Verify {
        add("openssl", Path::new("openssl"), "version");
    }
    if settings.nginx {
        add("nginx", Path::new("nginx"), "-v");
    }
    if let Some(envoy) = &settings.envoy {
        add("envoy", envoy, "--version");
    }
    versions
}

/// The first thing that looks like one.
fn version_in(text: &str) -> Option<String> {
    text.split(|character: char| character.is_whitespace() || "/=".contains(character))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .map(|word| word.trim_end_matches(',').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("nginx version: nginx/1.22.1", "1.22.1"),
            (
                "HAProxy version 2.6.12-1+deb12u4 2025/10/02 - https://haproxy.org/",
                "2.6.12-1+deb12u4",
            ),
            ("servicechain-gateway 0.1.0", "0.1.0"),
            (
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1",
                "7.0.15",
            ),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
    }
}
