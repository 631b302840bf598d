//! What becomes of a token whose key is unknown, by what its authority does: says yes, says no, says nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use servicechain_auth::keys_endpoint::router;
use servicechain_auth::rejected::{TokenFault, Unavailable};
use servicechain_auth::specimen::{ISSUER_NAME, Specimen, active_key, bearing, new_key, sign_claims};
use servicechain_auth::{Authentication, Hop, Judged, Rejected, Verifier, VerifierConfig};
use servicechain_keys::{
    AckKey, Algorithm, Fetched, Generation, HeldBundle, IssuerKind, Knock, KnockAnswer, KnockReason,
    SigningKey, Workload,
};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::loopback::{DEADLINE, nobody, serve};

/// A chain whose second key only the newer bundle has.
struct Case {
    chain: Specimen,
    new_key: SigningKey,
    kind: IssuerKind,
}

impl Case {
    fn of(kind: IssuerKind) -> Self {
        Self {
            chain: Specimen::new(),
            new_key: new_key(Algorithm::ES256),
            kind,
        }
    }

    fn older(&self) -> Arc<HeldBundle> {
        let mut bundle = self.chain.bundle();
        bundle.issuers[0].kind = self.kind;
        self.chain.sign(&bundle)
    }

    fn newer(&self) -> Arc<HeldBundle> {
        let mut bundle = self.chain.bundle();
        bundle.generation = Generation::new(2);
        bundle.issuers[0].kind = self.kind;
        bundle.issuers[0].keys.push(active_key(&self.new_key));
        self.chain.sign(&bundle)
    }

    /// A token by the key that only the newer bundle has.
    fn headers(&self) -> HeaderMap {
        bearing(&sign_claims(&self.new_key, &self.chain.claims()))
    }

    fn config(&self) -> VerifierConfig {
        self.chain.config(Hop::new("a"))
    }

    async fn start(&self, config: VerifierConfig) -> Arc<Verifier> {
        let verifier = Verifier::start(config).await.unwrap();
        verifier.hold(self.older());
        assert!(matches!(verifier.judge(&self.headers()), Judged::UnknownKey(_)));
        verifier
    }

    /// A verifier whose issuer's pods behave like this.
    async fn start_with(&self, authority: Router) -> Arc<Verifier> {
        let mut config = self.config();
        config
            .issuer_urls
            .insert(ISSUER_NAME.to_owned(), serve(authority).await);
        self.start(config).await
    }
}

async fn authenticate(verifier: &Verifier, headers: &HeaderMap) -> Result<Generation, Rejected> {
    let authentication = tokio::time::timeout(DEADLINE, verifier.authenticate(headers, None)).await;
    match authentication.expect("a verdict in time") {
        Authentication::Verified(caller) => Ok(caller.generation()),
        Authentication::Rejected(rejected) => Err(rejected),
        Authentication::Absent => panic!("the token is there"),
    }
}

fn refused() -> Result<Generation, Rejected> {
    Err(TokenFault::UnknownKey.into())
}

fn unanswered() -> Result<Generation, Rejected> {
    Err(Unavailable::UnknownKey.into())
}

/// An issuer's pod that holds this bundle and is confirmed.
fn issuer_pod(case: &Case, holds: Arc<HeldBundle>) -> Router {
    let pod = Verifier::new(case.config());
    pod.hold(holds);
    router(pod)
}

#[tokio::test]
async fn a_key_that_the_issuer_has_by_now_is_taken_and_the_token_passes() {
    let case = Case::of(IssuerKind::Managed);
    let verifier = case.start_with(issuer_pod(&case, case.newer())).await;
    assert_eq!(
        authenticate(&verifier, &case.headers()).await,
        Ok(Generation::new(2))
    );
    assert!(
        matches!(verifier.judge(&case.headers()), Judged::Verified(_)),
        "from now on without asking"
    );
}

#[tokio::test]
async fn a_key_that_the_issuer_does_not_know_either_is_refused() {
    let case = Case::of(IssuerKind::Managed);
    let verifier = case.start_with(issuer_pod(&case, case.older())).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, refused());
    assert_eq!(verifier.counters().inquiries.get(), 1);
}

