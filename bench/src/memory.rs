//! The section `memory`: resident memory of the gateway and of a service, how long they take to be ready, and how large
//! they are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use servicechain_fixtures::{Postgres, Redis};
use servicechain_keys::Algorithm::ES256;

use crate::chain::Chain;
use crate::gateway::{get, put};
use crate::load::{Load, Requests};
use crate::ours::{Gateway, Service};
use crate::peers::{Proxy, Setting};
use crate::process::open_many_files;
use crate::report::{Findings, Row};
use crate::rounds::{Series, interleave};
use crate::settings::{Budget, Settings};

pub(crate) const ABOUT: &str = "\
Resident memory (VmRSS) of the gateway and of an item service with PostgreSQL and Redis, started anew each round with their default
settings on all cores. `idle` is after the first request; `idle_connections` are opened, used for one request each and kept, and
count by what the process grew by, the kernel's memory for sockets not included; `cached_tokens` are that many different ES256
tokens in a verified-token cache that is large enough for them, and count the same way. `start_to_ready` is from the start of
the process until its `/readyz` says 200: for the service with a database whose schema is up to date already.
A MB is 1,000,000 bytes, a KiB 1,024.";

const CONNECTIONS: usize = 10_000;
const TOKENS: usize = 100_000;
const BENCH: &str = "memory";
const OURS: &str = "servicechain";
const MB: f64 = 1e6;
const KIB: f64 = 1024.0;
/// Files that a process has beside its connections.
const OTHER_FILES: u64 = 500;

/// What each round adds to.
#[derive(Default)]
struct Seen {
    ready: Series,
    idle: Series,
    by_connection: Series,
    with_connections: Series,
    by_token: Series,
    with_tokens: Series,
}

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Gateway,
    Service,
}

