//! One kind cluster: made, found again, repaired, filled with images, removed. What is known of it lies in its folder of
//! the cache, written when it is complete: nodes without that note are half made.

mod config;
mod record;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cache::Cache;
use crate::child;
use crate::engine::Engine;
use crate::interrupt;
use crate::terminal::{self, Ticker, say};
use crate::workspace;

pub(crate) use record::{Mode, Record};

/// How long the control plane, the nodes and the add-ons may take to be ready. A warm start takes half a minute.
const READY: &str = "180s";
const READY_DEADLINE: Duration = Duration::from_mins(3);
/// Where kind-config.yaml puts the gateway.
pub(crate) const PORT: u16 = 8080;
/// The gateway's, in kind-config.yaml and in examples/shop.yaml.
pub(crate) const NODE_PORT: u16 = 30080;

/// What a cluster is made of, and the programs that make it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kind: PathBuf,
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
    /// None: kind's own.
    pub(crate) node_image: Option<String>,
    /// By what runs in them.
    pub(crate) images: BTreeMap<String, String>,
    pub(crate) engine: Engine,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) nodes: Option<u8>,
    pub(crate) port: Option<u16>,
    /// NodePorts after the gateway's that lead to free ports of 127.0.0.1.
    pub(crate) more_node_ports: u16,
    pub(crate) mode: Mode,
}

/// Refuses early what [`ensure`] would refuse: everything it needs takes long to make.
pub(crate) fn check(cache: &Cache, wanted: &Wanted) -> anyhow::Result<()> {
    match Record::read(cache, &wanted.name) {
        Some(record) => record.require(wanted),
        // What an interrupted run left may hold the port, and goes.
        None if cache.cluster(&wanted.name).exists() => Ok(()),
        None => node_ports(wanted.port.unwrap_or(PORT), wanted.more_node_ports).map(drop),
    }
}

/// Makes the cluster unless it is there. The flag says whether anything was done.
pub(crate) fn ensure(cache: &Cache, wanted: &Wanted, parts: &Parts) -> anyhow::Result<(Record, bool)> {
    let nodes = parts.engine.nodes(&wanted.name)?;
    let known = Record::read(cache, &wanted.name);
    match known {
        Some(record) if !nodes.is_empty() => {
            record.require(wanted)?;
            record.require_parts(parts)?;
            let record = record.with(parts);
            let stopped: Vec<&str> = nodes
                .iter()
                .filter(|(_, state)| state != "running")
                .map(|(name, _)| name.as_str())
                .collect();
            if !stopped.is_empty() {
                say(format_args!("cluster: starting {} again", stopped.join(", ")));
                child::answer(parts.engine.docker().arg("start").args(&stopped)).with_context(|| {
                    format!(
                        "the nodes do not start again; `cargo xtask down --cluster {}`, then up",
                        wanted.name
                    )
                })?;
            }
            if stopped.is_empty() && is_ready(&record) {
                return Ok((record, false));
            }
            await_ready(cache, &record).with_context(|| {
                format!(
                    "the nodes run, but the cluster is not well; `cargo xtask down --cluster {}`, then up",
                    wanted.name
                )
            })?;
            Ok((record, true))
        }
        _ => {
            if !nodes.is_empty() {
                say("cluster: what an interrupted run left is half made; making it anew");
                remove(cache, &parts.engine, &wanted.name)?;
            }
            Ok((create(cache, wanted, parts)?, true))
        }
    }
}

/// Puts the images on every node that lacks them. The flag says whether any did.
pub(crate) fn load(cache: &Cache, record: &Record, parts: &Parts) -> anyhow::Result<bool> {
    // Nodes that lack the same images get them in one go.
    let mut missing: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    for (node, _) in parts.engine.nodes(&record.name)? {
        let list = ["ctr", "--namespace", "k8s.io", "images", "ls", "--quiet"];
        let there = child::answer(parts.engine.docker().args(["exec", &node]).args(list))
            .with_context(|| format!("cannot list the images of {node}"))?;
        let has = |image: &str| there.lines().any(|line| short(line) == image);
        let lacking: Vec<&str> = parts
            .images
            .values()
            .map(String::as_str)
            .filter(|image| !has(image))
            .collect();
        if !lacking.is_empty() {
            missing.entry(lacking).or_default().push(node);
        }
    }
    for (images, nodes) in &missing {
        let mut command = parts.engine.command(&parts.kind);
        command
            .args([
                "load",
                "docker-image",
                "--name",
                &record.name,
                "--nodes",
                &nodes.join(","),
            ])
            .args(images);
        child::run(&mut command, "load", &cache.log("load"))?;
    }
    Ok(!missing.is_empty())
}

