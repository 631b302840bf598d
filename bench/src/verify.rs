//! The section `verify`: what the library that verifies costs by itself, in this process.

mod openssl;
mod raw;
mod swap;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::HeaderMap;
use servicechain_auth::specimen::bearing;
use servicechain_auth::{Hop, Judged, Verifier, verify};
use servicechain_keys::Algorithm::{self, ES256, EdDSA, RS256};

use crate::calls::{self, Calls};
use crate::chain::{Bad, Chain, with_bad_signature};
use crate::process::{MEASURED_CORE, OTHER_CORE, pin};
use crate::report::{Findings, Row};
use crate::settings::{Budget, Settings};

pub(crate) const ABOUT: &str = "\
The library `servicechain-auth` alone, called in a loop on one core. A figure is the processor time of the calling thread, so
what else the machine does is not in it. Contenders take turns of some milliseconds, the order is reversed each round, a ratio is
one of the same round, and what is shown is the median of the rounds with their tenth and ninetieth percentile.
`cached` looks tokens up that were verified before; `cold` is one whole verification, against the raw signature check of
aws-lc-rs with the key parsed before; `judged` is what a request of a never-seen token costs, the cache's part of it included;
`refused` is what a bad one costs, after the same signature check where there is one. `bundle_swaps` is the ninety-ninth
percentile of single judgements, by the wall clock, with 20,000 cached tokens in turn, while a bundle a second is swapped in on
the other core (one with 5,000 revocations in `full_bundle_swaps`), against none. After each swap every cached token is judged
again once, without its signature.";

const MANY: usize = 20_000;
const MANY_IN_SMOKE: usize = 200;
/// Distinct tokens of a cache of 16: each is verified afresh.
const NEVER_SEEN: usize = 2_000;
const TINY_CACHE: u32 = 16;
const BENCH: &str = "verify";
const OURS: &str = "servicechain";

pub(crate) fn run(settings: &Settings, budget: Budget) -> Result<Findings> {
    pin(MEASURED_CORE)?;
    let chain = Chain::new();
    let slice = Duration::from_millis(settings.amount(50, 2));
    // A slice is short here: more rounds fit into the same time.
    let rounds = settings.rounds * settings.amount(4, 1);
    let mut findings = Findings::default();
    let go = |calls: &mut [Calls<'_>], parts| calls::measure(calls, rounds, slice, budget.share(parts));
    findings.rows.extend(go(&mut cached(settings, &chain)?, 5)?);
    findings.rows.extend(go(&mut cold(&chain)?, 4)?);
    findings.rows.extend(go(&mut refused(settings, &chain)?, 3)?);
    findings
        .rows
        .extend(contention(&chain, rounds, slice, budget.share(2))?);
    findings
        .rows
        .extend(swap::measure(settings, &chain, budget.part(0.9))?);
    openssl::measure(settings, &mut findings);
    Ok(findings)
}

fn cached<'a>(settings: &Settings, chain: &Chain) -> Result<Vec<Calls<'a>>> {
    let many = settings.amount(MANY, MANY_IN_SMOKE);
    let verifier = chain.verifier(u32::try_from(many * 2)?);
    let one = bearing(&chain.token(RS256, 0)?);
    let all: Vec<HeaderMap> = chain
        .tokens(RS256, many)?
        .iter()
        .map(|token| bearing(token))
        .collect();
    // They are in the cache before anything counts.
    for headers in &all {
        is_verified(&verifier.judge(headers));
    }
    let of_many = std::sync::Arc::clone(&verifier);
    let mut turn = 0;
    Ok(vec![
        Calls::new(
            "one",
            Row::new(BENCH, "cached_one_token", OURS).aim(0.1, Some(0.04)),
            move || is_verified(&verifier.judge(&one)),
        ),
        Calls::new(
            "many",
            Row::new(BENCH, format!("cached_{many}_tokens"), OURS).aim(1.0, None),
            move || {
                turn = (turn + 1) % all.len();
                is_verified(&of_many.judge(&all[turn]))
            },
        ),
    ])
}

fn cold<'a>(chain: &Chain) -> Result<Vec<Calls<'a>>> {
    let held = chain.sign(&chain.bundle());
    let mut calls = Vec::new();
    for (algorithm, raw_name, name) in [
        (RS256, "raw_rs256", "rs256"),
        (ES256, "raw_es256", "es256"),
        (EdDSA, "raw_eddsa", "eddsa"),
    ] {
        let token = chain.token(algorithm, 0)?;
        let raw = raw::SignatureCheck::new(&chain.issuer(algorithm)?.key, &token)?;
        calls.push(Calls::new(
            raw_name,
            Row::new(BENCH, format!("signature_{name}"), "aws-lc-rs"),
            move || raw.holds(),
        ));
        let (held, hop, now) = (std::sync::Arc::clone(&held), Hop::new("gateway"), chain.now());
        let whole = move || verify(&token, &held, &hop, now).is_ok();
        let row = Row::new(BENCH, format!("cold_{name}"), OURS).aim(1.1, Some(1.03));
        calls.push(Calls::new(name, row, whole).over(raw_name));
    }
    Ok(calls)
}

fn refused<'a>(settings: &Settings, chain: &Chain) -> Result<Vec<Calls<'a>>> {
    let verifier = chain.verifier(TINY_CACHE);
    let count = settings.amount(NEVER_SEEN, MANY_IN_SMOKE);
    let mut calls = Vec::new();
    for (algorithm, name, good, bad) in [
        (RS256, "rs256", "good_rs256", "bad_rs256"),
        (ES256, "es256", "good_es256", "bad_es256"),
        (EdDSA, "eddsa", "good_eddsa", "bad_eddsa"),
    ] {
        let tokens = chain.tokens(algorithm, count)?;
        let forged = tokens
            .iter()
            .map(|token| with_bad_signature(token))
            .collect::<Result<Vec<_>>>()?;
        let row = Row::new(BENCH, format!("judged_never_seen_{name}"), OURS);
        calls.push(in_turn(good, row, &verifier, &tokens, is_verified));
        let row = Row::new(BENCH, format!("refused_bad_signature_{name}"), OURS).aim(1.1, None);
        calls.push(in_turn(bad, row, &verifier, &forged, is_rejected).over(good));
    }
    let good = "good_rs256";
    let mut odd = |name, token: String, is_expected: fn(&Judged) -> bool| {
        let row = Row::new(BENCH, format!("refused_{name}"), OURS);
        calls.push(in_turn(name, row, &verifier, &[token], is_expected).over(good));
    };
    odd("expired", chain.bad_token(RS256, Bad::Expired)?, is_rejected);
    odd("audience", chain.bad_token(RS256, Bad::Audience)?, is_rejected);
    odd(
        "unknown_issuer",
        chain.bad_token(RS256, Bad::Issuer)?,
        is_rejected,
    );
    // The answer waits for the issuer's word; this is what it costs to find out that it must.
    odd("unknown_key", chain.token_of_unknown_key(RS256)?, is_unknown);
    let token = chain.token(RS256, 0)?;
    for (name, malformed) in [
        ("not_three_parts", token.replace('.', "")),
        ("not_base64", format!("~{token}")),
        ("not_json", format!("{}.{}", &token[1..], &token[1..])),
    ] {
        let row = Row::new(BENCH, format!("refused_malformed_{name}"), OURS).aim(2.0, None);
        calls.push(in_turn(name, row, &verifier, &[malformed], is_rejected));
    }
    Ok(calls)
}

fn in_turn<'a>(
    name: &'static str,
    row: Row,
    verifier: &std::sync::Arc<Verifier>,
    tokens: &[String],
    is_expected: fn(&Judged) -> bool,
) -> Calls<'a> {
    let verifier = std::sync::Arc::clone(verifier);
    let all: Vec<HeaderMap> = tokens.iter().map(|token| bearing(token)).collect();
    let mut turn = 0;
    Calls::new(name, row, move || {
        turn = (turn + 1) % all.len();
        is_expected(&verifier.judge(&all[turn]))
    })
}

