//! One item put and got through the gateway with a token, by curl, which reads what is secret from its standard input:
//! a process list can be read by everybody.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{CHAIN, NAMESPACE};
use crate::cluster::Record;
use crate::{child, interrupt};

const PATH: &str = "/items/1";
/// Longer than any of the chain's own timeouts.
const TIMEOUT_SECONDS: u8 = 10;
/// The nodes' proxies learn of a new Service a moment after everybody else.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// What was answered to a GET with a token.
pub(crate) struct Request {
    pub(crate) token: String,
    pub(crate) status: u16,
    pub(crate) answer: Value,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Request")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Request {
    /// `GET /items/1  200   a database 0.9 ms   b …`
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "GET {PATH}  {}", self.status)?;
        for hop in self.answer["hops"].as_array().into_iter().flatten() {
            let text = |name: &str| hop[name].as_str().unwrap_or("?");
            let took = hop["durationMs"].as_f64().unwrap_or_default();
            write!(
                formatter,
                "   {} {} {took:.1} ms",
                text("service"),
                text("source")
            )?;
        }
        Ok(())
    }
}

/// As the first client of the first issuer.
pub(super) fn make(record: &Record, chain: &Value) -> anyhow::Result<Request> {
    let gateway = super::gateway_url(chain);
    if gateway.is_empty() {
        bail!("the chain is Ready, but its status has no URL of the gateway");
    }
    let token = token(record, chain, gateway)?;
    let bearer = format!("Authorization: Bearer {token}");
    let item = [
        ("request", "PUT"),
        ("header", bearer.as_str()),
        ("header", "Content-Type: application/json"),
        // What somebody else put there stays.
        ("header", "If-None-Match: *"),
        ("data", r#"{"name":"lamp"}"#),
    ];
    let url = format!("{gateway}{PATH}");
    let (status, answer) = curl(&url, &item)?;
    if !matches!(status, 201 | 412) {
        bail!("PUT {url} was answered with {status}: {answer}");
    }
    let (status, answer) = curl(&url, &[("header", bearer.as_str())])?;
    let hops = answer["hops"].as_array().map_or(0, Vec::len);
    let services = chain["spec"]["services"].as_array().map_or(0, Vec::len);
    if status != 200 || hops != services {
        bail!("GET {url} was answered with {status} by {hops} of {services} services: {answer}");
    }
    Ok(Request {
        token,
        status,
        answer,
    })
}

fn token(record: &Record, chain: &Value, gateway: &str) -> anyhow::Result<String> {
    let issuer = &chain["spec"]["issuers"][0];
    let (Some(issuer), Some(client)) = (
        issuer["name"].as_str(),
        issuer["managed"]["clients"][0]["id"].as_str(),
    ) else {
        bail!("chain {CHAIN} has no issuer with a client");
    };
    let name = format!("{CHAIN}-client-{issuer}-{client}");
    let template = "go-template={{.data.clientID | base64decode}}\n{{.data.clientSecret | base64decode}}";
    let get = [
        "get",
        "secret",
        &name,
        "--namespace",
        NAMESPACE,
        "--output",
        template,
    ];
    let pair = child::answer(record.kubectl().args(get))
        .with_context(|| format!("Secret {name} with the client's password cannot be read"))?;
    let (id, secret) = pair
        .split_once('\n')
        .with_context(|| format!("Secret {name} lacks clientID or clientSecret"))?;
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let url = format!("{gateway}/oauth2/token");
    let deadline = Instant::now() + CONNECTED_WITHIN;
    let (status, mut answer) = loop {
        match curl(&url, &[("data", &form)]) {
            Err(_) if Instant::now() < deadline => {}
            answered => break answered?,
        }
        interrupt::check()?;
        std::thread::sleep(PAUSE);
    };
    match answer["access_token"].take() {
        Value::String(token) if status == 200 => Ok(token),
        _ => bail!("{url} gives no token: {status} {answer}"),
    }
}

/// Status and body of one request that is not repeated.
fn curl(url: &str, options: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
    let mut config =
        format!("silent\nshow-error\nmax-time = {TIMEOUT_SECONDS}\nwrite-out = \"\\n%{{http_code}}\"\n");
    for (name, value) in std::iter::once(&("url", url)).chain(options) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        // Writing to a string does not fail.
        let _ = writeln!(config, "{name} = \"{value}\"");
    }
    let mut curl = Command::new("curl")
        .args(["--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run curl")?;
    if let Some(mut input) = curl.stdin.take() {
        input
            .write_all(config.as_bytes())
            .context("cannot talk to curl")?;
    }
    let output = curl.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{url} does not answer: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let (body, status) = said.rsplit_once('\n').context("curl tells no status")?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Ok((status.parse()?, body))
}
