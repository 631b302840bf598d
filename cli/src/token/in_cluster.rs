//! A token of a chain in a cluster: the client's credentials from its Secret, and an issuer's pod, asked through the
//! API server. So it works whatever kind of Service the gateway has, and without a route to the issuer.

use anyhow::{Context as _, anyhow};
use http::uri::Authority;
use http::{Uri, header};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use servicechain_crds::validated::{Client, Issuer, IssuerKind, ValidatedChain};
use servicechain_operator::object_names::{
    CHAIN_LABEL, CLIENT_ID_KEY, CLIENT_SECRET_KEY, COMPONENT_LABEL, Component,
};

use super::{LARGEST_ANSWER, Wanted, credentials_request, token_of};
use crate::accepted;
use crate::cluster::{Cluster, Place, Question, Unanswered, port_forward};
use crate::outcome::Failure;
use crate::running::RunningClient;

/// Where every pod of ours serves.
const MAIN_PORT: u16 = 8080;

pub(crate) async fn get(place: &Place, name: &str, wanted: &Wanted) -> Result<String, Failure> {
    let cluster = Cluster::find(place).await?;
    let chain = cluster.chain_or_others(name).await?;
    let chain = accepted::chain(&cluster, &chain).await?;
    let (issuer, client) = choose(&chain, wanted)?;
    let credentials = credentials(&cluster, &chain, client).await?;
    let pods = ready_pods(&cluster, &chain, issuer).await?;
    let mut failure = None;
    // Any of them will do; one that has just gone is no reason to fail.
    for pod in pods.iter().take(2) {
        let mut request = credentials_request(&issuer.url, &credentials, &wanted.scope)?;
        let host = authority(&issuer.url)?;
        request
            .headers_mut()
            .insert(header::HOST, host.as_str().parse().map_err(anyhow::Error::from)?);
        *request.uri_mut() = Uri::from_static("/oauth2/token");
        match port_forward::exchange(&cluster, pod, MAIN_PORT, request, LARGEST_ANSWER).await {
            Ok(answer) => {
                let who = format!("issuer {} of chain {name}", issuer.name);
                return Ok(token_of(&answer, &who, &credentials.id)?);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        Failure::Failed(anyhow!(
            "no pod of issuer {} of chain {name} is Ready; see `servicechain status -n {} {name}`",
            issuer.name,
            cluster.namespace
        ))
    }))
}

fn authority(url: &str) -> anyhow::Result<Authority> {
    let url: Uri = url.parse().context("the issuer's URL cannot be read")?;
    url.authority().cloned().context("the issuer's URL names no host")
}

/// The first issuer and client that fit what is wanted.
fn choose<'a>(chain: &'a ValidatedChain, wanted: &Wanted) -> anyhow::Result<(&'a Issuer, &'a Client)> {
    let all = || {
        chain.issuers.iter().flat_map(|issuer| {
            // Whoever else's issuer it is gives its tokens elsewhere.
            let clients = match &issuer.kind {
                IssuerKind::Managed(managed) => managed.clients.as_slice(),
                _ => &[],
            };
            clients.iter().map(move |client| (issuer, client))
        })
    };
    super::first_fitting(
        &chain.name,
        wanted,
        chain.issuers.iter().map(|issuer| issuer.name.as_str()),
        all().map(|(issuer, client)| (issuer.name.as_str(), client.id.as_str(), (issuer, client))),
    )
}

/// The Secret is read by its name alone, as `kubectl get secret` would.
async fn credentials(
    cluster: &Cluster,
    chain: &ValidatedChain,
    client: &Client,
) -> Result<RunningClient, Failure> {
    let name = &client.secret_name;
    let question = Question {
        verb: "get",
        resource: "secrets",
    };
    let secret = match cluster.ask(question, cluster.api::<Secret>().get(name)).await {
        Ok(secret) => secret,
        Err(Unanswered::NotFound(_)) => {
            let whose = if client.secret_is_given {
                "make it, with the keys clientID and clientSecret"
            } else {
                "the operator has not made it yet"
            };
            return Err(Failure::Failed(anyhow!(
                "Secret {name} of client {:?} of chain {} is not there: {whose}",
                client.id,
                chain.name
            )));
        }
        Err(other) => return Err(other.into()),
    };
    let value = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key))?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    match (value(CLIENT_ID_KEY), value(CLIENT_SECRET_KEY)) {
        (Some(id), Some(secret)) => Ok(RunningClient { id, secret }),
        _ => Err(Failure::Failed(anyhow!(
            "Secret {name} lacks a client's credentials: it must have the keys {CLIENT_ID_KEY} and {CLIENT_SECRET_KEY}"
        ))),
    }
}

/// Names of the issuer's pods that serve.
async fn ready_pods(
    cluster: &Cluster,
    chain: &ValidatedChain,
    issuer: &Issuer,
) -> Result<Vec<String>, Failure> {
    let question = Question {
        verb: "list",
        resource: "pods",
    };
    let component = Component::Issuer(&issuer.name).label();
    let selector = format!("{CHAIN_LABEL}={},{COMPONENT_LABEL}={component}", chain.name);
    let parameters = ListParams::default().labels(&selector);
    let pods = cluster
        .ask(question, cluster.api::<Pod>().list(&parameters))
        .await?;
    Ok(pods
        .items
        .into_iter()
        .filter(is_ready)
        .filter_map(|pod| pod.metadata.name)
        .collect())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let is_ready = conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}
