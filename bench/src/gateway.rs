//! The section `gateway`: what our gateway costs a request, against nginx, `HAProxy` and Envoy doing the same.

mod cases;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use servicechain_keys::Algorithm;

use crate::chain::{Bad, Chain};
use crate::load::{Clients, Load, Pace, Seen};
use crate::ours::Gateway;
use crate::peers::{self, Proxy, Setting};
use crate::process::{OTHER_CORE, pin};
use crate::report::{Findings, Row};
use crate::rounds::{interleave, quantile};
use crate::settings::{Budget, Settings};
use crate::upstream;
use cases::{Contender, Group, MANY, TINY_CACHE, Who};
pub(crate) use cases::{get, put};

pub(crate) const ABOUT: &str = "\
Processor time of the proxy (all its threads, user and system) divided by the requests it answered, HTTP/1.1 over 64 kept
connections, a GET with a 41-byte JSON answer unless the case says otherwise. The proxy has core 0, clients and upstream core 1.
All proxies are up at once and take turns in slices; the order is reversed each round, a ratio is one of the same round, and what
is shown is the median of the rounds with their tenth and ninetieth percentile. Requests a second are those of one core; p50 and
p99 are at half that rate, from when a request was due. Our gateway runs with everything on: access log to a file, metrics, one
trace in a hundred sampled and exported, limits, timeouts. Its peers log nothing unless the case says so.
`never_seen` takes 20,000 tokens in turn through a cache of 16.";

const CLIENTS: Clients = Clients {
    connections: 64,
    at_once: 64,
};

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
    let proxies = Proxies::start(settings, &setting)?;
    proxies.check(&chain, &mut load)?;
    let mut findings = Findings::default();
    let groups = cases::groups(settings, &chain, &|who| proxies.of(who).is_some())?;
    let mut parts = groups.len();
    for mut group in groups {
        measure(settings, &mut load, &proxies, &mut group, budget.share(parts))?;
        findings.rows.extend(report(&group));
        parts -= 1;
    }
    Ok(findings)
}

/// Everybody who runs.
struct Proxies(Vec<(Who, Proxy)>);

impl Proxies {
    fn start(settings: &Settings, setting: &Setting<'_>) -> Result<Self> {
        let ours = |name: &str, program: &Path, cached_tokens, access_log| {
            Gateway {
                cached_tokens,
                access_log,
                ..Gateway::new(name, program, routes_to(setting.upstream))
            }
            .start(setting)
        };
        let program = &settings.gateway;
        let large = u32::try_from(MANY * 2)?;
        let small = u32::try_from(MANY / 2)?;
        let mut all = vec![
            (Who::HaProxy, peers::haproxy(setting)?),
            (Who::Ours, ours("servicechain", program, large, true)?),
            (Who::OursSmallCache, ours("small-cache", program, small, true)?),
            (Who::OursTinyCache, ours("tiny-cache", program, TINY_CACHE, true)?),
            (Who::OursUnlogged, ours("unlogged", program, large, false)?),
        ];
        if let Some(program) = &settings.before {
            all.push((Who::Before, ours("before", program, large, true)?));
        }
        if settings.nginx {
            all.push((Who::Nginx, peers::nginx(setting)?));
        }
        if let Some(program) = &settings.envoy {
            all.push((Who::Envoy, peers::envoy(setting, program)?));
        }
        Ok(Self(all))
    }

    fn of(&self, who: Who) -> Option<&Proxy> {
        self.0
            .iter()
            .find(|(found, _)| *found == who)
            .map(|(_, proxy)| proxy)
    }

    /// A figure of a proxy that lets everybody in is none: each way that verifies must take a good token and refuse
    /// bad ones before it is measured.
    fn check(&self, chain: &Chain, load: &mut Load) -> Result<()> {
        for (who, proxy) in &self.0 {
            for algorithm in Chain::ALGORITHMS {
                let ways: &[&str] = match who {
                    Who::Nginx => &[],
                    Who::HaProxy if algorithm == Algorithm::EdDSA => &[],
                    Who::Envoy if algorithm == Algorithm::RS256 => &[algorithm.name(), "cached"],
                    Who::HaProxy | Who::Envoy => &[algorithm.name()],
                    _ => &["main"],
                };
                for way in ways {
                    let address = proxy.address(way)?;
                    check_way(chain, load, algorithm, address).with_context(|| format!("{who:?}, {way}"))?;
                }
            }
        }
        Ok(())
    }
}

