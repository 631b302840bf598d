//! Who may say what is signed with: a pod that the operator confirmed, for as long as somebody asks it (ADR 3, rule 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, Request, StatusCode};
use servicechain_auth::keys_endpoint::router;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_auth::{Hop, Judged, Verifier};
use servicechain_keys::{AckKey, Generation, Knock, KnockAnswer, Nonce, Workload};
use tower::ServiceExt as _;

use crate::loopback::{DEADLINE, serve};

const UNASKED: Duration = Duration::from_mins(1);
const LESS: Duration = Duration::from_secs(55);

/// An operator that can fall silent.
#[derive(Clone)]
struct Operator {
    key: AckKey,
    speaks: Arc<AtomicBool>,
    knocks: Arc<AtomicU64>,
    newest: Arc<AtomicU64>,
}

async fn answer(State(operator): State<Operator>, headers: HeaderMap, body: Bytes) -> Response {
    operator.knocks.fetch_add(1, Ordering::SeqCst);
    if !operator.speaks.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mac = headers["mac"].to_str().unwrap().parse().unwrap();
    let knock = Knock::open(&body, &mac, &operator.key).unwrap();
    let answer = KnockAnswer {
        generation: Some(Generation::new(operator.newest.load(Ordering::SeqCst))),
        fetched: None,
        leader: None,
    };
    let sealed = answer.seal(&operator.key, &knock.nonce, &knock.pod).unwrap();
    ([("mac", sealed.mac.to_string())], sealed.body).into_response()
}

struct Confirmed {
    chain: Specimen,
    operator: Operator,
    verifier: Arc<Verifier>,
    keys_port: Router,
    _state: tempfile::TempDir,
}

impl Confirmed {
    /// The operator answers its first knock, and then falls silent. From then on time stands still.
    async fn start() -> Self {
        let chain = Specimen::new();
        let operator = Operator {
            key: chain.ack_key(&Workload::new("gateway").unwrap()),
            speaks: Arc::new(AtomicBool::new(true)),
            knocks: Arc::default(),
            newest: Arc::new(AtomicU64::new(1)),
        };
        let url = serve(
            Router::new()
                .route("/v1/knock", post(answer))
                .with_state(operator.clone()),
        )
        .await;
        let state = tempfile::tempdir().unwrap();
        let mut config = chain.config(Hop::new("gateway"));
        config.operator_url = Some(url);
        config.state_dir = Some(state.path().to_owned());
        let verifier = Verifier::start(config).await.unwrap();
        verifier
            .deliver(chain.sign(&chain.bundle()).bytes().to_vec())
            .await;
        tokio::time::timeout(DEADLINE, verifier.ready()).await.unwrap();
        assert!(verifier.is_confirmed());
        operator.speaks.store(false, Ordering::SeqCst);
        tokio::time::pause();
        Self {
            keys_port: router(Arc::clone(&verifier)),
            chain,
            operator,
            verifier,
            _state: state,
        }
    }

    async fn send(&self, request: Request<Body>) -> StatusCode {
        self.keys_port.clone().oneshot(request).await.unwrap().status()
    }

    async fn read(&self) -> StatusCode {
        self.send(Request::get("/v1/bundle").body(Body::empty()).unwrap())
            .await
    }

    async fn poll(&self, pod: &str) -> StatusCode {
        let request = Request::get("/keys/v1/keys").header("Pod-Uid", pod);
        let request = request.header("Nonce", Nonce::new([3; 16]).to_string());
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn push(&self, bytes: Vec<u8>) -> StatusCode {
        let request = Request::put("/keys/v1/keys").header("Pod-Uid", self.pod());
        let request = request.header("Nonce", Nonce::new([3; 16]).to_string());
        self.send(request.body(bytes.into()).unwrap()).await
    }

    fn pod(&self) -> String {
        self.verifier.config().pod.to_string()
    }

    /// From now on time goes on.
    fn let_the_operator_speak(&self) {
        self.operator.speaks.store(true, Ordering::SeqCst);
        tokio::time::resume();
    }

    async fn await_authority(&self) {
        let begun = std::time::Instant::now();
        while self.read().await != StatusCode::OK {
            assert!(begun.elapsed() < DEADLINE, "no authority again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_pod_that_nobody_asked_for_a_minute_is_no_authority_until_a_knock_is_answered() {
    let pod = Confirmed::start().await;
    assert_eq!(pod.read().await, StatusCode::OK);
    let knocks = pod.operator.knocks.load(Ordering::SeqCst);
    tokio::time::advance(LESS).await;
    assert_eq!(pod.read().await, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(pod.read().await, StatusCode::SERVICE_UNAVAILABLE);
    // Who asks now cannot know whether it was left out meanwhile.
    assert_eq!(pod.poll(&pod.pod()).await, StatusCode::OK);
    assert_eq!(pod.read().await, StatusCode::SERVICE_UNAVAILABLE);
    // What it tells callers of its own does not change.
    assert!(pod.verifier.is_ready());
    let judged = pod.verifier.judge(&bearing(&pod.chain.token()));
    assert!(matches!(judged, Judged::Verified(_)), "{judged:?}");

    pod.let_the_operator_speak();
    pod.await_authority().await;
    assert!(
        pod.operator.knocks.load(Ordering::SeqCst) > knocks,
        "it knocked again"
    );
}

#[tokio::test]
async fn whoever_is_asked_by_its_name_stays_an_authority() {
    let pod = Confirmed::start().await;
    for _ in 0..3 {
        tokio::time::advance(LESS).await;
        assert_eq!(pod.poll(&pod.pod()).await, StatusCode::OK);
    }
    let bundle = pod.chain.sign(&pod.chain.bundle());
    tokio::time::advance(LESS).await;
    assert_eq!(pod.push(bundle.bytes().to_vec()).await, StatusCode::OK);
    tokio::time::advance(LESS).await;
    assert_eq!(pod.read().await, StatusCode::OK);
}

#[tokio::test]
async fn what_is_meant_for_another_pod_or_forged_does_not_count_as_a_question() {
    let pod = Confirmed::start().await;
    tokio::time::advance(LESS).await;
    assert_eq!(pod.poll("somebody-else").await, StatusCode::CONFLICT);
    let mut forged = pod.chain.bundle();
    forged.generation = Generation::new(9);
    let stranger = servicechain_keys::TrustKey::from_seed(&[99; 32]).unwrap();
    let forged = forged.sign(&stranger).unwrap();
    assert_eq!(pod.push(forged.bytes().to_vec()).await, StatusCode::CONFLICT);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(pod.read().await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_pod_that_hears_of_newer_keys_than_its_own_serves_on_and_is_no_authority() {
    let pod = Confirmed::start().await;
    pod.operator.newest.store(2, Ordering::SeqCst);
    tokio::time::advance(UNASKED + Duration::from_secs(1)).await;
    pod.let_the_operator_speak();
    let stops = tokio::time::timeout(Duration::from_millis(500), async {
        while pod.verifier.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(stops.await.is_err(), "not ready for what it heard");
    assert_eq!(pod.read().await, StatusCode::SERVICE_UNAVAILABLE);
    let mut next = pod.chain.bundle();
    next.generation = Generation::new(2);
    assert_eq!(
        pod.push(pod.chain.sign(&next).bytes().to_vec()).await,
        StatusCode::OK
    );
    pod.await_authority().await;
}
