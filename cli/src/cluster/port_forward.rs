//! One HTTP exchange with a pod through the API server, as `kubectl port-forward` does it: it works from wherever
//! kubectl works, whatever Services and NetworkPolicies say.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;

use super::{Cluster, Question};
use crate::outcome::Failure;

/// The longest a pod may take to answer, once it is connected to.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(10);

/// Sends one request to a port of a pod, and reads its answer of at most `largest_answer` bytes.
pub(crate) async fn exchange(
    cluster: &Cluster,
    pod: &str,
    port: u16,
    request: Request<Full<Bytes>>,
    largest_answer: usize,
) -> Result<Bytes, Failure> {
    let question = Question {
        // The API server may ask for `get` too, since a WebSocket begins with a GET; its refusal says which.
        verb: "create",
        resource: "pods/portforward",
    };
    let pods = cluster.api::<Pod>();
    let mut forwarder = cluster.ask(question, pods.portforward(pod, &[port])).await?;
    let refused = forwarder.take_error(port);
    let stream = forwarder
        .take_stream(port)
        .context("the API server forwards no such port")?;
    let talk = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let body = Limited::new(answer.into_body(), largest_answer).collect().await;
            anyhow::Ok(body.map_err(|error| anyhow!(error))?.to_bytes())
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => {
                ended?;
                // What it read before its end is still to be taken.
                answer.await
            }
        }
    };
    let talked = tokio::time::timeout(EXCHANGE_WITHIN, talk)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", EXCHANGE_WITHIN.as_secs())));
    forwarder.abort();
    let answer = match (talked, refused) {
        (Ok(answer), _) => return Ok(answer),
        (Err(error), None) => error,
        // The kubelet's own words say more than that the stream ended; after the abort they are there or never come.
        (Err(error), Some(refused)) => match refused.await {
            Some(words) => anyhow!(words),
            None => error,
        },
    };
    Err(answer
        .context(format!("pod {pod} does not answer on port {port}"))
        .into())
}