pub(crate) fn run(settings: &Settings, budget: Budget) -> Result<Findings> {
    let mut findings = Findings::default();
    let most = usize::try_from(open_many_files()?.saturating_sub(OTHER_FILES))?;
    let wanted = settings.amount(CONNECTIONS, 100);
    let connections = wanted.min(most);
    if connections < wanted {
        findings.notes.push(format!(
            "{connections} connections in place of {wanted}, since a process may open no more files here (`ulimit -n`)"
        ));
    }
    let folder = tempfile::tempdir()?;
    let chain = Chain::new();
    let mut load = Load::new()?;
    let setting = Setting {
        chain: &chain,
        folder: folder.path(),
        upstream: load.upstream_address()?,
    };
    let (postgres, redis) = (Postgres::start()?, Redis::start()?);
    let stores = vec![
        ("DATABASE_URL", postgres.fresh_database()?),
        ("REDIS_URL", redis.fresh_keyspace()),
    ];
    let tokens = chain.tokens(ES256, settings.amount(TOKENS, 100))?;
    let all: Vec<Vec<u8>> = tokens.iter().map(|token| get("/items/1", Some(token))).collect();
    // Brings the schema up to date, and puts the item that is asked for.
    let mut first = start(settings, &setting, &stores, Who::Service)?;
    first.wait_until_ready()?;
    let item = put("/items/1", Some(&tokens[0]), r#"{"name":"a thing"}"#);
    load.open(first.address("main")?, &mut Requests::new(vec![item], 0), 1, 1)?;
    drop(first);

    let mut seen = [Seen::default(), Seen::default()];
    interleave(settings.rounds, 2, budget, |turn| {
        let who = [Who::Gateway, Who::Service][turn];
        round(
            settings,
            &setting,
            &stores,
            who,
            &mut load,
            &all,
            connections,
            &mut seen[turn],
        )
    })?;
    for (name, goals, seen) in [
        ("gateway", [Some(100.0), Some(15.0), Some(8.0)], &seen[0]),
        ("service", [Some(300.0), None, None], &seen[1]),
    ] {
        let mut add = |case: String, unit, series: &Series, goal: Option<f64>| {
            let row = Row::new(BENCH, case, OURS).figure(unit, series);
            findings.rows.push(match goal {
                Some(goal) => row.aim(goal, None),
                None => row,
            });
        };
        let count = tokens.len();
        add(format!("{name}_start_to_ready"), "ms", &seen.ready, goals[0]);
        add(format!("{name}_idle"), "MB", &seen.idle, goals[1]);
        add(
            format!("{name}_by_idle_connection"),
            "KiB",
            &seen.by_connection,
            goals[2],
        );
        add(
            format!("{name}_with_{connections}_connections"),
            "MB",
            &seen.with_connections,
            None,
        );
        add(format!("{name}_by_cached_token"), "bytes", &seen.by_token, None);
        add(
            format!("{name}_with_{count}_cached_tokens"),
            "MB",
            &seen.with_tokens,
            None,
        );
    }
    sizes(settings, &mut findings)?;
    Ok(findings)
}

fn start(
    settings: &Settings,
    setting: &Setting<'_>,
    stores: &[(&'static str, String)],
    who: Who,
) -> Result<Proxy> {
    let cached_tokens = u32::try_from(settings.amount(TOKENS, 100) * 2)?;
    if who == Who::Gateway {
        let route = format!(
            "- {{name: items, pathPrefix: /, upstream: \"http://{}\", service: a}}\n",
            setting.upstream
        );
        return Gateway {
            cached_tokens,
            on_one_core: false,
            ..Gateway::new("gateway", &settings.gateway, route)
        }
        .spawn(setting);
    }
    let config = setting.folder.join("service.yaml");
    fs::write(&config, "hop: {name: a}\n")?;
    Service {
        name: "service",
        hop: "a",
        program: &settings.item_service,
        arguments: vec![format!("--config={}", config.display())],
        environment: stores.to_vec(),
        cached_tokens,
        on_one_core: false,
    }
    .spawn(setting)
}

#[expect(
    clippy::too_many_arguments,
    reason = "all that a round needs, at its one call"
)]
fn round(
    settings: &Settings,
    setting: &Setting<'_>,
    stores: &[(&'static str, String)],
    who: Who,
    load: &mut Load,
    all: &[Vec<u8>],
    connections: usize,
    seen: &mut Seen,
) -> Result<()> {
    let begun = Instant::now();
    let mut proxy = start(settings, setting, stores, who)?;
    proxy.wait_until_ready()?;
    seen.ready.push(begun.elapsed().as_secs_f64() * 1e3);
    let address = proxy.address("main")?;
    let mut one = Requests::new(vec![all[0].clone()], 1);
    load.open(address, &mut one, 1, 1)?;
    let idle = proxy.process.resident()?;
    seen.idle.push(idle / MB);
    let (of_connections, of_tokens) = (divisor(connections), divisor(all.len()));
    load.open(address, &mut one, connections, connections)
        .context("connections are not kept")?;
    let with_connections = proxy.process.resident()?;
    seen.with_connections.push(with_connections / MB);
    seen.by_connection
        .push((with_connections - idle) / of_connections / KIB);
    load.close();
    drop(proxy);

    // In another process: what connections left behind would hide what tokens take.
    let mut proxy = start(settings, setting, stores, who)?;
    proxy.wait_until_ready()?;
    let address = proxy.address("main")?;
    // What a hundred requests at a time take comes before the tokens.
    load.open(address, &mut one, 64, all.len().min(2000))?;
    let before = proxy.process.resident()?;
    let mut requests = Requests::new(all.to_vec(), 1);
    load.open(address, &mut requests, 64, all.len())
        .context("tokens are not taken")?;
    let after = proxy.process.resident()?;
    seen.with_tokens.push(after / MB);
    seen.by_token.push((after - before) / of_tokens);
    load.close();
    Ok(())
}

/// Of the programs as they are built here, and of images where a container engine knows them.
fn sizes(settings: &Settings, findings: &mut Findings) -> Result<()> {
    for (name, program) in [
        ("gateway", &settings.gateway),
        ("item-service", &settings.item_service),
    ] {
        let mut size = Series::default();
        size.push(bytes(program)? / MB);
        let row = Row::new(BENCH, format!("program_{name}"), OURS);
        findings.rows.push(row.figure("MB", &size));
    }
    let mut is_known = false;
    for name in ["operator", "gateway", "item-service", "token-issuer"] {
        if let Some(bytes) = image(&format!("servicechain/{name}")) {
            let mut size = Series::default();
            size.push(bytes / MB);
            let row = Row::new(BENCH, format!("image_{name}"), OURS);
            findings.rows.push(row.figure("MB", &size));
            is_known = true;
        }
    }
    if !is_known {
        findings.notes.push(
            "sizes of images: left out, since no container engine here knows them; `cargo xtask images` makes them, from \
             static builds of the same programs and certificates"
                .to_owned(),
        );
    }
    Ok(())
}

/// Of the newest of that name.
fn image(name: &str) -> Option<f64> {
    let ask = |arguments: &[&str]| {
        let said = Command::new("docker").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        (said.status.success() && !text.is_empty()).then_some(text)
    };
    let newest = ask(&["image", "ls", "--quiet", name])?;
    let newest = newest.lines().next()?;
    ask(&["image", "inspect", "--format", "{{.Size}}", newest])?
        .parse()
        .ok()
}

fn bytes(file: &Path) -> Result<f64> {
    let length = fs::metadata(file)
        .with_context(|| format!("{} is not there", file.display()))?
        .len();
    Ok(divisor(usize::try_from(length)?))
}

fn divisor(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX).max(1))
}