/// An image's name as people write it: containerd spells out the registry and the library.
fn short(image: &str) -> &str {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}

/// Removes the nodes and what is known of them. True if there was anything.
pub(crate) fn remove(cache: &Cache, engine: &Engine, name: &str) -> anyhow::Result<bool> {
    let nodes = engine.nodes(name)?;
    if !nodes.is_empty() {
        let mut command = engine.docker();
        command
            .args(["rm", "--force", "--volumes"])
            .args(nodes.iter().map(|(node, _)| node));
        child::run(&mut command, "down", &cache.log("down"))?;
    }
    Ok(Record::forget(cache, name)? || !nodes.is_empty())
}

/// Forgets what is known of a cluster whose nodes are gone with their engine. True if anything was known.
pub(crate) fn forget(cache: &Cache, name: &str) -> anyhow::Result<bool> {
    Record::forget(cache, name)
}

fn create(cache: &Cache, wanted: &Wanted, parts: &Parts) -> anyhow::Result<Record> {
    let port = wanted.port.unwrap_or(PORT);
    let node_ports = node_ports(port, wanted.more_node_ports)?;
    let nodes = wanted.nodes.unwrap_or(1);
    let folder = cache.cluster(&wanted.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let original = std::fs::read_to_string(workspace::path(config::FILE))
        .with_context(|| format!("cannot read {}", config::FILE))?;
    let config = folder.join("kind-config.yaml");
    std::fs::write(&config, config::with(&original, nodes, &node_ports)?)
        .with_context(|| format!("cannot write {}", config.display()))?;
    let record = Record::new(wanted, parts, nodes, node_ports, folder.join("kubeconfig"));

    let mut command = parts.engine.command(&parts.kind);
    command
        .args([
            "create",
            "cluster",
            "--name",
            &wanted.name,
            "--wait",
            READY,
            "--config",
        ])
        .arg(&config);
    command.arg("--kubeconfig").arg(&record.kubeconfig);
    if let Some(image) = &parts.node_image {
        command.args(["--image", image]);
    }
    let created = child::run(&mut command, "cluster", &cache.log("cluster"));
    let created = created.and_then(|()| await_ready(cache, &record));
    if let Err(error) = created {
        // Half made, it would only be in the way.
        remove(cache, &parts.engine, &wanted.name)?;
        return Err(error);
    }
    record.write(cache)?;
    Ok(record)
}

/// Which port of 127.0.0.1 leads to which NodePort.
fn node_ports(port: u16, more: u16) -> anyhow::Result<BTreeMap<u16, u16>> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let first = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            bail!("port {port} of 127.0.0.1 cannot be used ({error}); end what listens there, or pass --port")
        }
    };
    // Held together, so that no two are the same.
    let mut listeners = vec![first];
    for _ in 0..more {
        listeners.push(listen(0).context("no port of 127.0.0.1 is free")?);
    }
    (NODE_PORT..)
        .zip(&listeners)
        .map(|(node_port, listener)| Ok((node_port, listener.local_addr()?.port())))
        .collect()
}

fn is_ready(record: &Record) -> bool {
    let status = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    let request = ["--request-timeout=5s", "get", "nodes", "--output", status];
    let ready = child::ask(record.kubectl().args(request)).unwrap_or_default();
    let statuses: Vec<&str> = ready.split_whitespace().collect();
    statuses.len() == usize::from(record.nodes) && statuses.iter().all(|status| *status == "True")
}

fn await_ready(cache: &Cache, record: &Record) -> anyhow::Result<()> {
    await_api_server(record)?;
    let timeout = format!("--timeout={READY}");
    for wait in [
        ["wait", "--for=condition=Ready", "nodes", "--all", &timeout].as_slice(),
        &[
            "rollout",
            "status",
            "--namespace=kube-system",
            "deployment/coredns",
            &timeout,
        ],
        &[
            "rollout",
            "status",
            "--namespace=local-path-storage",
            "deployment/local-path-provisioner",
            &timeout,
        ],
    ] {
        child::run(
            record.kubectl().args(wait),
            "cluster",
            &cache.log("cluster-ready"),
        )?;
    }
    Ok(())
}

/// A node that was started again answers after its API server has started, and kubectl does not wait for that.
fn await_api_server(record: &Record) -> anyhow::Result<()> {
    let mut ticker = Ticker::new("cluster");
    let deadline = Instant::now() + READY_DEADLINE;
    while child::ask(
        record
            .kubectl()
            .args(["--request-timeout=2s", "get", "--raw=/readyz"]),
    )
    .is_none()
    {
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!(
                "its API server did not answer within {}",
                terminal::duration(READY_DEADLINE)
            );
        }
        ticker.tick(|| "waiting for the API server".to_owned());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