#[tokio::test]
async fn an_issuer_pod_that_holds_an_older_bundle_knows_no_more_than_we_do() {
    let case = Case::of(IssuerKind::Managed);
    let verifier = case.start_with(issuer_pod(&case, case.older())).await;
    let mut bundle = case.chain.bundle();
    bundle.generation = Generation::new(7);
    verifier.hold(case.chain.sign(&bundle));
    assert_eq!(authenticate(&verifier, &case.headers()).await, refused());
}

#[tokio::test]
async fn an_unconfirmed_or_lying_issuer_pod_is_no_authority() {
    let case = Case::of(IssuerKind::Managed);
    let mut config = case.config();
    config.operator_url = Some(nobody().await);
    let unconfirmed = Verifier::new(config);
    unconfirmed.hold(case.older());
    let verifier = case.start_with(router(unconfirmed)).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
    let mut stranger = Specimen::new();
    stranger.trust_key = servicechain_keys::TrustKey::from_seed(&[1; 32]).unwrap();
    let forged = stranger.sign(&stranger.bundle()).bytes().to_vec();
    let lying = Router::new().route("/v1/bundle", get(move || async move { forged }));
    let verifier = case.start_with(lying).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
}

#[tokio::test]
async fn where_nobody_listens_the_answer_is_503() {
    let case = Case::of(IssuerKind::Managed);
    let mut config = case.config();
    config.issuer_urls.insert(ISSUER_NAME.to_owned(), nobody().await);
    let verifier = case.start(config).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
    let without_anybody = case.start(case.config()).await;
    assert_eq!(
        authenticate(&without_anybody, &case.headers()).await,
        unanswered()
    );
}

/// An authority that never answers, and counts who asks.
fn silent() -> (Arc<AtomicUsize>, Router) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let never = get(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>()
    });
    (asked, Router::new().route("/v1/bundle", never))
}

