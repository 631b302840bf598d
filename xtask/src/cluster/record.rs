//! What is known of a complete cluster: how to reach it, and what it was made of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Parts, Wanted};
use crate::cache::Cache;

const NAME: &str = "cluster.json";

/// Where a cluster's parts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Go modules and Debian's packages.
    Airgap,
    /// An image registry.
    Online,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) nodes: u8,
    /// Of 127.0.0.1: NodePort 30080.
    pub(crate) port: u16,
    /// By NodePort, the port of 127.0.0.1 that leads to it; 30080 among them.
    pub(crate) node_ports: BTreeMap<u16, u16>,
    pub(crate) kubeconfig: PathBuf,
    /// None: whatever `docker` talks to by itself.
    pub(crate) docker_host: Option<String>,
    pub(crate) node_image: Option<String>,
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
    pub(crate) images: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(
        wanted: &Wanted,
        parts: &Parts,
        nodes: u8,
        node_ports: BTreeMap<u16, u16>,
        kubeconfig: PathBuf,
    ) -> Self {
        let record = Self {
            name: wanted.name.clone(),
            mode: wanted.mode,
            nodes,
            port: node_ports.get(&super::NODE_PORT).copied().unwrap_or_default(),
            node_ports,
            kubeconfig,
            docker_host: None,
            node_image: parts.node_image.clone(),
            kubectl: PathBuf::new(),
            helm: PathBuf::new(),
            images: BTreeMap::new(),
        };
        record.with(parts)
    }

    /// With the parts of this run where a running cluster can take new ones.
    pub(super) fn with(self, parts: &Parts) -> Self {
        Self {
            docker_host: parts.engine.environment().map(|(_, host)| host.to_owned()),
            kubectl: parts.kubectl.clone(),
            helm: parts.helm.clone(),
            images: parts.images.clone(),
            ..self
        }
    }

    /// None if there is none, or none that can be read: then the cluster is half made.
    pub(crate) fn read(cache: &Cache, name: &str) -> Option<Self> {
        let text = std::fs::read(cache.cluster(name).join(NAME)).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        record.kubeconfig.is_file().then_some(record)
    }

    /// kubectl, talking to this cluster.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    pub(crate) fn path(&self, cache: &Cache) -> PathBuf {
        cache.cluster(&self.name).join(NAME)
    }

    pub(crate) fn write(&self, cache: &Cache) -> anyhow::Result<()> {
        let path = self.path(cache);
        let partial = path.with_extension("partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// True if anything was known.
    pub(super) fn forget(cache: &Cache, name: &str) -> anyhow::Result<bool> {
        let folder = cache.cluster(name);
        if !folder.exists() {
            return Ok(false);
        }
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(true)
    }

    /// A cluster is not changed under the feet of what runs on it.
    pub(super) fn require(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let (name, again) = (&self.name, self.again());
        if wanted.nodes.is_some_and(|nodes| nodes != self.nodes) {
            bail!(
                "cluster {name} has {} node(s); for another number {again}",
                self.nodes
            );
        }
        if wanted.port.is_some_and(|port| port != self.port) {
            bail!("cluster {name} is on port {}; for another one {again}", self.port);
        }
        if self.node_ports.len() <= usize::from(wanted.more_node_ports) {
            bail!("cluster {name} has too few NodePorts; for more {again}");
        }
        Ok(())
    }

    /// The same of what it was made from.
    pub(super) fn require_parts(&self, parts: &Parts) -> anyhow::Result<()> {
        let (name, again) = (&self.name, self.again());
        if parts.node_image != self.node_image {
            bail!(
                "cluster {name} was made from another node image than the one wanted now; to make it anew {again}"
            );
        }
        Ok(())
    }

    fn again(&self) -> String {
        format!(
            "run `cargo xtask down --cluster {}` first, which deletes what is in it",
            self.name
        )
    }
}
