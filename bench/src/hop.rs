//! The section `hop`: what a service pays to verify its caller and to call on with the caller's token.

pub(crate) mod service;

use std::env::current_exe;

use anyhow::{Result, bail};
use servicechain_keys::Algorithm::RS256;

use crate::chain::{Bad, Chain};
use crate::contest::{Contender, take_turns};
use crate::gateway::get;
use crate::load::{Load, Requests};
use crate::ours::Service;
use crate::peers::{Proxy, Setting};
use crate::process::{OTHER_CORE, pin};
use crate::report::{Findings, Row};
use crate::rounds::Series;
use crate::settings::{Budget, Settings};
use crate::upstream;

pub(crate) const ABOUT: &str = "\
An axum service that calls on and passes the answer back, with and without the two layers of `servicechain-auth`: RequireToken on
its way in, PropagateToken on its way out. All else is the same in both: the runtime's server, request ids, traces, metrics,
deadlines, the runtime's client, access log to a file; the requests too, token included. The service has core 0 and one thread,
clients and the next hop core 1, 64 kept connections, a 41-byte JSON answer. Processor time of the service by its requests;
`overhead` is the difference in the same round, in which sending the token on is included.
`never_seen` takes 20,000 tokens in turn through a cache of 16.";

const MANY: usize = 20_000;
const MANY_IN_SMOKE: usize = 200;
const BENCH: &str = "hop";

pub(crate) fn run(settings: &Settings, budget: Budget) -> Result<Findings> {
    pin(OTHER_CORE)?;
    let folder = tempfile::tempdir()?;
    let chain = Chain::new();
    let mut load = Load::new()?;
    let setting = Setting {
        chain: &chain,
        folder: folder.path(),
        upstream: load.upstream_address()?,
    };
    let many = settings.amount(MANY, MANY_IN_SMOKE);
    let start = |name: &str, way: &str, cached_tokens: usize| -> Result<Proxy> {
        let mut proxy = Service {
            name,
            hop: "a",
            program: &current_exe()?,
            arguments: ["serve-hop", way, &format!("--next=http://{}", setting.upstream)]
                .map(str::to_owned)
                .into(),
            environment: Vec::new(),
            cached_tokens: u32::try_from(cached_tokens)?,
            on_one_core: true,
        }
        .spawn(&setting)?;
        proxy.wait()?;
        Ok(proxy)
    };
    let plain = start("plain", "--without-layers", 0)?;
    let verifying = start("verifying", "--with-layers", many * 2)?;
    let forgetful = start("forgetful", "--with-layers", 16)?;
    check(&chain, &mut load, &verifying)?;

    let one = get("/items/1", Some(&chain.token(RS256, 0)?));
    let tokens = chain.tokens(RS256, many)?;
    let all: Vec<Vec<u8>> = tokens.iter().map(|token| get("/items/1", Some(token))).collect();
    let without = "service_without_layers";
    let mut contenders = Vec::new();
    for (case, proxy_name, proxy, texts) in [
        ("rs256_repeating", without, &plain, std::slice::from_ref(&one)),
        (
            "rs256_repeating",
            "servicechain",
            &verifying,
            std::slice::from_ref(&one),
        ),
        ("rs256_20000_in_cache", without, &plain, all.as_slice()),
        ("rs256_20000_in_cache", "servicechain", &verifying, all.as_slice()),
        ("rs256_never_seen", "servicechain", &forgetful, all.as_slice()),
    ] {
        let requests = Requests::new(texts.to_vec(), upstream::SMALL.len());
        let mut contender = Contender::new(case, proxy_name, proxy.address("main")?, requests);
        contender.meter(proxy.meter("service"));
        contenders.push(contender);
    }
    let forget_logs = || {
        let all = [&plain, &verifying, &forgetful];
        all.iter().try_for_each(|proxy| proxy.process.forget_log())
    };
    take_turns(settings, &mut load, &mut contenders, budget, &forget_logs)?;
    let mut findings = Findings::default();
    for (contender, against) in contenders.iter().zip([None, Some(0), None, Some(2), Some(2)]) {
        let row = contender.row(BENCH);
        let Some(other) = against.map(|against: usize| &contenders[against]) else {
            findings.rows.push(row);
            continue;
        };
        let errors = contender.errors + other.errors;
        let compared = row.over(without, &contender.times.over(&other.times));
        findings.rows.push(compared.errors(errors));
        findings
            .rows
            .push(overhead(contender, &contender.times.minus(&other.times), errors));
    }
    Ok(findings)
}

fn overhead(contender: &Contender<'_>, more: &Series, errors: u64) -> Row {
    let case = format!("overhead_{}", contender.case);
    let row = Row::new(BENCH, case, "servicechain").figure("us more", more);
    let row = row.errors(errors);
    if contender.case == "rs256_never_seen" {
        row
    } else {
        row.aim(2.0, Some(1.0))
    }
}

/// What verifies must refuse.
fn check(chain: &Chain, load: &mut Load, service: &Proxy) -> Result<()> {
    let address = service.address("main")?;
    let mut status =
        |token: Option<&str>| Ok::<_, anyhow::Error>(load.ask(address, &get("/items/1", token))?.status);
    let good = status(Some(&chain.token(RS256, 0)?))?;
    if good != 200 {
        bail!("a good token is answered {good}");
    }
    for bad in Bad::ALL {
        let answered = status(Some(&chain.bad_token(RS256, bad)?))?;
        if answered != 401 {
            bail!("a token that is bad ({bad:?}) is answered {answered}");
        }
    }
    match status(None)? {
        401 => Ok(()),
        status => bail!("a request without a token is answered {status}"),
    }
}
