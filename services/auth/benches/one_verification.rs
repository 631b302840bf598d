//! What one judgement costs: a token found in the cache, a token verified afresh against the raw signature check, and
//! the map under the cache against two others. Run with `cargo bench -p servicechain-auth`; medians of nine rounds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, or ends"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use servicechain_auth::specimen::{ISSUER, Specimen, bearing};
use servicechain_auth::{Hop, Judged, verify};
use servicechain_keys::{Algorithm, CompactJws, Found};

const ROUNDS: usize = 9;

/// The median time of one call, in nanoseconds.
fn measure(times: u32, mut call: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..times {
                call();
            }
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(times)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    cache_hits();
    maps();
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        whole_verification(algorithm);
    }
}

fn cache_hits() {
    for extra in [0, 600, 3000] {
        let chain = Specimen::new();
        let verifier = chain.verifier();
        let mut claims = chain.claims();
        claims.insert("groups".into(), "g".repeat(extra).into());
        let token = chain.token_with(&claims);
        let headers = bearing(&token);
        let hit = measure(200_000, || {
            assert!(matches!(
                black_box(verifier.judge(black_box(&headers))),
                Judged::Verified(_)
            ));
        });
        println!(
            "judge, cached, token of {:>4} B            {hit:>8.0} ns",
            token.len()
        );
        let both = std::thread::scope(|scope| {
            let judge = || {
                measure(200_000, || {
                    assert!(matches!(
                        black_box(verifier.judge(black_box(&headers))),
                        Judged::Verified(_)
                    ));
                })
            };
            let other = scope.spawn(judge);
            judge().max(other.join().unwrap_or_default())
        });
        println!("  the same from two threads at once        {both:>8.0} ns");
    }
}

/// The look-up alone, in a full cache of 5,000 tokens of 700 bytes, one of them asked for.
fn maps() {
    let tokens: Vec<String> = (0..5000).map(|number| format!("{number:0>700}")).collect();
    let value = Arc::new(());
    let quick = quick_cache::sync::Cache::new(10_000);
    let mutex = Mutex::new(HashMap::new());
    let lock = RwLock::new(HashMap::new());
    for token in &tokens {
        quick.insert(token.clone(), Arc::clone(&value));
        mutex.lock().unwrap().insert(token.clone(), Arc::clone(&value));
        lock.write().unwrap().insert(token.clone(), Arc::clone(&value));
    }
    let wanted = tokens[2500].as_str();
    let of_quick = measure(500_000, || {
        black_box(quick.get(black_box(wanted)));
    });
    let of_mutex = measure(500_000, || {
        black_box(mutex.lock().unwrap().get(black_box(wanted)).cloned());
    });
    let of_lock = measure(500_000, || {
        black_box(lock.read().unwrap().get(black_box(wanted)).cloned());
    });
    println!("look-up alone: quick_cache                 {of_quick:>8.0} ns");
    println!("look-up alone: Mutex<HashMap> (SipHash)    {of_mutex:>8.0} ns");
    println!("look-up alone: RwLock<HashMap> (SipHash)   {of_lock:>8.0} ns");
}

fn whole_verification(algorithm: Algorithm) {
    let chain = Specimen::signing_with(algorithm);
    let held = chain.sign(&chain.bundle());
    let token = chain.token();
    let hop = Hop::new("a");
    let jws = CompactJws::parse(&token, 8192).unwrap();
    let Found::Key(key) = held
        .issuer(ISSUER)
        .unwrap()
        .keys
        .find(jws.header.kid.as_deref(), algorithm)
    else {
        return;
    };
    let raw = || {
        let _ = black_box(key.verify(black_box(jws.signing_input), black_box(&jws.signature)));
    };
    let whole = || {
        let _ = black_box(verify(black_box(&token), &held, &hop, chain.now()));
    };
    // In turn, so that a noisy machine disturbs both alike.
    let mut ratios: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| (measure(300, raw), measure(300, whole)))
        .collect();
    ratios.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (raw, whole) = ratios[ROUNDS / 2];
    println!(
        "verify, {:<5}: raw signature {:>7.1} us, whole {:>7.1} us, ratio {:.3}",
        algorithm.name(),
        raw / 1e3,
        whole / 1e3,
        whole / raw
    );
}
