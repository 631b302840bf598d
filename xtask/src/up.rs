//! `cargo xtask up`: from whatever this machine has to a running cluster, and a chain on it that answers.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cache::Cache;
use crate::cluster::{self, Mode, Record, Wanted};
use crate::example::{self, Example};
use crate::program_image::{self, CLI, PROBE, PROGRAMS};
use crate::step::{Report, Workshop};
use crate::terminal::{print, say};
use crate::versions::Versions;
use crate::{airgap, charts, host, online};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterName,
    /// 1 or 3 [default: 1, or what the cluster has].
    #[arg(long, value_parser = parse_nodes)]
    pub(crate) nodes: Option<u8>,
    /// The port of 127.0.0.1 that leads to the gateway [default: 8080, or what the cluster has].
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Take nothing from an image registry, even if one answers.
    #[arg(long, conflicts_with = "online")]
    pub(crate) airgap: bool,
    /// Use published images, without asking whether a registry answers.
    #[arg(long)]
    pub(crate) online: bool,
    /// Stop once the operator runs; apply no chain.
    #[arg(long)]
    pub(crate) without_example: bool,
    /// Print what was made as one line of JSON, the last one.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterName {
    /// The cluster's name.
    #[arg(id = "cluster", long = "cluster", default_value = "servicechain", value_parser = parse_name)]
    pub(crate) name: String,
}

/// One line for programs; what `servicechain local --json` says too has the same names.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    answering: Option<Answering<'a>>,
    cluster: &'a Record,
    steps: Vec<Report>,
}

#[derive(Serialize)]
struct Answering<'a> {
    chain: &'a str,
    namespace: &'a str,
    gateway: &'a str,
    issuer: Option<&'a str>,
    token: &'a str,
    answer: &'a Value,
}

pub(crate) fn run(args: &UpArgs) -> anyhow::Result<()> {
    let mut workshop = Workshop::new(Cache::open()?);
    let record = bring_up(&mut workshop, args, For::Use)?;
    let bin = tools(&mut workshop, &record)?;
    let example = if args.without_example {
        None
    } else {
        Some(example::deploy(&mut workshop, &record)?)
    };
    let (summary, steps) = workshop.finish("servicechain up");
    if args.json {
        say(summary);
        let answering = example.as_ref().map(|example| Answering {
            chain: example::CHAIN,
            namespace: example::NAMESPACE,
            gateway: example.gateway(),
            issuer: example.issuer(),
            token: &example.request.token,
            answer: &example.request.answer,
        });
        print(serde_json::to_string(&Outcome {
            answering,
            cluster: &record,
            steps,
        })?);
        return Ok(());
    }
    show(&record, &bin, example.as_ref());
    print(summary);
    Ok(())
}

/// A folder with what talks to the cluster, under the names people call it by.
fn tools(workshop: &mut Workshop, record: &Record) -> anyhow::Result<PathBuf> {
    let cli = workshop
        .make(&program_image::programs(&[CLI]), None)?
        .folder
        .join(CLI);
    let bin = workshop.cache.cluster(&record.name).join("bin");
    let absolute = |program: &Path| program.is_absolute().then(|| program.to_owned());
    let tools = [
        ("servicechain", Some(cli.clone())),
        ("kubectl-chain", Some(cli)),
        // A machine's own is on the PATH as it is.
        ("kubectl", absolute(&record.kubectl)),
        ("helm", absolute(&record.helm)),
    ];
    let link = |name: &str, program: &Path| {
        let link = bin.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::os::unix::fs::symlink(program, &link),
        }
    };
    std::fs::create_dir_all(&bin)
        .and_then(|()| {
            let mut there = tools
                .iter()
                .filter_map(|(name, program)| Some((name, program.as_ref()?)));
            there.try_for_each(|(name, program)| link(name, program))
        })
        .with_context(|| format!("cannot fill {}", bin.display()))?;
    Ok(bin)
}

