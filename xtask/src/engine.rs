//! The Docker engine: the one that answers already, else one of our own beside it, which `down` ends again.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cache::Cache;
use crate::child;
use crate::terminal::say;
use crate::workspace;

/// One for all caches of the machine: two engines would write over each other's firewall rules.
const RUN: &str = "/run/servicechain";
const HOST: &str = "unix:///run/servicechain/docker.sock";

#[derive(Clone, Debug)]
pub(crate) struct Engine {
    is_ours: bool,
}

impl Engine {
    /// An engine that answers; ours first.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        for engine in [Self { is_ours: true }, Self { is_ours: false }] {
            if engine.is_ours && !Path::new(RUN).exists() {
                continue;
            }
            let Some(data) = child::ask(engine.docker().args(["info", "--format", "{{.DockerRootDir}}"]))
            else {
                continue;
            };
            // An engine that does not answer makes the client print nothing and succeed, in some versions.
            if data.is_empty() {
                continue;
            }
            if engine.is_ours && !Path::new(&data).exists() {
                bail!(
                    "the Docker engine of an earlier run has lost its data in {data}; `cargo xtask down` ends it"
                );
            }
            return Ok(Some(engine));
        }
        Ok(None)
    }

    /// An engine that answers, started if need be. The flag says whether it was.
    pub(crate) fn find_or_start(cache: &Cache) -> anyhow::Result<(Self, bool)> {
        let _lock = cache.lock("engine")?;
        if let Some(engine) = Self::find()? {
            return Ok((engine, false));
        }
        say("engine: no Docker engine answers; starting one of our own");
        child::run(
            Command::new(workspace::path("cluster/airgap/engine-start.sh"))
                .env("RUN", RUN)
                .env("DATA", cache.root().join("docker")),
            "engine",
            &cache.log("engine"),
        )?;
        Ok((Self { is_ours: true }, true))
    }

    /// Ends the engine if it is ours and nothing is left on it. True if it was ended.
    pub(crate) fn stop_if_idle(cache: &Cache) -> anyhow::Result<bool> {
        let _lock = cache.lock("engine")?;
        let ours = Self { is_ours: true };
        if !Path::new(RUN).join("docker.pid").exists() {
            return Ok(false);
        }
        if let Some(left) = child::ask(ours.docker().args(["ps", "--all", "--format", "{{.Names}}"]))
            && !left.is_empty()
        {
            say(format_args!(
                "engine: kept, since it holds {}",
                left.replace('\n', ", ")
            ));
            return Ok(false);
        }
        child::run(
            Command::new(workspace::path("cluster/airgap/engine-stop.sh")).env("RUN", RUN),
            "engine",
            &cache.log("engine"),
        )?;
        Ok(true)
    }

    /// What a program that talks to this engine must have in its environment.
    pub(crate) fn environment(&self) -> Option<(&'static str, &'static str)> {
        self.is_ours.then_some(("DOCKER_HOST", HOST))
    }

    pub(crate) fn docker(&self) -> Command {
        self.command("docker")
    }

    /// `program`, talking to this engine.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }

    pub(crate) fn image_id(&self, image: &str) -> Option<String> {
        child::ask(
            self.docker()
                .args(["image", "inspect", "--format", "{{.Id}}", image]),
        )
    }

    /// The nodes of a kind cluster, running or not, as (name, state).
    pub(crate) fn nodes(&self, cluster: &str) -> anyhow::Result<Vec<(String, String)>> {
        let filter = format!("label=io.x-k8s.kind.cluster={cluster}");
        let format = "{{.Names}} {{.State}}";
        let listed = child::answer(
            self.docker()
                .args(["ps", "--all", "--filter", &filter, "--format", format]),
        )
        .context("cannot list the nodes")?;
        let mut nodes: Vec<_> = listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
            .collect();
        nodes.sort();
        Ok(nodes)
    }
}
