//! examples/shop.yaml on a cluster: applied as its own comment says, waited for, and asked once with a token.
//! What it must not know is how a chain is run; it sees what everybody with kubectl and curl sees.

mod conditions;
mod request;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cluster::Record;
use crate::step::Workshop;
use crate::terminal::{Ticker, duration, say};
use crate::{child, interrupt, workspace};

pub(crate) use request::Request;

pub(crate) const FILE: &str = "examples/shop.yaml";
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const CHAIN: &str = "shop";
/// Ten verifiers, three databases and three caches on two cores take about a minute.
const READY_WITHIN: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(500);

/// A chain that answers.
#[derive(Debug)]
pub(crate) struct Example {
    /// As the API server has it.
    pub(crate) chain: Value,
    pub(crate) request: Request,
}

/// Every step from a cluster with an operator to a request that was answered by three hops.
pub(crate) fn deploy(workshop: &mut Workshop, record: &Record) -> anyhow::Result<Example> {
    let chain = workshop.act("example", |cache| {
        let changed = apply(cache, record)?;
        let (chain, waited) = await_ready(record)?;
        Ok((chain, changed || waited))
    })?;
    let request = workshop.act("request", |_| Ok((request::make(record, &chain)?, true)))?;
    Ok(Example { chain, request })
}

impl Example {
    /// Where clients reach the gateway.
    pub(crate) fn gateway(&self) -> &str {
        gateway_url(&self.chain)
    }

    /// The `iss` of its tokens.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.chain["status"]["issuers"][0]["url"].as_str()
    }
}

fn gateway_url(chain: &Value) -> &str {
    chain["status"]["gateway"]["url"].as_str().unwrap_or_default()
}

/// True if anything was created or changed.
fn apply(cache: &Cache, record: &Record) -> anyhow::Result<bool> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    let file = cache.cluster(&record.name).join("namespace.json");
    std::fs::write(&file, namespace.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut changed = false;
    for file in [file, workspace::path(FILE)] {
        let said = child::answer(record.kubectl().args(["apply", "--filename"]).arg(&file))
            .with_context(|| format!("{} is refused", file.display()))?;
        changed |= !said.ends_with("unchanged");
    }
    Ok(changed)
}

/// The chain once it is Ready, and whether that had to be waited for. What is in the way is told as it changes.
fn await_ready(record: &Record) -> anyhow::Result<(Value, bool)> {
    let mut ticker = Ticker::new("example");
    let mut told = Vec::new();
    let mut waited = false;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let get = [
            "get",
            "servicechain",
            CHAIN,
            "--namespace",
            NAMESPACE,
            "--output=json",
        ];
        let chain: Value = serde_json::from_str(&child::answer(record.kubectl().args(get))?)
            .context("kubectl does not answer with JSON")?;
        let is_ready = conditions::is_ready(&chain);
        if is_ready && has_new_gateway(record) {
            return Ok((chain, waited));
        }
        if let Some(why) = conditions::never_accepted(&chain) {
            bail!("{FILE} is not accepted: {why}");
        }
        waited = true;
        let in_the_way = if is_ready {
            vec!["pods with the images of before are still being replaced".to_owned()]
        } else {
            conditions::in_the_way(&chain)
        };
        if Instant::now() > deadline {
            bail!(
                "chain {CHAIN} is not Ready after {}: {}. `kubectl --kubeconfig {} describe chain --namespace {NAMESPACE} \
                 {CHAIN}` tells more",
                duration(READY_WITHIN),
                in_the_way.join("; "),
                record.kubeconfig.display()
            );
        }
        for line in in_the_way.iter().filter(|line| !told.contains(*line)) {
            ticker.interrupt();
            say(format_args!("  {line}"));
        }
        ticker.tick(|| in_the_way.first().cloned().unwrap_or_default());
        told = in_the_way;
        interrupt::check()?;
        std::thread::sleep(PAUSE);
    }
}

/// Whether a rollout of new images, which comes to the gateway last, came that far. A chain may be Ready with the images
/// of before until an operator that was just upgraded has looked at it.
fn has_new_gateway(record: &Record) -> bool {
    let image = "--output=jsonpath={.spec.template.spec.containers[0].image}";
    let gateway = format!("deployment/{CHAIN}-gateway");
    let found = child::ask(
        record
            .kubectl()
            .args(["get", &gateway, "--namespace", NAMESPACE, image]),
    );
    found.is_some() && found.as_ref() == record.images.get("gateway")
}