#[tokio::test]
async fn a_silent_authority_is_waited_for_no_longer_than_1_5_s() {
    let case = Case::of(IssuerKind::Managed);
    let (asked, authority) = silent();
    let verifier = case.start_with(authority).await;
    let begin = Instant::now();
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
    assert!(
        begin.elapsed() < Duration::from_millis(1900),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_deadline_of_a_request_ends_its_waiting() {
    let case = Case::of(IssuerKind::Managed);
    let (_, authority) = silent();
    let verifier = case.start_with(authority).await;
    let begin = Instant::now();
    let deadline = begin + Duration::from_millis(50);
    let authentication = verifier.authenticate(&case.headers(), Some(deadline)).await;
    let Authentication::Rejected(rejected) = authentication else {
        panic!()
    };
    assert_eq!(rejected, Unavailable::UnknownKey.into());
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_token_that_breaks_another_rule_asks_nobody() {
    let case = Case::of(IssuerKind::Managed);
    let (asked, authority) = silent();
    let verifier = case.start_with(authority).await;
    let mut claims = case.chain.claims();
    claims.insert("aud".into(), "elsewhere".into());
    let headers = bearing(&sign_claims(&case.new_key, &claims));
    assert_eq!(
        authenticate(&verifier, &headers).await,
        Err(TokenFault::Audience.into())
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// An authority that answers each question only when it is allowed to, with the bundle it holds by then.
#[derive(Clone)]
struct Gated {
    asked: Arc<Mutex<Vec<Instant>>>,
    arrived: Arc<Notify>,
    allowed: Arc<Semaphore>,
    holds: Arc<Mutex<Arc<HeldBundle>>>,
}

impl Gated {
    fn new(holds: Arc<HeldBundle>) -> Self {
        Self {
            asked: Arc::default(),
            arrived: Arc::default(),
            allowed: Arc::new(Semaphore::new(0)),
            holds: Arc::new(Mutex::new(holds)),
        }
    }

    fn router(&self) -> Router {
        async fn answer(State(gated): State<Gated>) -> Response {
            gated.asked.lock().unwrap().push(Instant::now());
            gated.arrived.notify_one();
            gated.allowed.acquire().await.unwrap().forget();
            let bundle = Arc::clone(&gated.holds.lock().unwrap());
            bundle.bytes().to_vec().into_response()
        }
        Router::new()
            .route("/v1/bundle", get(answer))
            .with_state(self.clone())
    }
}

#[tokio::test]
async fn three_hundred_who_ask_at_once_ask_once_and_only_256_wait() {
    let case = Case::of(IssuerKind::Managed);
    let gated = Gated::new(case.older());
    let verifier = case.start_with(gated.router()).await;
    let headers = case.headers();
    gated.allowed.add_permits(100);
    let all = futures_util::future::join_all((0..300).map(|_| authenticate(&verifier, &headers))).await;
    assert_eq!(all.iter().filter(|verdict| **verdict == refused()).count(), 256);
    assert_eq!(all.iter().filter(|verdict| **verdict == unanswered()).count(), 44);
    assert_eq!(gated.asked.lock().unwrap().len(), 1);
    assert_eq!(
        authenticate(&verifier, &headers).await,
        refused(),
        "places are given back"
    );
}

#[tokio::test]
async fn a_word_that_was_asked_for_before_a_token_came_does_not_count_for_it() {
    let case = Arc::new(Case::of(IssuerKind::Managed));
    let gated = Gated::new(case.older());
    let verifier = case.start_with(gated.router()).await;
    let ask = || {
        let (verifier, headers) = (Arc::clone(&verifier), case.headers());
        tokio::spawn(async move { authenticate(&verifier, &headers).await })
    };
    let first = ask();
    gated.arrived.notified().await;
    // The first question is under way. Whoever comes now waits for the second.
    let second = ask();
    tokio::task::yield_now().await;
    gated.allowed.add_permits(1);
    assert_eq!(first.await.unwrap(), refused());
    *gated.holds.lock().unwrap() = case.newer();
    gated.allowed.add_permits(1);
    assert_eq!(second.await.unwrap(), Ok(Generation::new(2)));
    let asked = gated.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1] - asked[0] >= Duration::from_millis(990),
        "one question a second"
    );
}

#[tokio::test]
async fn a_bundle_that_is_pushed_meanwhile_ends_the_waiting() {
    let case = Case::of(IssuerKind::Managed);
    let (_, authority) = silent();
    let verifier = case.start_with(authority).await;
    let (headers, newer) = (case.headers(), case.newer());
    let (verdict, ()) = tokio::join!(authenticate(&verifier, &headers), async { verifier.hold(newer) });
    assert_eq!(verdict, Ok(Generation::new(2)));
}

type Push = (Arc<Verifier>, Arc<HeldBundle>);

/// What an operator answers to a knock for an unknown kid.
#[derive(Clone)]
struct Operator {
    key: AckKey,
    fetched: Option<Fetched>,
    newest: u64,
    /// Whom it pushes to before it answers.
    pushes: Arc<Mutex<Option<Push>>>,
    leader: Option<String>,
}

impl Operator {
    fn router(self) -> Router {
        Router::new()
            .route(
                "/v1/knock",
                post(
                    async |State(operator): State<Self>, headers: HeaderMap, body: Bytes| {
                        operator.answer(&headers, &body)
                    },
                ),
            )
            .with_state(self)
    }

    fn answer(self, headers: &HeaderMap, body: &[u8]) -> Response {
        let operator = self;
        let mac = headers["mac"].to_str().unwrap().parse().unwrap();
        let knock = Knock::open(body, &mac, &operator.key).unwrap();
        let answer = match knock.reason {
            KnockReason::Started => KnockAnswer {
                generation: Some(Generation::new(1)),
                fetched: None,
                leader: None,
            },
            KnockReason::UnknownKid => {
                assert_eq!(knock.issuer.as_deref(), Some(ISSUER_NAME));
                let pushed = operator.pushes.lock().unwrap().take();
                if let Some((verifier, bundle)) = pushed {
                    verifier.hold(bundle);
                }
                let generation = operator
                    .leader
                    .is_none()
                    .then_some(Generation::new(operator.newest));
                KnockAnswer {
                    generation,
                    fetched: operator.fetched,
                    leader: operator.leader,
                }
            }
        };
        // The MAC is by the operator's key, which a forger does not have.
        let sealed = answer.seal(&operator.key, &knock.nonce, &knock.pod).unwrap();
        (StatusCode::OK, [("mac", sealed.mac.to_string())], sealed.body).into_response()
    }
}

async fn knocking(case: &Case, operator: Router) -> Arc<Verifier> {
    let mut config = case.config();
    config.operator_url = Some(serve(operator).await);
    case.start(config).await
}

fn operator(case: &Case, fetched: Fetched, newest: u64) -> Operator {
    let key = case.chain.ack_key(&Workload::new("gateway").unwrap());
    Operator {
        key,
        fetched: Some(fetched),
        newest,
        pushes: Arc::default(),
        leader: None,
    }
}

#[tokio::test]
async fn for_an_external_issuer_the_operators_fetch_decides() {
    for kind in [IssuerKind::External, IssuerKind::Static] {
        let case = Case::of(kind);
        let same = knocking(&case, operator(&case, Fetched::Same, 1).router()).await;
        assert_eq!(authenticate(&same, &case.headers()).await, refused());
        let failed = knocking(&case, operator(&case, Fetched::Failed, 1).router()).await;
        assert_eq!(authenticate(&failed, &case.headers()).await, unanswered());
    }
}

#[tokio::test]
async fn a_key_that_the_operator_fetched_arrives_by_push() {
    let case = Case::of(IssuerKind::External);
    let operator = operator(&case, Fetched::New, 2);
    let pushes = Arc::clone(&operator.pushes);
    let verifier = knocking(&case, operator.router()).await;
    *pushes.lock().unwrap() = Some((Arc::clone(&verifier), case.newer()));
    assert_eq!(
        authenticate(&verifier, &case.headers()).await,
        Ok(Generation::new(2))
    );
}

#[tokio::test]
async fn a_named_generation_that_does_not_arrive_is_no_refusal() {
    let case = Case::of(IssuerKind::External);
    let verifier = knocking(&case, operator(&case, Fetched::New, 2).router()).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
}

#[tokio::test]
async fn who_cannot_prove_to_be_the_operator_decides_nothing() {
    let case = Case::of(IssuerKind::External);
    let forger = Router::new().route(
        "/v1/knock",
        post(|| async { ([("mac", "A".repeat(43))], r#"{"gen":1,"fetched":"same"}"#) }),
    );
    let verifier = knocking(&case, forger).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, unanswered());
}

#[tokio::test]
async fn a_non_leader_names_the_leader_and_the_leader_decides() {
    let case = Case::of(IssuerKind::External);
    let leader = serve(operator(&case, Fetched::Same, 1).router()).await;
    let mut follower = operator(&case, Fetched::Same, 1);
    follower.leader = Some(leader.authority().unwrap().to_string());
    let verifier = knocking(&case, follower.router()).await;
    assert_eq!(authenticate(&verifier, &case.headers()).await, refused());
}

#[tokio::test]
async fn without_an_operator_the_file_is_the_authority_and_read_at_once() {
    let case = Case::of(IssuerKind::Managed);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bundle.jws");
    let mut config = case.config();
    config.bundle_file = Some(file.clone());
    let verifier = case.start(config).await;
    assert_eq!(
        authenticate(&verifier, &case.headers()).await,
        unanswered(),
        "there is no file"
    );
    std::fs::write(&file, &case.older().bytes()[..]).unwrap();
    assert_eq!(authenticate(&verifier, &case.headers()).await, refused());
    std::fs::write(&file, &case.newer().bytes()[..]).unwrap();
    assert_eq!(
        authenticate(&verifier, &case.headers()).await,
        Ok(Generation::new(2))
    );
}
