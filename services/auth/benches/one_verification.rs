//! What one judgement costs: a token found in the cache, a token verified afresh against the raw signature check, and
//! the map under the cache against two others. Run with `cargo bench -p servicechain-auth`; of many rounds the one that
//! the machine disturbed least is shown.
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

const ROUNDS: usize = 25;

/// The shortest time of one call, in nanoseconds.
fn measure(times: u32, mut call: impl FnMut()) -> f64 {
    let round = || {
        let begin = Instant::now();
        for _ in 0..times {
            call();
        }
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    };
    std::iter::repeat_with(round)
        .take(ROUNDS)
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    memory();
    cache_hits();
    maps();
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        whole_verification(algorithm);
    }
}

/// How much the process grows by a cached token, against what the cache believes.
fn memory() {
    for extra in [0, 600, 3000] {
        let chain = Specimen::new();
        let verifier = chain.verifier();
        let tokens: Vec<_> = (0..4000)
            .map(|number| {
                let mut claims = chain.claims();
                claims.insert("jti".into(), format!("{number:0>36}").into());
                claims.insert("groups".into(), "g".repeat(extra).into());
                chain.token_with(&claims)
            })
            .collect();
        let before = resident_bytes();
        for token in &tokens {
            assert!(matches!(verifier.judge(&bearing(token)), Judged::Verified(_)));
        }
        let each = (resident_bytes() - before) / verifier.cached_tokens();
        println!(
            "memory of a cached token of {:>4} B          {each:>8} B",
            tokens[0].len()
        );
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    pages * 4096
}

fn cache_hits() {
    for extra in [0, 600, 3000] {
        let chain = Specimen::new();
        let verifier = chain.verifier();
        let mut claims = chain.claims();
        claims.insert("groups".into(), "g".repeat(extra).into());
        let token = chain.token_with(&claims);
        let headers = bearing(&token);
        let hit = measure(20_000, || {
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
                measure(20_000, || {
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
    let of_quick = measure(20_000, || {
        black_box(quick.get(black_box(wanted)));
    });
    let of_mutex = measure(20_000, || {
        black_box(mutex.lock().unwrap().get(black_box(wanted)).cloned());
    });
    let of_lock = measure(20_000, || {
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
    let parse = || {
        let _ = black_box(CompactJws::parse(black_box(&token), 8192));
    };
    let (raw, whole, parse) = (measure(100, raw), measure(100, whole), measure(1000, parse));
    println!(
        "verify, {:<5}: raw signature {:>7.1} us, whole {:>7.1} us, ratio {:.3}; of it JWS syntax {:.2} us",
        algorithm.name(),
        raw / 1e3,
        whole / 1e3,
        whole / raw,
        parse / 1e3
    );
}
