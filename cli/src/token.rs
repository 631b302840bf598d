//! `servicechain token`: asks a running local chain's issuer for a token, as any client does (RFC 6749, section 4.4).

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::running::{Running, RunningClient, RunningIssuer};

/// An issuer on this machine answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// More than any token answer.
const LARGEST_ANSWER: usize = 256 * 1024;

/// What to ask for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Wanted {
    /// Client to get the token as; default: the chain's first
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
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

pub(crate) async fn get(running: &Running, wanted: &Wanted) -> anyhow::Result<String> {
    let (issuer, client) = client_of(running, wanted.client.as_deref())?;
    request(&issuer.url, client, &wanted.scope).await
}

fn client_of<'a>(
    running: &'a Running,
    id: Option<&str>,
) -> anyhow::Result<(&'a RunningIssuer, &'a RunningClient)> {
    let mut all = running
        .issuers
        .iter()
        .flat_map(|issuer| issuer.clients.iter().map(move |client| (issuer, client)));
    let names = || {
        let ids = running
            .issuers
            .iter()
            .flat_map(|issuer| &issuer.clients)
            .map(|client| client.id.as_str());
        ids.collect::<Vec<_>>().join(", ")
    };
    match id {
        None => all.next().ok_or_else(|| {
            anyhow!(
                "no issuer of chain {} has a client; add one under managed.clients",
                running.chain
            )
        }),
        Some(id) => all
            .find(|(_, client)| client.id == id)
            .ok_or_else(|| anyhow!("chain {} has no client {id:?}; it has {}", running.chain, names())),
    }
}

/// Asks the issuer at `url` for a token.
pub(crate) async fn request(url: &str, client: &RunningClient, scopes: &[String]) -> anyhow::Result<String> {
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
    let answer: Answer = serde_json::from_slice(&body)
        .with_context(|| format!("the issuer at {url} gives no token answer"))?;
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
            bail!("the issuer refuses a token to client {:?}: {why}", client.id)
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
    #[test]
    fn a_form_holds_any_text() {
        assert_eq!(
            super::percent_encoded("items:read a&b=ü"),
            "items%3Aread%20a%26b%3D%C3%BC"
        );
    }
}
