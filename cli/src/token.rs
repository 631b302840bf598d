//! `servicechain token`: asks an issuer for a token, as any client does (RFC 6749, section 4.4): of a running local
//! chain, or of one in a cluster (`in_cluster`).

mod in_cluster;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::cluster::Place;
use crate::outcome::Failure;
use crate::paint::tame;
use crate::print;
use crate::running::{self, Running, RunningClient, RunningIssuer, StateArgs, Which};

/// An issuer on this machine answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// More than any token answer.
const LARGEST_ANSWER: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of a chain in the cluster; without it the running local chain is meant
    chain: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    place: Place,
}

/// What to ask for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Wanted {
    /// Client to get the token as; default: the chain's first
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Issuer to get the token from; default: the first that has the client
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// Scope to ask for; may be repeated; default: all the client may have
    #[arg(long, value_name = "SCOPE")]
    pub scope: Vec<String>,
}

/// A token answer (RFC 6749, section 5.1), or a refusal (section 5.2).
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    error_description: Option<String>,
    error: Option<String>,
}

/// The token alone goes to standard output.
pub(crate) async fn run(args: Args, state: &StateArgs) -> Result<(), Failure> {
    let token = match &args.chain {
        Some(chain) => in_cluster::get(&args.place, chain, &args.wanted).await?,
        None => get(&running::find(state, &args.which)?, &args.wanted).await?,
    };
    print(&format!("{token}\n"))
}

/// Of a local chain.
pub(crate) async fn get(running: &Running, wanted: &Wanted) -> anyhow::Result<String> {
    let clients = running.issuers.iter().flat_map(|issuer| {
        let clients = issuer.clients.iter();
        clients.map(move |client| (issuer.name.as_str(), client.id.as_str(), (issuer, client)))
    });
    let issuers = running.issuers.iter().map(|issuer| issuer.name.as_str());
    let (issuer, client): (&RunningIssuer, &RunningClient) =
        first_fitting(&running.chain, wanted, issuers, clients)?;
    request(&issuer.url, client, &wanted.scope).await
}

/// The first of a chain's clients that is wanted. `clients` are an issuer's name, a client's id and what is chosen.
fn first_fitting<'a, T>(
    chain: &str,
    wanted: &Wanted,
    issuers: impl Iterator<Item = &'a str>,
    clients: impl Iterator<Item = (&'a str, &'a str, T)>,
) -> anyhow::Result<T> {
    let issuers: Vec<&str> = issuers.collect();
    if let Some(issuer) = &wanted.issuer
        && !issuers.contains(&issuer.as_str())
    {
        bail!(
            "chain {chain} has no issuer {issuer:?}; it has {}",
            issuers.join(", ")
        );
    }
    let mut ids = Vec::new();
    for (issuer, id, choice) in clients {
        if wanted.issuer.as_ref().is_some_and(|wanted| wanted != issuer) {
            continue;
        }
        if wanted.client.as_ref().is_none_or(|wanted| wanted == id) {
            return Ok(choice);
        }
        ids.push(id);
    }
    let of = match &wanted.issuer {
        Some(issuer) => format!("issuer {issuer} of chain {chain}"),
        None => format!("chain {chain}"),
    };
    match &wanted.client {
        Some(client) if !ids.is_empty() => bail!("{of} has no client {client:?}; it has {}", ids.join(", ")),
        _ => bail!("{of} has no client; add one under spec.issuers[].managed.clients"),
    }
}

/// Asks the issuer at `url` for a token.
pub(crate) async fn request(url: &str, client: &RunningClient, scopes: &[String]) -> anyhow::Result<String> {
    let request = credentials_request(url, client, scopes)?;
    let http = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let answer = http.request(request).await?;
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| anyhow!(error))?;
        anyhow::Ok(body.to_bytes())
    };
    let body = tokio::time::timeout(ANSWER_WITHIN, exchange)
        .await
        .with_context(|| format!("the issuer at {url} does not answer"))?
        .with_context(|| format!("the issuer at {url} cannot be asked"))?;
    token_of(&body, &format!("the issuer at {url}"), &client.id)
}

/// The request of a client that asks for itself (RFC 6749, section 4.4.2).
fn credentials_request(
    url: &str,
    client: &RunningClient,
    scopes: &[String],
) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        percent_encoded(&client.id),
        percent_encoded(&client.secret)
    );
    if !scopes.is_empty() {
        form.push_str("&scope=");
        form.push_str(&percent_encoded(&scopes.join(" ")));
    }
    let request = Request::post(format!("{url}/oauth2/token"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))?;
    Ok(request)
}

/// The token of an issuer's answer to a client.
fn token_of(body: &[u8], issuer: &str, client: &str) -> anyhow::Result<String> {
    let answer: Answer =
        serde_json::from_slice(body).with_context(|| format!("{issuer} gives no token answer"))?;
    match answer {
        Answer {
            access_token: Some(token),
            ..
        } => Ok(token),
        Answer {
            error,
            error_description,
            ..
        } => {
            let why = error_description
                .or(error)
                .unwrap_or_else(|| "no reason given".to_owned());
            bail!(
                "{issuer} refuses a token to client {client:?}: {}",
                tame(&why, 200)
            )
        }
    }
}

/// For a form (RFC 6749, appendix B): everything but unreserved characters is encoded.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(["%".to_owned(), format!("{byte:02X}")]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_holds_any_text() {
        assert_eq!(
            percent_encoded("items:read a&b=ü"),
            "items%3Aread%20a%26b%3D%C3%BC"
        );
    }

    #[test]
    fn the_first_client_that_fits_is_asked_for() {
        let choose = |issuer: Option<&str>, client: Option<&str>| {
            let wanted = Wanted {
                issuer: issuer.map(str::to_owned),
                client: client.map(str::to_owned),
                ..Wanted::default()
            };
            let clients = [("one", "demo", 1), ("two", "demo", 2), ("two", "batch", 3)];
            first_fitting(
                "shop",
                &wanted,
                ["one", "two", "none"].into_iter(),
                clients.into_iter(),
            )
            .map_err(|error| error.to_string())
        };
        assert_eq!(choose(None, None), Ok(1));
        assert_eq!(choose(Some("two"), None), Ok(2));
        assert_eq!(choose(None, Some("batch")), Ok(3));
        let no = |issuer, client, says: &str| assert_eq!(choose(issuer, client), Err(says.to_owned()));
        no(
            Some("three"),
            None,
            "chain shop has no issuer \"three\"; it has one, two, none",
        );
        no(
            Some("one"),
            Some("batch"),
            "issuer one of chain shop has no client \"batch\"; it has demo",
        );
        no(
            Some("none"),
            None,
            "issuer none of chain shop has no client; add one under spec.issuers[].managed.clients",
        );
    }

    #[test]
    fn a_refusal_is_said_in_the_issuers_words() {
        let said = token_of(
            br#"{"error":"invalid_scope","error_description":"no such scope"}"#,
            "issuer x",
            "demo",
        );
        assert_eq!(
            said.unwrap_err().to_string(),
            "issuer x refuses a token to client \"demo\": no such scope"
        );
    }
}