/// One that needs a token, and one that needs none.
fn routes_to(upstream: SocketAddr) -> String {
    format!(
        r#"- {{name: items, pathPrefix: /, upstream: "http://{upstream}", service: a, scopes: ["items:read"]}}
- {{name: open, pathPrefix: /open, upstream: "http://{upstream}", service: a, authentication: None}}
"#
    )
}

fn check_way(chain: &Chain, load: &mut Load, algorithm: Algorithm, address: SocketAddr) -> Result<()> {
    let mut ask = |token: Option<&str>| load.ask(address, &get("/items/1", token));
    let good = chain.token(algorithm, 0)?;
    // The second time may come from a cache, and must not change anything.
    for _ in 0..2 {
        let answer = ask(Some(&good))?;
        if answer.status != 200 || !answer.text.ends_with(upstream::SMALL) {
            bail!("a good {} token is answered\n{}", algorithm.name(), answer.text);
        }
        for bad in Bad::ALL {
            let status = ask(Some(&chain.bad_token(algorithm, bad)?))?.status;
            if !matches!(status, 401 | 403) {
                bail!(
                    "a {} token that is bad ({bad:?}) is answered {status}",
                    algorithm.name()
                );
            }
        }
    }
    match ask(None)?.status {
        401 => Ok(()),
        status => bail!("a request without a token is answered {status}"),
    }
}

fn measure(
    settings: &Settings,
    load: &mut Load,
    proxies: &Proxies,
    group: &mut Group,
    budget: Budget,
) -> Result<()> {
    let slice = |load: &mut Load, contender: &mut Contender, pace| -> Result<Seen<_>> {
        let proxy = proxies
            .of(contender.who)
            .context("a contender that does not run")?;
        let (address, process) = (proxy.address(contender.way)?, &proxy.process);
        let window = (settings.warm_up(), settings.slice());
        let mark = || process.processor_time();
        let seen = load
            .run(address, &mut contender.requests, pace, CLIENTS, window, mark)
            .with_context(|| format!("{} by {}", contender.case, contender.who.label()))?;
        process.forget_log()?;
        contender.errors += seen.errors;
        Ok(seen)
    };
    // Where tokens come in turn, caches fill before anything counts.
    for contender in group
        .iter_mut()
        .filter(|contender| contender.requests.count() > 1)
    {
        let proxy = proxies
            .of(contender.who)
            .context("a contender that does not run")?;
        let (address, all) = (proxy.address(contender.way)?, contender.requests.count());
        // What goes wrong here goes wrong again, and is counted then.
        let _ = load.open(address, &mut contender.requests, CLIENTS.connections, all);
        load.close();
        proxy.process.forget_log()?;
    }
    let has_latency = group.iter().any(|contender| contender.with_latency);
    let first = budget.part(if has_latency { 0.85 } else { 1.0 });
    interleave(settings.rounds, group.len(), first, |turn| {
        let contender = &mut group[turn];
        let seen = slice(load, contender, Pace::Saturate)?;
        let used = seen.marks.1.since(&seen.marks.0);
        contender.times.push(seen.micros_each(used));
        contender.rates.push(seen.per_second());
        Ok(())
    })?;
    let latency_rounds = settings.rounds.div_ceil(4);
    interleave(latency_rounds, group.len(), budget, |turn| {
        let contender = &mut group[turn];
        if let (true, Some(rate)) = (contender.with_latency, contender.rates.middle()) {
            let seen = slice(load, contender, Pace::PerSecond(rate.median / 2.0))?;
            let micros = seen.latencies.iter().map(|latency| latency.as_secs_f64() * 1e6);
            contender.latencies.extend(micros);
        }
        Ok(())
    })?;
    Ok(())
}

fn report(group: &Group) -> Vec<Row> {
    let mut rows = Vec::new();
    for contender in group {
        let mut latencies = contender.latencies.clone();
        latencies.sort_by(f64::total_cmp);
        let row = Row {
            requests_per_second: contender.rates.middle().map(|rate| rate.median),
            p50_micros: quantile(&latencies, 0.5),
            p99_micros: quantile(&latencies, 0.99),
            ..Row::new("gateway", contender.case, contender.who.label())
        };
        let row = row.micros(&contender.times).errors(contender.errors);
        let mut is_alone = true;
        for (to, aim) in &contender.ratios {
            let Some(other) = group.iter().find(|other| other.name == *to) else {
                continue;
            };
            is_alone = false;
            let compared = row.clone().over(*to, &contender.times.over(&other.times));
            // Against what cannot be measured there is no ratio either.
            let compared = compared.errors(contender.errors + other.errors);
            rows.push(match aim {
                Some((goal, further)) => compared.aim(*goal, *further),
                None => compared,
            });
        }
        if is_alone {
            rows.push(row);
        }
    }
    rows
}
