//! How a verifier starts: what it holds first, when it is ready, and how it notices what is new.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post;
use http::HeaderMap;
use servicechain_auth::rejected::Unavailable;
use servicechain_auth::specimen::{Specimen, bearing, chain};
use servicechain_auth::verifier::{StartError, UnconfirmedStart};
use servicechain_auth::{Hop, Judged, Rejected, Verifier, VerifierConfig};
use servicechain_keys::{AckKey, Generation, Knock, KnockAnswer, KnockReason, Workload};

use crate::loopback::{DEADLINE, nobody, serve};

fn write(chain: &Specimen, generation: u64, path: &Path) {
    let mut bundle = chain.bundle();
    bundle.generation = Generation::new(generation);
    std::fs::write(path, &chain.sign(&bundle).bytes()[..]).unwrap();
}

fn config(chain: &Specimen, directory: &Path) -> VerifierConfig {
    let mut config = chain.config(Hop::new("a"));
    config.bundle_file = Some(directory.join("file.jws"));
    config.state_dir = Some(directory.join("state"));
    config
}

async fn is_ready_in_time(verifier: &Verifier) -> bool {
    tokio::time::timeout(DEADLINE, verifier.ready()).await.is_ok()
}

/// An operator whose newest generation is this one; it counts knocks that are authentic.
#[derive(Clone)]
struct Operator {
    key: AckKey,
    newest: Arc<AtomicU64>,
    knocks: Arc<AtomicU64>,
}

async fn operator(chain_keys: &Specimen, newest: u64) -> (Operator, http::Uri) {
    let operator = Operator {
        key: chain_keys.ack_key(&Workload::new("gateway").unwrap()),
        newest: Arc::new(AtomicU64::new(newest)),
        knocks: Arc::default(),
    };
    let router = Router::new()
        .route("/v1/knock", post(answer))
        .with_state(operator.clone());
    (operator, serve(router).await)
}

async fn answer(State(operator): State<Operator>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let mac = headers["mac"].to_str().unwrap().parse().unwrap();
    let knock = Knock::open(&body, &mac, &operator.key).unwrap();
    assert_eq!((knock.reason, &knock.chain), (KnockReason::Started, &chain()));
    operator.knocks.fetch_add(1, Ordering::SeqCst);
    let newest = Generation::new(operator.newest.load(Ordering::SeqCst));
    let answer = KnockAnswer {
        generation: Some(newest),
        fetched: None,
        leader: None,
    };
    let sealed = answer.seal(&operator.key, &knock.nonce, &knock.pod).unwrap();
    ([("mac", sealed.mac.to_string())], sealed.body)
}

#[tokio::test]
async fn the_highest_of_directory_and_file_is_held() {
    let chain = Specimen::new();
    for (in_state, in_file, held) in [(3, 2, 3), (2, 3, 3), (2, 2, 2)] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        write(&chain, in_state, &directory.path().join("state/bundle.jws"));
        write(&chain, in_file, &directory.path().join("file.jws"));
        let verifier = Verifier::start(config(&chain, directory.path())).await.unwrap();
        assert_eq!(verifier.generation(), Generation::new(held));
        assert!(is_ready_in_time(&verifier).await);
    }
}

#[tokio::test]
async fn a_damaged_state_directory_does_not_stop_a_verifier() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    std::fs::write(directory.path().join("state/bundle.jws"), b"cut o").unwrap();
    write(&chain, 1, &directory.path().join("file.jws"));
    let verifier = Verifier::start(config(&chain, directory.path())).await.unwrap();
    assert_eq!(verifier.generation(), Generation::new(1));
}

#[tokio::test(start_paused = true)]
async fn the_file_is_read_again_every_ten_seconds() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    let verifier = Verifier::start(config(&chain, directory.path())).await.unwrap();
    assert!(!verifier.is_ready(), "nothing is held yet");
    let mut generations = verifier.subscribe();
    write(&chain, 1, &directory.path().join("file.jws"));
    let begin = tokio::time::Instant::now();
    generations.changed().await.unwrap();
    assert_eq!(*generations.borrow_and_update(), Generation::new(1));
    assert!(begin.elapsed() <= Duration::from_secs(10));
    assert!(verifier.is_ready() && verifier.is_confirmed());
    write(&chain, 2, &directory.path().join("file.jws"));
    generations.changed().await.unwrap();
    assert_eq!(verifier.generation(), Generation::new(2));
}

