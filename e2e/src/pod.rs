//! One verifier pod of a chain, asked through the API server, whatever Services and policies say: what it answers to a
//! request, what it holds, what it counts.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::future::try_join_all;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::request;
use crate::shop::{Shop, is_ready};
use crate::token_load::{HOPS, ITEM, Token};

const WITHIN: Duration = Duration::from_secs(10);
const MAIN_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;
const KEYS_PORT: u16 = 9091;
const COMPONENT: &str = "servicechain.dev/component";
/// Counts what the next hop refused although it is good here.
const DISAGREEMENTS: &str = "servicechain_verdict_disagreements_total";

/// The status of a pod's answer to a request, which must ask for the connection's end.
pub async fn ask(pods: &Api<Pod>, pod: &Pod, request: &[u8]) -> anyhow::Result<u16> {
    let name = name(pod)?;
    let exchange = async {
        let mut forwarder = pods.portforward(name, &[MAIN_PORT]).await?;
        let mut stream = forwarder
            .take_stream(MAIN_PORT)
            .context("the port is not forwarded")?;
        stream.write_all(request).await?;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await?;
        drop(stream);
        forwarder.abort();
        let status = std::str::from_utf8(&start)?
            .rsplit(' ')
            .next()
            .unwrap_or_default();
        let status = status.parse::<u16>();
        status.with_context(|| format!("no answer: {}", String::from_utf8_lossy(&start)))
    };
    let asked = tokio::time::timeout(WITHIN, exchange).await;
    asked
        .unwrap_or_else(|_| Err(anyhow!("it took longer than {WITHIN:?}")))
        .with_context(|| format!("pod {name}"))
}

/// Gives a token's subject an item of its own name on every hop, each asked by itself.
pub async fn put_items(shop: &Shop, token: &Token) -> anyhow::Result<()> {
    let item = json!({"name": token.subject}).to_string();
    let bearer = format!("Bearer {}", token.text);
    let headers = [("authorization", bearer.as_str()), ("connection", "close")];
    let request = request("PUT", ITEM, &headers, &item);
    let puts = HOPS.map(async |hop| {
        let pods = shop.pods(hop).await?;
        let pod = pods.iter().find(|pod| is_ready(pod)).context("no pod is ready")?;
        let status = ask(&shop.api(), pod, &request).await?;
        if !matches!(status, 200 | 201) {
            bail!("{hop} answers {status} to {}", token.subject);
        }
        Ok(())
    });
    try_join_all(puts).await?;
    Ok(())
}

/// What each ready pod of the gateway and of the services answers to a token, asked by itself, by the pod's name.
pub async fn statuses(shop: &Shop, token: &Token) -> anyhow::Result<Vec<(String, u16)>> {
    let mut pods = Vec::new();
    for component in ["gateway"].into_iter().chain(HOPS) {
        pods.extend(shop.pods(component).await?.into_iter().filter(is_ready));
    }
    let (api, request) = (shop.api(), token.get(ITEM, "close"));
    let asked = pods.iter().map(async |pod| {
        let status = ask(&api, pod, &request).await?;
        Ok((name(pod)?.to_owned(), status))
    });
    try_join_all(asked).await
}

/// The generation that a pod holds and would hold again after a restart.
pub async fn durable_generation(client: &Client, pod: &Pod) -> anyhow::Result<u64> {
    let uid = pod.metadata.uid.as_deref().context("the pod has no uid")?;
    let request = Request::get(proxy(pod, KEYS_PORT, "keys/v1/keys")?)
        .header("Pod-Uid", uid)
        .header("Nonce", "AAAAAAAAAAAAAAAAAAAAAA")
        .body(Vec::new())?;
    let answer: Value = client.request(request).await?;
    if answer["durable"] != true {
        return Ok(0);
    }
    answer["held"]["gen"]
        .as_u64()
        .with_context(|| format!("{answer}"))
}

/// How often a pod's next hop came to another verdict than the pod itself.
pub async fn disagreements(client: &Client, pod: &Pod) -> anyhow::Result<u64> {
    let request = Request::get(proxy(pod, ADMIN_PORT, "metrics")?).body(Vec::new())?;
    let page = client.request_text(request).await?;
    let counted = page.lines().filter(|line| line.starts_with(DISAGREEMENTS));
    let is_gateway = pod
        .labels()
        .get(COMPONENT)
        .is_some_and(|component| component == "gateway");
    if is_gateway && counted.clone().next().is_none() {
        bail!("the gateway does not count {DISAGREEMENTS}");
    }
    let counts = counted.map(|line| {
        let count = line.rsplit(' ').next().unwrap_or_default();
        count.parse::<u64>().with_context(|| line.to_owned())
    });
    counts.sum()
}

fn proxy(pod: &Pod, port: u16, path: &str) -> anyhow::Result<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Ok(format!(
        "/api/v1/namespaces/{namespace}/pods/{}:{port}/proxy/{path}",
        name(pod)?
    ))
}

fn name(pod: &Pod) -> anyhow::Result<&str> {
    pod.metadata.name.as_deref().context("the pod has no name")
}