/// What was made, and lines that work as they are printed.
fn show(record: &Record, bin: &Path, example: Option<&Example>) {
    print(format_args!(
        "cluster {} · {} node(s) · NodePort 30080 is http://127.0.0.1:{}",
        record.name, record.nodes, record.port
    ));
    if let Some(example) = example {
        let (summary, gateway) = (&example.chain["status"]["summary"], example.gateway());
        let field = |name: &str| summary[name].as_str().unwrap_or("?");
        print(format_args!(
            "chain {} · Ready · services {} · keys {}",
            example::CHAIN,
            field("services"),
            field("keys")
        ));
        print(format_args!("  gateway  {gateway}"));
        print(format_args!("  request  {}", example.request));
    }
    print("  try it:");
    print(format_args!(
        "    export KUBECONFIG={}",
        record.kubeconfig.display()
    ));
    print(format_args!("    export PATH=\"{}:$PATH\"", bin.display()));
    if let Some(host) = &record.docker_host {
        print(format_args!("    export DOCKER_HOST={host}"));
    }
    if let Some(example) = example {
        let (namespace, chain) = (example::NAMESPACE, example::CHAIN);
        let url = format!("{}/items/1", example.gateway());
        let bearer = r#"-H "Authorization: Bearer $TOKEN""#;
        print(format_args!("    kubectl get chain -n {namespace}"));
        print(format_args!(
            "    export TOKEN=$(servicechain token -n {namespace} {chain})"
        ));
        print(format_args!(
            r#"    curl -X PUT {bearer} -H 'Content-Type: application/json' -d '{{"name":"lamp"}}' {url}"#
        ));
        print(format_args!("    curl {bearer} {url}"));
    }
}

/// Whom a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Use,
    /// With the probe's image, and NodePorts for several chains at once.
    Tests,
}

/// The NodePorts that tests share, besides the gateway's own.
const TEST_NODE_PORTS: u16 = 4;

/// Every step to a running cluster with an operator.
pub(crate) fn bring_up(workshop: &mut Workshop, args: &UpArgs, whom: For) -> anyhow::Result<Record> {
    let mode = mode(args);
    let wanted = Wanted {
        name: args.cluster.name.clone(),
        nodes: args.nodes,
        port: args.port,
        more_node_ports: if whom == For::Tests { TEST_NODE_PORTS } else { 0 },
        mode,
    };
    let _lock = workshop.cache.lock(&format!("cluster-{}", wanted.name))?;
    cluster::check(&workshop.cache, &wanted)?;
    let mut parts = match mode {
        Mode::Airgap => airgap::make(workshop, &PROGRAMS)?,
        Mode::Online => online::make(workshop, &PROGRAMS)?,
    };
    if whom == For::Tests {
        let step = match mode {
            Mode::Airgap => program_image::programs(&[PROBE]),
            Mode::Online => online::programs_in_docker(&Versions::read()?, &[PROBE]),
        };
        let folder = workshop.make(&step, Some(&parts.engine))?.folder;
        parts
            .images
            .extend(program_image::make(workshop, &parts.engine, &folder, &[PROBE])?);
    }
    let record = workshop.act("cluster", |cache| cluster::ensure(cache, &wanted, &parts))?;
    workshop.act("load", |cache| Ok(((), cluster::load(cache, &record, &parts)?)))?;
    record.write(&workshop.cache)?;
    workshop.act("charts", |cache| Ok(((), charts::install(cache, &record)?)))?;
    Ok(record)
}

fn mode(args: &UpArgs) -> Mode {
    let (mode, reason) = match (args.airgap, args.online) {
        (true, _) => (Mode::Airgap, "asked for"),
        (_, true) => (Mode::Online, "asked for"),
        _ if host::reaches_a_registry() => (Mode::Online, "an image registry answers"),
        _ => (Mode::Airgap, "no image registry answers"),
    };
    say(match mode {
        Mode::Airgap => format!("from Go modules and Debian's packages: {reason}"),
        Mode::Online => format!("from published images: {reason}"),
    });
    mode
}

/// One node, or a control plane with two workers.
fn parse_nodes(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("a cluster has 1 or 3 nodes".to_owned()),
    }
}

/// It becomes part of nodes' host names.
fn parse_name(text: &str) -> Result<String, String> {
    let is_label = (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_label {
        Ok(text.to_owned())
    } else {
        Err("a name has up to 40 lower-case letters, digits and dashes, and no dash at either end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_be_host_names_are_refused() {
        for good in ["servicechain", "servicechain-e2e", "a", "3"] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "../a", &"a".repeat(41)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_nodes_are_refused() {
        assert_eq!(parse_nodes("3"), Ok(3));
        assert!(parse_nodes("2").is_err());
    }
}