#[tokio::test]
async fn a_verifier_is_ready_when_it_holds_what_the_operator_named() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    write(&chain, 1, &directory.path().join("file.jws"));
    let (operator, url) = operator(&chain, 2).await;
    let mut config = config(&chain, directory.path());
    config.operator_url = Some(url);
    // The operator answers, so that waiting for it to stay silent changes nothing.
    config.startup_wait = DEADLINE * 10;
    let verifier = Verifier::start(config).await.unwrap();
    let too_early = tokio::time::timeout(Duration::from_millis(300), verifier.ready()).await;
    assert!(too_early.is_err(), "generation 1 is not the newest");
    assert!(operator.knocks.load(Ordering::SeqCst) > 0 && !verifier.is_confirmed());
    let mut bundle = chain.bundle();
    bundle.generation = Generation::new(2);
    verifier.deliver(chain.sign(&bundle).bytes().to_vec()).await;
    assert!(is_ready_in_time(&verifier).await);
    assert!(verifier.is_confirmed());
}

#[tokio::test]
async fn a_verifier_that_hears_nothing_serves_unconfirmed_or_waits_as_it_was_told() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    write(&chain, 1, &directory.path().join("file.jws"));
    let mut config = config(&chain, directory.path());
    config.operator_url = Some(nobody().await);
    config.startup_wait = Duration::from_millis(50);
    let serving = Verifier::start(config.clone()).await.unwrap();
    assert!(!serving.is_ready(), "the operator has its time");
    assert!(is_ready_in_time(&serving).await);
    assert!(!serving.is_confirmed());

    config.unconfirmed_start = UnconfirmedStart::Wait;
    let waiting = Verifier::start(config).await.unwrap();
    let ready = tokio::time::timeout(Duration::from_millis(300), waiting.ready()).await;
    assert!(ready.is_err(), "ready without the operator's word");
}

#[tokio::test]
async fn what_nobody_confirms_for_too_long_is_answered_503() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    write(&chain, 1, &directory.path().join("file.jws"));
    let (_, url) = operator(&chain, 1).await;
    let mut config = config(&chain, directory.path());
    config.max_staleness = Duration::from_millis(1);
    config.operator_url = Some(url);
    let verifier = Verifier::start(config).await.unwrap();
    let stale = Rejected::from(Unavailable::Stale);
    let judged = tokio::time::timeout(DEADLINE, async {
        loop {
            match verifier.judge(&bearing(&chain.token())) {
                Judged::Rejected(rejected) => return rejected,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(judged.await.unwrap(), stale);
}

#[tokio::test]
async fn what_could_never_become_ready_does_not_start() {
    let chain = Specimen::new();
    let directory = tempfile::tempdir().unwrap();
    let mut no_key = config(&chain, directory.path());
    no_key.ack_key = None;
    no_key.operator_url = Some(nobody().await);
    assert!(matches!(Verifier::start(no_key).await, Err(StartError::NoAckKey)));
    let mut no_anchor = config(&chain, directory.path());
    no_anchor.trust.anchors.clear();
    assert!(matches!(
        Verifier::start(no_anchor).await,
        Err(StartError::Anchors(0))
    ));
    let mut no_directory = config(&chain, directory.path());
    std::fs::write(directory.path().join("plain"), b"").unwrap();
    no_directory.state_dir = Some(directory.path().join("plain/state"));
    assert!(matches!(
        Verifier::start(no_directory).await,
        Err(StartError::StateDir { .. })
    ));
}

#[tokio::test]
async fn metrics_name_the_generation_and_what_was_counted() {
    let chain = Specimen::new();
    let verifier = chain.verifier();
    let _ = verifier.judge(&bearing(&chain.token()));
    chain.advance(Duration::from_hours(1));
    let expired = Specimen::new().token();
    for token in [expired.as_str(), "x"] {
        let _ = verifier.judge(&bearing(token));
    }
    let text = verifier.metrics_text();
    for (reason, count) in [("time", 1), ("malformed", 1), ("revoked", 0)] {
        let line = format!("\nservicechain_auth_token_refusals_total{{reason=\"{reason}\"}} {count}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(text.contains("\nservicechain_auth_key_generation 1\n"), "{text}");
    assert!(text.contains("\nservicechain_auth_verified_total 1\n"), "{text}");
    assert!(
        text.contains("# TYPE servicechain_auth_verified counter\n"),
        "{text}"
    );
}
