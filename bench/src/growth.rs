//! The section `growth`: what a request costs as there is more of something that it does not ask for.

mod addresses;
mod library;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use servicechain_keys::Algorithm::RS256;

use crate::chain::Chain;
use crate::contest::{Contender, take_turns};
use crate::gateway::get;
use crate::load::{Clients, Load, Requests};
use crate::ours::Gateway;
use crate::peers::{Proxy, Setting};
use crate::process::{OTHER_CORE, open_many_files, pin};
use crate::report::Findings;
use crate::settings::{Budget, Settings};
use crate::upstream;

pub(crate) const ABOUT: &str = "\
What a request costs as connections, routes, issuers, keys and addresses of an upstream become many. `connections`, `routes` and
`upstream_addresses` are the gateway's processor time for a request, everything on, one RS256 token, the gateway on core 0;
64 requests at a time (fewer where there are fewer connections), all connections in turn; of routes 64 are asked for, spread over
all. `issuers` and `keys` are one verification by the library, ES256, of a token of the last issuer's last key, in this process;
a bundle holds at most 16 issuers of 32 keys, so that 512 keys are all there can be.
Ratios are to the least number, in the same round.";

const NUMBERS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const AT_ONCE: usize = 64;
const BENCH: &str = "growth";
const OURS: &str = "servicechain";
const OTHER_FILES: u64 = 500;

pub(crate) fn run(settings: &Settings, budget: Budget) -> Result<Findings> {
    pin(OTHER_CORE)?;
    let mut findings = Findings::default();
    let most = usize::try_from(open_many_files()?.saturating_sub(OTHER_FILES))?;
    let folder = tempfile::tempdir()?;
    let chain = Chain::new();
    let mut load = Load::new()?;
    let setting = Setting {
        chain: &chain,
        folder: folder.path(),
        upstream: load.upstream_address()?,
    };
    let numbers: Vec<usize> = NUMBERS[..settings.amount(5, 2)].to_vec();
    let token = chain.token(RS256, 0)?;
    let one = || vec![get("/items/1", Some(&token))];

    let gateway = Gateway::new("connections", &settings.gateway, routes(1, &setting)).start(&setting)?;
    let mut contenders = Vec::new();
    for number in &numbers {
        if *number > most {
            findings.notes.push(format!(
                "{number} connections: left out, since a process may not open as many files here (`ulimit -n`)"
            ));
            continue;
        }
        let mut contender = contender("connections", &gateway, one())?;
        contender.clients = Clients {
            connections: *number,
            at_once: (*number).min(AT_ONCE),
        };
        // Until each connection was used once.
        contender.more_warm_up = Duration::from_micros(100) * u32::try_from(*number)?;
        contenders.push((*number, contender));
    }
    compare(
        settings,
        &mut load,
        contenders,
        &[&gateway],
        budget.share(4),
        &mut findings,
    )?;
    drop(gateway);

    let gateways = numbers
        .iter()
        .map(|number| {
            Gateway::new(
                &format!("routes-{number}"),
                &settings.gateway,
                routes(*number, &setting),
            )
            .start(&setting)
        })
        .collect::<Result<Vec<Proxy>>>()?;
    let mut contenders = Vec::new();
    for (number, gateway) in numbers.iter().zip(&gateways) {
        let step = number.div_ceil(AT_ONCE);
        let texts = (0..*number)
            .step_by(step)
            .map(|route| get(&format!("/route-{route}/1"), Some(&token)));
        contenders.push((*number, contender("routes", gateway, texts.collect())?));
    }
    let all: Vec<&Proxy> = gateways.iter().collect();
    compare(
        settings,
        &mut load,
        contenders,
        &all,
        budget.share(3),
        &mut findings,
    )?;
    drop(gateways);

    addresses::measure(
        settings,
        &setting,
        &mut load,
        &one(),
        budget.share(2),
        &mut findings,
    )?;
    findings.rows.extend(library::measure(settings, &chain, budget)?);
    Ok(findings)
}

fn contender<'a>(case: &str, gateway: &'a Proxy, texts: Vec<Vec<u8>>) -> Result<Contender<'a>> {
    let requests = Requests::new(texts, upstream::SMALL.len());
    let mut contender = Contender::new(case, OURS, gateway.address("main")?, requests);
    contender.meter(gateway.meter("gateway"));
    Ok(contender)
}

/// Each against the first.
fn compare(
    settings: &Settings,
    load: &mut Load,
    contenders: Vec<(usize, Contender<'_>)>,
    gateways: &[&Proxy],
    budget: Budget,
    findings: &mut Findings,
) -> Result<()> {
    let (numbers, mut contenders): (Vec<usize>, Vec<Contender<'_>>) = contenders.into_iter().unzip();
    let forget_logs = || {
        gateways
            .iter()
            .try_for_each(|gateway| gateway.process.forget_log())
    };
    take_turns(settings, load, &mut contenders, budget, &forget_logs)?;
    let Some(first) = contenders.first() else {
        return Ok(());
    };
    for (number, contender) in numbers.iter().zip(&contenders) {
        let row = contender.row(BENCH).at(u64::try_from(*number)?);
        let row = if *number == numbers[0] {
            row
        } else {
            let to = format!("{} of them", numbers[0]);
            row.over(to, &contender.times.over(&first.times))
        };
        findings.rows.push(row.errors(contender.errors + first.errors));
    }
    Ok(())
}

/// The first is for every path.
fn routes(count: usize, setting: &Setting<'_>) -> String {
    let mut routes = String::new();
    for number in 0..count {
        let prefix = if count == 1 {
            "/".to_owned()
        } else {
            format!("/route-{number}")
        };
        let _ = writeln!(
            routes,
            r#"- {{name: route-{number}, pathPrefix: {prefix}, upstream: "http://{}", service: a, scopes: ["items:read"]}}"#,
            setting.upstream
        );
    }
    routes
}
