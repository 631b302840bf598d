//! What is asked of whom. Contenders of one group take turns and are compared with each other.

use anyhow::Result;
use servicechain_keys::Algorithm::{self, ES256, EdDSA, RS256};

use crate::chain::Chain;
use crate::load::Requests;
use crate::rounds::Series;
use crate::settings::Settings;
use crate::upstream;

/// Distinct tokens taken in turn.
pub(super) const MANY: usize = 20_000;
const MANY_IN_SMOKE: usize = 200;
/// Of a gateway that sees no token twice.
pub(super) const TINY_CACHE: u32 = 16;
const UPLOAD: usize = 64 * 1024;

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
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
pub(super) struct Contender {
    /// What ratios of other rows call it.
    pub(super) name: &'static str,
    pub(super) case: &'static str,
    pub(super) who: Who,
    pub(super) way: &'static str,
    pub(super) requests: Requests,
    pub(super) ratios: Vec<(&'static str, Option<Aim>)>,
    pub(super) with_latency: bool,
    pub(super) times: Series,
    pub(super) rates: Series,
    pub(super) latencies: Vec<f64>,
    pub(super) errors: u64,
}

/// The goal of a ratio, and what lies beyond.
pub(super) type Aim = (f64, Option<f64>);

/// Contenders that are compared with each other.
pub(super) type Group = Vec<Contender>;

/// What takes part if `runs` says so of its program.
pub(super) fn groups(settings: &Settings, chain: &Chain, runs: &dyn Fn(Who) -> bool) -> Result<Vec<Group>> {
    let mut all = vec![repeating(chain)?];
    if settings.main_only {
        all[0].retain(|contender| {
            matches!(
                contender.who,
                Who::HaProxy | Who::Before | Who::Ours | Who::OursUnlogged
            )
        });
        all[0].retain(|contender| {
            ["no_token", "rs256_repeating", "rs256_repeating_unlogged"].contains(&contender.case)
        });
        all[0].retain(|contender| contender.way != "RS256");
    } else {
        let count = if settings.smoke { MANY_IN_SMOKE } else { MANY };
        let many = |algorithm| {
            let tokens = chain.tokens(algorithm, count)?;
            Ok::<_, anyhow::Error>(
                tokens
                    .iter()
                    .map(|token| get("/items/1", Some(token)))
                    .collect::<Vec<_>>(),
            )
        };
        let rs256 = many(RS256)?;
        all.push(in_turn(&rs256));
        all.push(never_seen(&rs256, &many(ES256)?, many(EdDSA)?));
        for (case, path, least) in [
            ("answer_1_kib", "/1k", 1024),
            ("answer_64_kib", "/64k", 64 * 1024),
            (
                "answer_streamed_64_kib",
                "/streamed",
                upstream::STREAMED_CHUNKS * upstream::CHUNK_BYTES,
            ),
        ] {
            all.push(bodies(
                case,
                least,
                |token| get(path, token),
                &chain.token(RS256, 0)?,
            ));
        }
        let body = "x".repeat(UPLOAD);
        let put = |token: Option<&str>| put("/items/1", token, &body);
        all.push(bodies(
            "upload_64_kib",
            upstream::SMALL.len(),
            put,
            &chain.token(RS256, 0)?,
        ));
    }
    for group in &mut all {
        group.retain(|contender| runs(contender.who));
    }
    Ok(all)
}

/// One token again and again, which is how a client calls.
fn repeating(chain: &Chain) -> Result<Group> {
    let with = |name, who, way, algorithm: Algorithm| {
        let case = match algorithm {
            ES256 => "es256_repeating",
            EdDSA => "eddsa_repeating",
            _ => "rs256_repeating",
        };
        let token = chain.token(algorithm, 0)?;
        let contender = small(name, case, who, way, vec![get("/items/1", Some(&token))]);
        Ok::<_, anyhow::Error>(contender.over("haproxy_no_auth", None))
    };
    let without = |name, case, who, way| small(name, case, who, way, vec![get("/open/1", None)]);
    Ok(vec![
        without("haproxy_no_auth", "no_token", Who::HaProxy, "open").latency(),
        without("ours_no_token", "no_token", Who::Ours, "main")
            .over("haproxy_no_auth", None)
            .latency(),
        with("ours_rs256", Who::Ours, "main", RS256)?
            .aims("haproxy_no_auth", (1.0, Some(0.9)))
            .aims("envoy_jwt_cache", (0.5, None))
            .latency(),
        with("before_rs256", Who::Before, "main", RS256)?.over("ours_rs256", None),
        with("unlogged_rs256", Who::OursUnlogged, "main", RS256)?.called("rs256_repeating_unlogged"),
        with("ours_es256", Who::Ours, "main", ES256)?,
        with("ours_eddsa", Who::Ours, "main", EdDSA)?,
        without("haproxy_logged", "no_token_logged", Who::HaProxy, "open_logged")
            .over("haproxy_no_auth", None),
        with("haproxy_jwt_verify", Who::HaProxy, "RS256", RS256)?.latency(),
        without("nginx_no_auth", "no_token", Who::Nginx, "open")
            .over("haproxy_no_auth", None)
            .latency(),
        without("envoy_no_auth", "no_token", Who::Envoy, "open").over("haproxy_no_auth", None),
        with("envoy_jwt_cache", Who::Envoy, "cached", RS256)?.latency(),
    ])
}

/// Many clients, each with its token, which a cache holds or does not.
fn in_turn(tokens: &[Vec<u8>]) -> Group {
    let to = "haproxy_no_auth";
    vec![
        small(to, "no_token", Who::HaProxy, "open", vec![get("/open/1", None)]),
        small(
            "within",
            "rs256_20000_in_cache",
            Who::Ours,
            "main",
            tokens.to_vec(),
        )
        .over(to, None),
        small(
            "beyond",
            "rs256_20000_cache_of_10000",
            Who::OursSmallCache,
            "main",
            tokens.to_vec(),
        )
        .over(to, None),
    ]
}

/// Every token is verified.
fn never_seen(rs256: &[Vec<u8>], es256: &[Vec<u8>], eddsa: Vec<Vec<u8>>) -> Group {
    let (rs256, es256) = (|| rs256.to_vec(), || es256.to_vec());
    vec![
        small(
            "haproxy_jwt_verify_rs256",
            "rs256_never_seen",
            Who::HaProxy,
            "RS256",
            rs256(),
        ),
        small(
            "haproxy_jwt_verify_es256",
            "es256_never_seen",
            Who::HaProxy,
            "ES256",
            es256(),
        ),
        small(
            "ours_rs256",
            "rs256_never_seen",
            Who::OursTinyCache,
            "main",
            rs256(),
        )
        .over("haproxy_jwt_verify_rs256", Some((0.8, Some(0.7)))),
        small(
            "ours_es256",
            "es256_never_seen",
            Who::OursTinyCache,
            "main",
            es256(),
        )
        .over("haproxy_jwt_verify_es256", Some((0.8, Some(0.75)))),
        small(
            "ours_eddsa",
            "eddsa_never_seen",
            Who::OursTinyCache,
            "main",
            eddsa,
        )
        .over("haproxy_jwt_verify_es256", None),
        small("envoy_rs256", "rs256_never_seen", Who::Envoy, "RS256", rs256())
            .over("haproxy_jwt_verify_rs256", None),
        small("envoy_es256", "es256_never_seen", Who::Envoy, "ES256", es256())
            .over("haproxy_jwt_verify_es256", None),
    ]
}

/// We verify, the others pass.
fn bodies(case: &'static str, least: usize, request: impl Fn(Option<&str>) -> Vec<u8>, token: &str) -> Group {
    let with = |name, who, way, token| {
        Contender::new(name, case, who, way, Requests::new(vec![request(token)], least))
    };
    vec![
        with("haproxy_no_auth", Who::HaProxy, "open", None),
        with("nginx", Who::Nginx, "open", None).over("haproxy_no_auth", None),
        with("ours", Who::Ours, "main", Some(token)).over("haproxy_no_auth", None),
    ]
}

fn small(
    name: &'static str,
    case: &'static str,
    who: Who,
    way: &'static str,
    texts: Vec<Vec<u8>>,
) -> Contender {
    Contender::new(name, case, who, way, Requests::new(texts, upstream::SMALL.len()))
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
    fn over(mut self, other: &'static str, aim: Option<Aim>) -> Self {
        self.ratios.push((other, aim));
        self
    }

    /// As [`Contender::over`], with a goal, in place of what was asked for of that other.
    fn aims(mut self, other: &'static str, aim: Aim) -> Self {
        self.ratios.retain(|(name, _)| *name != other);
        self.over(other, Some(aim))
    }

    fn called(mut self, case: &'static str) -> Self {
        self.case = case;
        self
    }

    fn latency(mut self) -> Self {
        self.with_latency = true;
        self
    }
}

impl Who {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ours | Self::OursSmallCache | Self::OursTinyCache | Self::OursUnlogged => "servicechain",
            Self::Before => "servicechain_before",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

pub(crate) fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    format!("GET {path} {}\r\n", lines(token)).into_bytes()
}

pub(crate) fn put(path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    format!(
        "PUT {path} {}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        lines(token),
        body.len()
    )
    .into_bytes()
}

fn lines(token: Option<&str>) -> String {
    let authorization = token
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    format!("HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{authorization}")
}
