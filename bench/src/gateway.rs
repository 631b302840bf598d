//! The section `gateway`: what our gateway costs a request, against nginx, HAProxy and Envoy doing the same.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use servicechain_keys::Algorithm::{self, ES256, EdDSA, RS256};

use crate::chain::{Bad, Chain};
use crate::load::{Load, Pace, Requests, Seen};
use crate::peers::{self, Proxy, Setting};
use crate::process::{OTHER_CORE, pin};
use crate::report::Row;
use crate::rounds::{Series, interleave, quantile};
use crate::settings::Settings;
use crate::upstream;

pub(crate) const ABOUT: &str = "\
Processor time of the proxy (all its threads, user and system) divided by the requests it answered, HTTP/1.1 over 64 kept
connections, a GET with a 41-byte JSON answer unless the case says otherwise. The proxy has core 0, clients and upstream core 1.
All proxies are up at once and take turns in slices; the order is reversed each round, a ratio is one of the same round, and what
is shown is the median of the rounds with their tenth and ninetieth percentile. Requests a second are those of one core; p50 and
p99 are at half that rate, from when a request was due. Our gateway runs with everything on: access log to a file, metrics, one
trace in a hundred sampled and exported, limits, timeouts. Its peers log nothing unless the case says so.
`never_seen` takes 20,000 tokens in turn through a cache of 16.";

const CLIENTS: usize = 64;
/// Distinct tokens taken in turn.
const MANY: usize = 20_000;
const MANY_IN_SMOKE: usize = 200;
/// Of a gateway that sees no token twice.
const TINY_CACHE: u32 = 16;
const UPLOAD: usize = 64 * 1024;

/// Who runs, in the order of [`Proxies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Ours,
    /// With another build of the gateway.
    Before,
    OursSmallCache,
    OursTinyCache,
    OursUnlogged,
    HaProxy,
    Nginx,
    Envoy,
}