/// The same token at the same time from both cores.
fn contention(chain: &Chain, rounds: usize, slice: Duration, budget: Budget) -> Result<Vec<Row>> {
    let verifier = chain.verifier(TINY_CACHE);
    let headers = bearing(&chain.token(RS256, 0)?);
    let (is_contended, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(OTHER_CORE)?;
            while !is_over.load(Ordering::Relaxed) {
                if is_contended.load(Ordering::Relaxed) {
                    for _ in 0..1000 {
                        is_verified(&verifier.judge(&headers));
                    }
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        let judge = |contended: bool| {
            let (verifier, headers, is_contended) = (&verifier, &headers, &is_contended);
            move || {
                if is_contended.load(Ordering::Relaxed) != contended {
                    is_contended.store(contended, Ordering::Relaxed);
                }
                is_verified(&verifier.judge(headers))
            }
        };
        let mut calls = [
            Calls::new("one_core", Row::new(BENCH, "cached_one_core", OURS), judge(false)),
            Calls::new(
                "two_cores",
                Row::new(BENCH, "cached_two_cores", OURS),
                judge(true),
            )
            .over("one_core"),
        ];
        let rows = calls::measure(&mut calls, rounds, slice, budget);
        is_over.store(true, Ordering::Relaxed);
        match other.join() {
            Ok(Ok(())) => rows,
            Ok(Err(error)) => Err(error),
            Err(_) => anyhow::bail!("a thread panicked"),
        }
    })
}

fn is_verified(judged: &Judged) -> bool {
    matches!(judged, Judged::Verified(_))
}

fn is_rejected(judged: &Judged) -> bool {
    matches!(judged, Judged::Rejected(_))
}

fn is_unknown(judged: &Judged) -> bool {
    matches!(judged, Judged::UnknownKey(_))
}

/// The name that `openssl speed` has for it.
const fn openssl_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        ES256 => "ecdsap256",
        EdDSA => "ed25519",
        _ => "rsa2048",
    }
}
