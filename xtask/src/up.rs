//! `cargo xtask up`: from whatever this machine has to a running cluster with our images in it.

use clap::Args;
use serde::Serialize;

use crate::cache::Cache;
use crate::cluster::{self, Mode, Record, Wanted};
use crate::program_image::{self, PROBE, PROGRAMS};
use crate::step::{Report, Workshop};
use crate::terminal::{print, say};
use crate::versions::Versions;
use crate::{airgap, host, online};

#[derive(Debug, Args)]
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
    /// Print what was made as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterName {
    /// The cluster's name.
    #[arg(id = "cluster", long = "cluster", default_value = "servicechain", value_parser = parse_name)]
    pub(crate) name: String,
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    cluster: &'a Record,
    url: String,
    steps: Vec<Report>,
}

pub(crate) fn run(args: &UpArgs) -> anyhow::Result<()> {
    let mut workshop = Workshop::new(Cache::open()?);
    let record = bring_up(&mut workshop, args, false)?;
    let (summary, steps) = workshop.finish("servicechain up");
    let url = format!("http://127.0.0.1:{}", record.port);
    if args.json {
        let outcome = Outcome {
            cluster: &record,
            url,
            steps,
        };
        print(serde_json::to_string_pretty(&outcome)?);
        say(summary);
        return Ok(());
    }
    print(format_args!(
        "cluster {} · {} node(s) · NodePort 30080 is {url}",
        record.name, record.nodes
    ));
    print(format_args!(
        "  export KUBECONFIG={}",
        record.kubeconfig.display()
    ));
    if let Some(host) = &record.docker_host {
        print(format_args!("  export DOCKER_HOST={host}"));
    }
    for image in record.images.values() {
        print(format_args!("  image  {image}"));
    }
    print(summary);
    Ok(())
}

/// Every step to a running cluster. With the probe's image if the end-to-end tests want it.
pub(crate) fn bring_up(workshop: &mut Workshop, args: &UpArgs, with_probe: bool) -> anyhow::Result<Record> {
    let mode = mode(args);
    let wanted = Wanted {
        name: args.cluster.name.clone(),
        nodes: args.nodes,
        port: args.port,
        mode,
    };
    let _lock = workshop.cache.lock(&format!("cluster-{}", wanted.name))?;
    let mut parts = match mode {
        Mode::Airgap => airgap::make(workshop, &PROGRAMS)?,
        Mode::Online => online::make(workshop, &PROGRAMS)?,
    };
    if with_probe {
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