/// One contender of one case.
struct Contender {
    /// What ratios of other rows call it.
    name: &'static str,
    case: &'static str,
    who: Who,
    way: &'static str,
    requests: Requests,
    ratios: Vec<(&'static str, Option<f64>)>,
    with_latency: bool,
    times: Series,
    rates: Series,
    latencies: Vec<f64>,
    errors: u64,
}

/// Contenders that are compared with each other.
type Group = Vec<Contender>;

pub(crate) fn run(settings: &Settings) -> Result<Vec<Row>> {
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
    let mut rows = Vec::new();
    for mut group in groups(settings, &chain, &proxies)? {
        measure(settings, &mut load, &proxies, &mut group)?;
        rows.extend(report(settings, &group)?);
    }
    Ok(rows)
}

/// Everybody who runs.
struct Proxies(Vec<(Who, Proxy)>);

impl Proxies {
    fn start(settings: &Settings, setting: &Setting<'_>) -> Result<Self> {
        let ours =
            |name: &str, program: &Path, cache, log| peers::servicechain(setting, name, program, cache, log);
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
                    Who::HaProxy if algorithm == EdDSA => &[],
                    Who::HaProxy => &[algorithm.name()],
                    Who::Envoy => &["verify", "cached"],
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

fn check_way(chain: &Chain, load: &mut Load, algorithm: Algorithm, address: SocketAddr) -> Result<()> {
    let mut ask = |token: Option<&str>| Ok::<_, anyhow::Error>(load.ask(address, &get("/items/1", token))?);
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

fn groups(settings: &Settings, chain: &Chain, proxies: &Proxies) -> Result<Vec<Group>> {
    let one =
        |algorithm, path: &str| Ok::<_, anyhow::Error>(vec![get(path, Some(&chain.token(algorithm, 0)?))]);
    let many = |algorithm| {
        let count = if settings.smoke { MANY_IN_SMOKE } else { MANY };
        let tokens = chain.tokens(algorithm, count)?;
        Ok::<_, anyhow::Error>(
            tokens
                .iter()
                .map(|token| get("/items/1", Some(token)))
                .collect::<Vec<_>>(),
        )
    };
    let open = || vec![get("/open/1", None)];
    let small = |name, case, who, way, texts| {
        Contender::new(name, case, who, way, Requests::new(texts, upstream::SMALL.len()))
    };

    let mut repeating = vec![
        small("haproxy_no_auth", "no_token", Who::HaProxy, "open", open()).latency(),
        small("ours_no_token", "no_token", Who::Ours, "main", open())
            .over("haproxy_no_auth", None)
            .latency(),
        small(
            "ours_rs256",
            "rs256_repeating",
            Who::Ours,
            "main",
            one(RS256, "/items/1")?,
        )
        .over("haproxy_no_auth", Some(1.0))
        .over("envoy_jwt_cache", Some(0.5))
        .latency(),
        small(
            "before_rs256",
            "rs256_repeating",
            Who::Before,
            "main",
            one(RS256, "/items/1")?,
        )
        .over("haproxy_no_auth", None)
        .over("ours_rs256", None),
        small(
            "unlogged_rs256",
            "rs256_repeating_unlogged",
            Who::OursUnlogged,
            "main",
            one(RS256, "/items/1")?,
        )
        .over("haproxy_no_auth", None),
        small(
            "ours_es256",
            "es256_repeating",
            Who::Ours,
            "main",
            one(ES256, "/items/1")?,
        )
        .over("haproxy_no_auth", None),
        small(
            "ours_eddsa",
            "eddsa_repeating",
            Who::Ours,
            "main",
            one(EdDSA, "/items/1")?,
        )
        .over("haproxy_no_auth", None),
        small(
            "haproxy_logged",
            "no_token_logged",
            Who::HaProxy,
            "open_logged",
            open(),
        )
        .over("haproxy_no_auth", None),
        small(
            "haproxy_jwt_verify",
            "rs256_repeating",
            Who::HaProxy,
            "RS256",
            one(RS256, "/items/1")?,
        )
        .over("haproxy_no_auth", None)
        .latency(),
        small("nginx_no_auth", "no_token", Who::Nginx, "open", open())
            .over("haproxy_no_auth", None)
            .latency(),
        small("envoy_no_auth", "no_token", Who::Envoy, "open", open()).over("haproxy_no_auth", None),
        small(
            "envoy_jwt_cache",
            "rs256_repeating",
            Who::Envoy,
            "cached",
            one(RS256, "/items/1")?,
        )
        .over("haproxy_no_auth", None)
        .latency(),
    ];
    if settings.main_only {
        repeating.retain(|contender| {
            [
                "haproxy_no_auth",
                "ours_rs256",
                "before_rs256",
                "unlogged_rs256",
                "ours_no_token",
            ]
            .contains(&contender.name)
        });
        return Ok(vec![present(repeating, proxies)]);
    }
    let (rs256, es256) = (many(RS256)?, many(ES256)?);
    let never_seen = vec![
        small(
            "haproxy_rs256",
            "rs256_never_seen",
            Who::HaProxy,
            "RS256",
            rs256.clone(),
        ),
        small(
            "haproxy_es256",
            "es256_never_seen",
            Who::HaProxy,
            "ES256",
            es256.clone(),
        ),
        small(
            "ours_rs256_new",
            "rs256_never_seen",
            Who::OursTinyCache,
            "main",
            rs256.clone(),
        )
        .over("haproxy_rs256", Some(0.8)),
        small(
            "ours_es256_new",
            "es256_never_seen",
            Who::OursTinyCache,
            "main",
            es256.clone(),
        )
        .over("haproxy_es256", Some(0.8)),
        small(
            "ours_eddsa_new",
            "eddsa_never_seen",
            Who::OursTinyCache,
            "main",
            many(EdDSA)?,
        )
        .over("haproxy_es256", None),
        small(
            "envoy_rs256",
            "rs256_never_seen",
            Who::Envoy,
            "verify",
            rs256.clone(),
        )
        .over("haproxy_rs256", None),
        small("envoy_es256", "es256_never_seen", Who::Envoy, "verify", es256).over("haproxy_es256", None),
    ];
    let in_turn = vec![
        small("haproxy_no_auth", "no_token", Who::HaProxy, "open", open()),
        small(
            "ours_within",
            "rs256_20000_in_cache",
            Who::Ours,
            "main",
            rs256.clone(),
        )
        .over("haproxy_no_auth", None),
        small(
            "ours_beyond",
            "rs256_20000_cache_of_10000",
            Who::OursSmallCache,
            "main",
            rs256,
        )
        .over("haproxy_no_auth", None),
    ];
    let mut groups = vec![repeating, never_seen, in_turn];
    for (case, path, least) in [
        ("answer_1_kib", "1k", 1024),
        ("answer_64_kib", "64k", 64 * 1024),
        (
            "answer_streamed_64_kib",
            "streamed",
            upstream::STREAMED_CHUNKS * upstream::CHUNK_BYTES,
        ),
    ] {
        let with = |name, who, way, texts| Contender::new(name, case, who, way, Requests::new(texts, least));
        groups.push(vec![
            with(
                "haproxy",
                Who::HaProxy,
                "open",
                vec![get(&format!("/{path}"), None)],
            ),
            with("nginx", Who::Nginx, "open", vec![get(&format!("/{path}"), None)]).over("haproxy", None),
            with("ours", Who::Ours, "main", one(RS256, &format!("/{path}"))?).over("haproxy", None),
        ]);
    }
    let upload = |token: Option<&str>| vec![put("/items/1", token)];
    groups.push(vec![
        small("haproxy", "upload_64_kib", Who::HaProxy, "open", upload(None)),
        small("nginx", "upload_64_kib", Who::Nginx, "open", upload(None)).over("haproxy", None),
        small(
            "ours",
            "upload_64_kib",
            Who::Ours,
            "main",
            upload(Some(&chain.token(RS256, 0)?)),
        )
        .over("haproxy", None),
    ]);
    Ok(groups.into_iter().map(|group| present(group, proxies)).collect())
}

/// Without those whose program is not there.
fn present(group: Group, proxies: &Proxies) -> Group {
    group
        .into_iter()
        .filter(|contender| proxies.of(contender.who).is_some())
        .collect()
}

fn measure(settings: &Settings, load: &mut Load, proxies: &Proxies, group: &mut Group) -> Result<()> {
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
    interleave(settings.rounds, group.len(), |turn| {
        let contender = &mut group[turn];
        let seen = slice(load, contender, Pace::Saturate)?;
        let used = seen.marks.1.since(&seen.marks.0);
        contender.times.push(per(used, seen.answered));
        contender.rates.push(per_second(seen.answered, seen.took));
        Ok(())
    })?;
    let latency_rounds = settings.rounds.div_ceil(4);
    interleave(latency_rounds, group.len(), |turn| {
        let contender = &mut group[turn];
        if let (true, Some(rate)) = (contender.with_latency, contender.rates.middle()) {
            let seen = slice(load, contender, Pace::PerSecond(rate.median / 2.0))?;
            let micros = seen.latencies.iter().map(|latency| latency.as_secs_f64() * 1e6);
            contender.latencies.extend(micros);
        }
        Ok(())
    })
}

fn report(settings: &Settings, group: &Group) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for contender in group {
        let time = contender.times.middle().context("no rounds")?;
        let mut latencies = contender.latencies.clone();
        latencies.sort_by(f64::total_cmp);
        let row = Row {
            bench: "gateway",
            case: contender.case.to_owned(),
            proxy: contender.who.label().to_owned(),
            cpu_micros_per_request: time.median,
            ratio: None,
            ratio_to: None,
            spread: [time.low, time.high],
            rounds: settings.rounds,
            errors: contender.errors,
            requests_per_second: contender.rates.middle().map(|rate| rate.median),
            p50_micros: quantile(&latencies, 0.5),
            p99_micros: quantile(&latencies, 0.99),
            goal: None,
        };
        let mut is_alone = true;
        for (to, goal) in &contender.ratios {
            let Some(other) = group.iter().find(|other| other.name == *to) else {
                continue;
            };
            let ratio = contender.times.over(&other.times).middle().context("no rounds")?;
            is_alone = false;
            rows.push(Row {
                ratio: Some(ratio.median),
                ratio_to: Some((*to).to_owned()),
                spread: [ratio.low, ratio.high],
                goal: *goal,
                ..row.clone()
            });
        }
        if is_alone {
            rows.push(row);
        }
    }
    Ok(rows)
}

impl Contender {
    fn new(name: &'static str, case: &'static str, who: Who, way: &'static str, requests: Requests) -> Self {
        Self {
            name,
            case,
            who,
            way,
            requests,
            ratios: Vec::new(),
            with_latency: false,
            times: Series::default(),
            rates: Series::default(),
            latencies: Vec::new(),
            errors: 0,
        }
    }

    /// Its ratio to another is asked for, perhaps with a goal.
    fn over(mut self, other: &'static str, goal: Option<f64>) -> Self {
        self.ratios.push((other, goal));
        self
    }

    fn latency(mut self) -> Self {
        self.with_latency = true;
        self
    }
}

impl Who {
    fn label(self) -> &'static str {
        match self {
            Self::Ours | Self::OursSmallCache | Self::OursTinyCache | Self::OursUnlogged => "servicechain",
            Self::Before => "servicechain_before",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    format!("GET {path} {}\r\n", lines(token)).into_bytes()
}

fn put(path: &str, token: Option<&str>) -> Vec<u8> {
    let body = "x".repeat(UPLOAD);
    format!(
        "PUT {path} {}Content-Length: {UPLOAD}\r\n\r\n{body}",
        lines(token)
    )
    .into_bytes()
}

fn lines(token: Option<&str>) -> String {
    let authorization = token
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    format!("HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{authorization}")
}

fn per(used: Duration, answered: u64) -> f64 {
    used.as_secs_f64() * 1e6 / count(answered)
}

fn per_second(answered: u64, took: Duration) -> f64 {
    count(answered) / took.as_secs_f64()
}

fn count(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX).max(1))
}
