//! Judgements while bundles are swapped in: each is timed by itself, since what is asked is whether a swap holds one up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::HeaderMap;
use servicechain_auth::Verifier;
use servicechain_auth::specimen::bearing;
use servicechain_keys::Algorithm::RS256;
use servicechain_keys::bundle::MAX_REVOCATIONS;
use servicechain_keys::{Bundle, Revocation, RevocationKind, ShortDigest};

use super::{BENCH, MANY, MANY_IN_SMOKE, OURS, is_verified};
use crate::chain::Chain;
use crate::process::{OTHER_CORE, pin};
use crate::report::Row;
use crate::rounds::{Series, interleave, quantile};
use crate::settings::{Budget, Settings};

/// One swap in the middle of each slice, as long as a second.
struct Contender {
    case: &'static str,
    /// What is swapped in, but for its generation.
    bundle: Option<Bundle>,
    p50: Series,
    p99: Series,
    failed: u64,
}

pub(super) fn measure(settings: &Settings, chain: &Chain, budget: Budget) -> Result<Vec<Row>> {
    let many = settings.amount(MANY, MANY_IN_SMOKE);
    let tokens = chain.tokens(RS256, many)?;
    let all: Vec<HeaderMap> = tokens.iter().map(|token| bearing(token)).collect();
    let verifier = chain.verifier(u32::try_from(many * 2)?);
    for headers in &all {
        is_verified(&verifier.judge(headers));
    }
    let mut full = chain.bundle();
    full.revocations = revocations(chain, settings.amount(MAX_REVOCATIONS, 50))?;
    let mut contenders = [
        ("no_bundle_swaps", None),
        ("bundle_swaps", Some(chain.bundle())),
        ("full_bundle_swaps", Some(full)),
    ]
    .map(|(case, bundle)| Contender {
        case,
        bundle,
        p50: Series::default(),
        p99: Series::default(),
        failed: 0,
    });
    let mut generation = 1;
    interleave(settings.rounds, contenders.len(), budget, |turn| {
        let contender = &mut contenders[turn];
        // Every slice begins with tokens that were judged under the bundle that is held.
        generation += 1;
        swap(chain, &verifier, chain.bundle(), generation);
        for headers in &all {
            is_verified(&verifier.judge(headers));
        }
        generation += 1;
        slice(settings, chain, &verifier, &all, contender, generation)
    })?;
    let still = contenders[0].p99.clone();
    Ok(contenders
        .iter()
        .map(|contender| {
            let row = Row {
                p50_micros: contender.p50.middle().map(|middle| middle.median),
                p99_micros: contender.p99.middle().map(|middle| middle.median),
                ..Row::new(BENCH, contender.case, OURS)
            };
            let row = row.figure("us", &contender.p99).errors(contender.failed);
            match contender.bundle {
                Some(_) => row
                    .over("no_bundle_swaps", &contender.p99.over(&still))
                    .aim(1.1, None),
                None => row,
            }
        })
        .collect())
}

fn slice(
    settings: &Settings,
    chain: &Chain,
    verifier: &Arc<Verifier>,
    all: &[HeaderMap],
    contender: &mut Contender,
    generation: u64,
) -> Result<()> {
    let length = settings.slice();
    let next = contender.bundle.clone();
    let is_swapped = AtomicBool::new(next.is_none());
    let mut nanos: Vec<u32> = Vec::with_capacity(2_000_000);
    std::thread::scope(|scope| {
        let (swapped, verifier) = (&is_swapped, verifier);
        let other = scope.spawn(move || {
            pin(OTHER_CORE)?;
            if let Some(bundle) = next {
                std::thread::sleep(length / 2);
                swap(chain, verifier, bundle, generation);
                swapped.store(true, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
        let mut turn = 0;
        let begun = Instant::now();
        let mut now = begun;
        while now - begun < length || !is_swapped.load(Ordering::Relaxed) {
            turn = (turn + 1) % all.len();
            contender.failed += u64::from(!is_verified(&verifier.judge(&all[turn])));
            let before = now;
            now = Instant::now();
            nanos.push(u32::try_from((now - before).as_nanos()).unwrap_or(u32::MAX));
            if now - begun > length + GIVE_UP {
                break;
            }
        }
        match other.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a thread panicked"),
        }
    })?;
    nanos.sort_unstable();
    let micros: Vec<f64> = nanos.iter().map(|nanos| f64::from(*nanos) / 1e3).collect();
    contender.p50.push(quantile(&micros, 0.5).unwrap_or_default());
    contender.p99.push(quantile(&micros, 0.99).unwrap_or_default());
    Ok(())
}

/// A bundle is signed and taken much sooner.
const GIVE_UP: Duration = Duration::from_secs(20);

/// As a push would: it is signed and opened, then held. Only the last step touches who judges.
fn swap(chain: &Chain, verifier: &Verifier, mut bundle: Bundle, generation: u64) {
    bundle.generation = servicechain_keys::Generation::new(generation);
    verifier.hold(chain.sign(&bundle));
}

/// Of sessions of the tokens' own issuer, to none of which they belong.
fn revocations(chain: &Chain, count: usize) -> Result<Vec<Revocation>> {
    let iss = &chain.issuer(RS256)?.iss;
    let issuers = chain.bundle().issuers;
    let issuer = issuers.iter().find(|issuer| issuer.iss == *iss);
    let issuer = issuer.context("no such issuer")?;
    let named = |number: usize| Revocation {
        issuer: issuer.name.clone(),
        kind: RevocationKind::Sid,
        digest: ShortDigest::of(&format!("session-{number}")),
        issued_before: chain.now(),
        expires: None,
    };
    Ok((0..count).map(named).collect())
}
