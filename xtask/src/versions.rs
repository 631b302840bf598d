//! cluster/versions.toml: every version a cluster is made from.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use crate::workspace;

const FILE: &str = "cluster/versions.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Versions {
    pub(crate) kubernetes: Version,
    pub(crate) etcd: Tagged,
    pub(crate) pause: Tag,
    pub(crate) coredns: Tagged,
    pub(crate) kind: Version,
    pub(crate) helm: Version,
    pub(crate) local_path_provisioner: Version,
    pub(crate) debian: Suite,
    pub(crate) postgres: Major,
    pub(crate) redis: Major,
    pub(crate) rust: Rust,
    tools: BTreeMap<String, String>,
}

/// Without a `v`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    pub(crate) version: String,
}

/// A version, and the tag under which kubeadm asks for its image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tagged {
    pub(crate) version: String,
    pub(crate) image_tag: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tag {
    pub(crate) image_tag: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    pub(crate) suite: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Major {
    pub(crate) major: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rust {
    pub(crate) builder_image: String,
}

impl Versions {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(workspace::path(FILE)).with_context(|| format!("cannot read {FILE}"))?;
        toml::from_str(&text).with_context(|| format!("{FILE} is not as it should be"))
    }
}

/// The version of a tool of the tests.
pub(crate) fn tool(name: &str) -> anyhow::Result<String> {
    let version = Versions::read()?.tools.remove(name);
    version.with_context(|| format!("{FILE} has no version of {name} in [tools]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_complete() {
        let versions = Versions::read().unwrap();
        let toolchain = std::fs::read_to_string(workspace::path("rust-toolchain.toml")).unwrap();
        let rust = versions.rust.builder_image.split([':', '-']).nth(1).unwrap();
        assert!(
            toolchain.contains(&format!("\"{rust}\"")),
            "{rust} is not the toolchain's version"
        );
    }
}
