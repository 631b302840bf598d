//! Both charts, installed by helm as anybody installs them, with the images that are on the cluster's nodes as values.
//! A release that was made from the same chart and the same values is left as it is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::cluster::Record;
use crate::step::stamp;
use crate::versions::Versions;
use crate::{child, workspace};

/// Of the operator.
pub(crate) const NAMESPACE: &str = "servicechain-system";
pub(crate) const OPERATOR: &str = "deployment/servicechain-operator";
/// Two replicas, one after the other, of which one must get the lease.
const READY: &str = "120s";

/// Of PostgreSQL, in the values of the chart.
const CHART_MAJORS: [&str; 3] = ["15", "16", "17"];

/// A release and its chart have one name.
const CRDS: &str = "servicechain-crds";
const SERVICECHAIN: &str = "servicechain";

/// Installs or upgrades both, and waits for the operator. True if there was anything to do.
pub(crate) fn install(cache: &Cache, record: &Record) -> anyhow::Result<bool> {
    // The operator looks for its CRDs before it does anything.
    let crds = ensure(cache, record, CRDS, &json!({}))?;
    let operator = ensure(cache, record, SERVICECHAIN, &values(record)?)?;
    let rollout = [
        "rollout",
        "status",
        OPERATOR,
        "--namespace",
        NAMESPACE,
        "--timeout",
        READY,
    ];
    child::run(record.kubectl().args(rollout), "operator", &cache.log("operator")).with_context(|| {
        let kubeconfig = record.kubeconfig.display();
        format!(
            "the operator does not become ready; `kubectl --kubeconfig {kubeconfig} describe pod --namespace {NAMESPACE}` \
             tells more"
        )
    })?;
    Ok(crds || operator)
}

fn ensure(cache: &Cache, record: &Record, name: &str, values: &Value) -> anyhow::Result<bool> {
    let chart = Path::new("charts").join(name);
    let description = format!("cargo xtask up, {}", digest(&chart, values)?);
    if is_there(record, name, &description) {
        return Ok(false);
    }
    let file = cache.cluster(&record.name).join(format!("{name}.values.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(values)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = helm(record);
    command
        .args(["upgrade", "--install", "--create-namespace", name])
        .arg(workspace::path(&chart))
        .args(["--description", &description, "--values"])
        .arg(&file);
    child::run(&mut command, name, &cache.log(name))?;
    Ok(true)
}

/// Whether the release is as it was left, and the operator was not removed behind helm's back.
fn is_there(record: &Record, name: &str, description: &str) -> bool {
    let Some(status) = child::ask(helm(record).args(["status", name, "--output", "json"])) else {
        return false;
    };
    let Ok(status) = serde_json::from_str::<Value>(&status) else {
        return false;
    };
    let info = &status["info"];
    info["status"] == "deployed"
        && info["description"] == description
        && (name == CRDS
            || child::ask(record.kubectl().args(["get", OPERATOR, "--namespace", NAMESPACE])).is_some())
}

fn helm(record: &Record) -> Command {
    let mut command = Command::new(&record.helm);
    command
        .arg("--kubeconfig")
        .arg(&record.kubeconfig)
        .args(["--namespace", NAMESPACE]);
    command
}

fn values(record: &Record) -> anyhow::Result<Value> {
    let image = |name: &str| {
        let image = record.images.get(name);
        let image = image.with_context(|| format!("the cluster has no image of {name}"))?;
        let (repository, tag) = image.rsplit_once(':').context("an image has a tag")?;
        anyhow::Ok(json!({"repository": repository, "tag": tag}))
    };
    let major = Versions::read()?.postgres.major;
    if major.parse::<u16>().is_err() {
        bail!("cluster/versions.toml: {major:?} is no major version of PostgreSQL");
    }
    // Null takes out what the chart has by itself: a chain must not ask for an image that this cluster cannot get.
    let mut postgres: Map<String, Value> = CHART_MAJORS
        .map(|other| (other.to_owned(), Value::Null))
        .into_iter()
        .collect();
    postgres.insert(major.clone(), image("postgres")?);
    let urls: Map<String, Value> = record
        .node_ports
        .iter()
        .map(|(node_port, port)| (node_port.to_string(), format!("http://127.0.0.1:{port}").into()))
        .collect();
    Ok(json!({
        "images": {
            "operator": image("operator")?,
            "gateway": image("gateway")?,
            "itemService": image("item-service")?,
            "tokenIssuer": image("token-issuer")?,
            "postgres": postgres,
            "redis": image("redis")?,
        },
        "defaultPostgresMajor": major,
        "nodePortURLs": urls,
    }))
}

/// Of every file of the chart, and of the values.
fn digest(chart: &Path, values: &Value) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    for file in workspace::files(chart)? {
        let path = workspace::path(&file);
        let contents = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        hasher.update(file.as_os_str().as_encoded_bytes());
        hasher.update(contents.len().to_le_bytes());
        hasher.update(contents);
    }
    hasher.update(values.to_string());
    Ok(stamp::hexadecimal(&hasher.finalize())[..12].to_owned())
}
