//! The section `chain`: what a request costs from the gateway to C and back, with real PostgreSQL and Redis, against the
//! same programs without verification.

mod links;
mod profile;
pub(crate) mod service;

use std::time::Duration;

use anyhow::{Context, Result};
use servicechain_fixtures::{Postgres, Redis};
use servicechain_keys::Algorithm::RS256;

use crate::chain::Chain;
use crate::contest::{Contender, Meter, take_turns};
use crate::gateway::{get, put};
use crate::load::{Load, Requests};
use crate::peers::Setting;
use crate::process::{MEASURED_CORE, OTHER_CORE, ProcessorTime, on_core, pin};
use crate::report::{Findings, Row};
use crate::rounds::Series;
use crate::settings::{Budget, Settings};
use links::{Kind, Links, Stores};

pub(crate) const ABOUT: &str = "\
Gateway, A, B and C with PostgreSQL and Redis, all on core 0; clients on core 1, 64 kept connections, one RS256 token. So requests
a second are those of one core for the whole chain, databases included. `servicechain` is what is deployed, access logs to files;
`items_in_cache` asks for one item, which is in every hop's Redis, `items_from_database` for 1,000 in turn through caches that
keep an item for 100 ms, so that nearly each is read from PostgreSQL and put into Redis at every hop.
What is deployed cannot be told not to verify. `verifying` and `not_verifying` are therefore the item service's own parts (store,
cache, look-aside, client, server, request layers) under a handler of the benchmark's, with RequireToken and PropagateToken and
without, behind our gateway with a route that needs a token and with one that does not; the requests are the same.
The rows `…/a` and so on are the processor time of one process for a request, PostgreSQL and Redis with all theirs.";

/// As short as it can be set: items in turn are never found.
pub(crate) const CACHE_TTL: Duration = Duration::from_millis(100);
/// `sub` of the tokens.
pub(crate) const SUBJECT: &str = "alice";
const BENCH: &str = "chain";
const ITEMS: usize = 1000;
const ITEMS_IN_SMOKE: usize = 20;
const ITEM: &str = r#"{"name":"a thing","price":12.5,"tags":["one","two"]}"#;

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
    let (postgres, redis) = on_core(MEASURED_CORE, || {
        Ok::<_, anyhow::Error>((Postgres::start()?, Redis::start()?))
    })??;
    let stores = Stores::new(&postgres, &redis)?;
    let deployed = Links::start(settings, &setting, &stores, Kind::Deployed)?;
    let verifying = Links::start(settings, &setting, &stores, Kind::Verifying)?;
    let not_verifying = Links::start(settings, &setting, &stores, Kind::NotVerifying)?;
    let token = chain.token(RS256, 0)?;
    let items = settings.amount(ITEMS, ITEMS_IN_SMOKE);
    for service in &deployed.services {
        let texts: Vec<_> = (0..items)
            .map(|number| put(&path(number), Some(&token), ITEM))
            .collect();
        load.open(service.address("main")?, &mut Requests::new(texts, 0), 64, items)
            .context("items cannot be put")?;
    }
    load.close();

    let one = vec![get(&path(0), Some(&token))];
    let all: Vec<_> = (0..items)
        .map(|number| get(&path(number), Some(&token)))
        .collect();
    let mut contenders = Vec::new();
    for (case, texts) in [("items_in_cache", &one), ("items_from_database", &all)] {
        for links in [&deployed, &verifying, &not_verifying] {
            // A reply with less has not come from all three.
            let requests = Requests::new(texts.clone(), 3 * ITEM.len());
            let address = links.gateway.address("main")?;
            let mut contender = Contender::new(case, links.kind.label(), address, requests);
            contender.meter(links.gateway.meter("gateway"));
            for (name, service) in links::HOPS.iter().zip(&links.services) {
                contender.meter(service.meter(name));
            }
            for (of, called) in [("postgresql", "postgres"), ("redis", "redis-server")] {
                let read = Box::new(move || ProcessorTime::of_descendants(called));
                contender.meter(Meter { of, read });
            }
            contenders.push(contender);
        }
    }
    let forget_logs = || {
        let all = [&deployed, &verifying, &not_verifying];
        all.iter().try_for_each(|links| links.forget_logs())
    };
    take_turns(
        settings,
        &mut load,
        &mut contenders,
        budget.part(0.85),
        &forget_logs,
    )?;
    let mut findings = Findings::default();
    for of_case in contenders.chunks(3) {
        let [deployed, verifying, not_verifying] = of_case else {
            continue;
        };
        findings.rows.push(deployed.row(BENCH));
        findings.rows.push(
            verifying
                .row(BENCH)
                .over(not_verifying.proxy, &verifying.times.over(&not_verifying.times))
                .errors(verifying.errors + not_verifying.errors),
        );
        findings.rows.push(not_verifying.row(BENCH));
        for contender in [deployed, verifying, not_verifying] {
            findings.rows.extend(shares(contender));
        }
    }
    findings.profile = profile::of(
        settings,
        &mut load,
        &deployed,
        &mut contenders,
        &mut findings.notes,
    )?;
    Ok(findings)
}

fn shares(contender: &Contender<'_>) -> Vec<Row> {
    let share = |(meter, share): (&Meter<'_>, &Series)| {
        let case = format!("{}/{}", contender.case, meter.of);
        Row::new(BENCH, case, contender.proxy)
            .micros(share)
            .errors(contender.errors)
    };
    contender
        .meters
        .iter()
        .zip(&contender.shares)
        .map(share)
        .collect()
}

fn path(number: usize) -> String {
    format!("/items/item-{number}")
}
