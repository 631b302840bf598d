//! The real publisher against real pods' ends over loopback: verifiers of `servicechain-auth`, and an issuer pod of
//! `servicechain-token-issuer`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use servicechain_auth::keys_endpoint::{self, Offers};
use servicechain_auth::{Hop, Verifier, VerifierConfig};
use servicechain_fixtures::collector::Span;
use servicechain_fixtures::{Collector, await_condition};
use servicechain_keys::rotation::{Desired, DesiredIssuer, KeySource, LaggardReason, ListedPod};
use servicechain_keys::{
    Algorithm, ChainId, Generation, KeyState as State, Nonce, NumericDate, Offer, PodId, Policy, Revocation,
    RevocationKind, RootSecret, ShortDigest, SigningKey, Trust, TrustKey, Workload,
};
use servicechain_operator::clock::Clock;
use servicechain_operator::key_controller::{BundleFile, KeyController, KeyState, Pod, Roots, TrustKeys};
use servicechain_runtime::telemetry::{self, LogFormat, ProcessTelemetryArgs, ResourceAttributes};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);
const ISSUER: &str = "platform";

fn chain() -> ChainId {
    ChainId::new("chain-1").unwrap()
}

fn roots() -> Roots {
    Roots {
        chain: chain(),
        trust_keys: TrustKeys::only(TrustKey::from_seed(&[1; 32]).unwrap()),
        secret: Arc::new(RootSecret::new([2; 32])),
    }
}

/// Some day in 2027, and not moving.
fn clock() -> Clock {
    Arc::new(|| UNIX_EPOCH + Duration::from_hours(500_000))
}

fn now() -> NumericDate {
    NumericDate::from(clock()())
}

fn desired() -> Desired {
    Desired {
        chain: chain(),
        policy: Policy {
            clock_skew: Duration::from_secs(30),
            max_token_bytes: 8192,
            max_token_lifetime: Duration::from_hours(24),
            required_claims: Vec::new(),
        },
        issuers: vec![DesiredIssuer {
            name: ISSUER.to_owned(),
            iss: "http://issuer.test".to_owned(),
            audiences: vec!["shop".to_owned()],
            token_types: vec!["at+jwt".to_owned()],
            scopes_claim: "scope".to_owned(),
            max_token_lifetime: None,
            keys: KeySource::Managed {
                algorithm: Algorithm::ES256,
                token_lifetime: Duration::from_mins(15),
                rotation_period: Duration::from_hours(24),
                publish_ahead: Duration::ZERO,
            },
        }],
        revocations: Vec::new(),
        rotate_keys_before: None,
    }
}

/// The keys of an issuer pod: the current and the next, and what the bundle has moved past.
struct IssuerKeys {
    verifier: Arc<Verifier>,
    keys: std::sync::Mutex<Vec<SigningKey>>,
}

impl IssuerKeys {
    fn new(verifier: Arc<Verifier>) -> Arc<Self> {
        Arc::new(Self {
            verifier,
            keys: std::sync::Mutex::new(Vec::new()),
        })
    }

    fn state_of(&self, kid: &str) -> Option<State> {
        let held = self.verifier.held()?;
        let key = held.bundle().issuers[0]
            .keys
            .iter()
            .find(|key| key.jwk.kid() == Some(kid))?;
        Some(key.state)
    }
}

impl Offers for IssuerKeys {
    fn offers(&self, nonce: &Nonce) -> Vec<Offer> {
        let mut keys = self.keys.lock().unwrap();
        let lives = |key: &&SigningKey| self.state_of(key.kid()) != Some(State::Retiring);
        while keys.iter().filter(lives).count() < 2 {
            keys.push(SigningKey::generate(Algorithm::ES256).unwrap());
        }
        let config = self.verifier.config();
        keys.iter()
            .filter(lives)
            .map(|key| Offer::new(key, nonce, &config.trust.chain, &config.pod).unwrap())
            .collect()
    }

    fn stopped(&self) -> BTreeMap<String, NumericDate> {
        let keys = self.keys.lock().unwrap();
        let retiring = keys
            .iter()
            .filter(|key| self.state_of(key.kid()) == Some(State::Retiring));
        retiring.map(|key| (key.kid().to_owned(), now())).collect()
    }
}

/// A pod's end, served on a port of the kernel's choice for as long as the runtime lives.
struct RunningPod {
    verifier: Arc<Verifier>,
    address: SocketAddr,
    listed: Pod,
}

async fn start_pod(name: &str, workload: &str, folder: &Path, root: &RootSecret) -> RunningPod {
    let workload = Workload::new(workload).unwrap();
    let trust = Trust::new(
        chain(),
        vec![TrustKey::from_seed(&[1; 32]).unwrap().anchor().clone()],
    );
    let pod = PodId::new(name).unwrap();
    let hop = Hop {
        name: name.to_owned(),
        audiences: Vec::new(),
        issuers: Vec::new(),
        minimum_remaining: Duration::ZERO,
    };
    let mut config = VerifierConfig::new(trust, pod.clone(), workload.clone(), hop, clock());
    config.ack_key = Some(root.ack_key(&chain(), &workload));
    config.state_dir = Some(folder.join(name));
    let verifier = Verifier::start(config).await.unwrap();
    let is_issuer = workload.as_str() == ISSUER;
    let router = if is_issuer {
        keys_endpoint::router_with_offers(Arc::clone(&verifier), IssuerKeys::new(Arc::clone(&verifier)))
    } else {
        keys_endpoint::router(Arc::clone(&verifier))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listed = Pod {
        name: name.to_owned(),
        listed: ListedPod {
            pod,
            issuer: is_issuer.then(|| ISSUER.to_owned()),
            addressed: true,
            runs: true,
            ready: true,
            ended: false,
        },
        workload,
        keys_address: Some(address.to_string()),
    };
    RunningPod {
        verifier,
        address,
        listed,
    }
}

struct Running {
    folder: TempDir,
    controller: KeyController,
    pods: Vec<RunningPod>,
    shutdown: CancellationToken,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (controller, shutdown) = lead(folder.path());
        await_state(&controller, "the first bundle, before any pod", |state| {
            state
                .newest
                .is_some_and(|(generation, _)| generation == Generation::new(1))
        })
        .await;
        let mut pods = Vec::new();
        for (name, workload) in [("gateway-1", "gateway"), ("a-1", "a"), ("issuer-1", ISSUER)] {
            pods.push(start_pod(name, workload, folder.path(), &roots().secret).await);
        }
        controller.set_pods(pods.iter().map(|pod| pod.listed.clone()).collect());
        let running = Self {
            folder,
            controller,
            pods,
            shutdown,
        };
        running.await_in_sync("a signing key").await;
        running
    }

    async fn await_in_sync(&self, what: &str) -> Arc<KeyState> {
        await_state(&self.controller, what, |state| {
            state.in_sync && state.verifiers == 3 && state.active_key(ISSUER).is_some()
        })
        .await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.controller.ended())
            .await
            .expect("the loop ends when it is told to");
    }
}

fn lead(folder: &Path) -> (KeyController, CancellationToken) {
    let shutdown = CancellationToken::new();
    let store = BundleFile::new(folder.join("bundle.jws"));
    let controller = KeyController::start(roots(), store, clock(), desired(), shutdown.clone());
    (controller, shutdown)
}

async fn await_state(
    controller: &KeyController,
    what: &str,
    is_reached: impl Fn(&KeyState) -> bool,
) -> Arc<KeyState> {
    let mut states = controller.state();
    let reached = tokio::time::timeout(DEADLINE, states.wait_for(|state| is_reached(state)));
    if let Ok(state) = reached.await {
        return Arc::clone(&state.expect("the controller runs"));
    }
    panic!(
        "{what} did not come within {DEADLINE:?}: {:#?}",
        controller.state().borrow()
    );
}

fn kid(state: &KeyState) -> String {
    state.active_key(ISSUER).and_then(|key| key.kid.clone()).unwrap()
}

#[tokio::test]
async fn a_key_signs_once_every_pod_holds_it() {
    let running = Running::start().await;
    let state = running.await_in_sync("a signing key").await;
    assert_eq!(
        (state.acknowledged, state.verifiers, state.laggards.len()),
        (3, 3, 0)
    );
    let (generation, digest) = state.newest.unwrap();
    for pod in &running.pods {
        let held = pod.verifier.held().unwrap();
        assert_eq!((held.generation(), held.digest()), (generation, digest));
    }
    running.stop().await;
}

#[tokio::test]
async fn an_ordered_rotation_replaces_the_signing_key_once() {
    let running = Running::start().await;
    let before = kid(running.await_in_sync("a signing key").await.as_ref());
    let order = Desired {
        rotate_keys_before: Some(now()),
        ..desired()
    };
    running.controller.set_desired(order.clone());
    // The clock stands still: a key that became Active at this very second is not older than the order.
    running.controller.wake();
    let state = running.await_in_sync("the same key").await;
    assert_eq!(kid(state.as_ref()), before);
    running.stop().await;
}

#[tokio::test]
async fn a_revoked_key_leaves_every_pod_and_the_next_signs() {
    let running = Running::start().await;
    let before = kid(running.await_in_sync("a signing key").await.as_ref());
    let revocation = Revocation {
        issuer: ISSUER.to_owned(),
        kind: RevocationKind::Key,
        digest: ShortDigest::of(&before),
        issued_before: now(),
        expires: None,
    };
    running.controller.set_desired(Desired {
        revocations: vec![revocation],
        ..desired()
    });
    let state = await_state(&running.controller, "another key", |state| {
        state.in_sync
            && state
                .active_key(ISSUER)
                .is_some_and(|key| key.kid.as_deref() != Some(&before))
    })
    .await;
    assert!(
        state
            .entries
            .iter()
            .all(|entry| entry.kid.as_deref() != Some(&before))
    );
    for pod in &running.pods {
        let held = pod.verifier.held().unwrap();
        let keys = &held.bundle().issuers[0].keys;
        assert!(
            keys.iter().all(|key| key.jwk.kid() != Some(&before)),
            "{}",
            pod.address
        );
        assert_eq!(held.bundle().revocations.len(), 1);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_lost_bundle_comes_back_from_the_pods() {
    let running = Running::start().await;
    let before = running.await_in_sync("a signing key").await;
    let Running {
        folder,
        controller,
        pods,
        shutdown,
    } = running;
    shutdown.cancel();
    controller.ended().await;
    fs::remove_file(folder.path().join("bundle.jws")).unwrap();
    // A leader that remembers nothing.
    let (controller, shutdown) = lead_with(folder.path(), &pods);
    let running = Running {
        folder,
        controller,
        pods,
        shutdown,
    };
    let after = running.await_in_sync("the same bundle").await;
    assert_eq!(after.newest, before.newest);
    running.stop().await;
}

/// A leader that finds the pods there from its first round on, as one on Kubernetes does.
fn lead_with(folder: &Path, pods: &[RunningPod]) -> (KeyController, CancellationToken) {
    let (controller, shutdown) = lead(folder);
    controller.set_pods(pods.iter().map(|pod| pod.listed.clone()).collect());
    (controller, shutdown)
}

#[tokio::test]
async fn a_pod_that_answers_with_a_foreign_key_is_a_laggard() {
    let running = Running::start().await;
    let stranger = start_pod("b-1", "b", running.folder.path(), &RootSecret::new([9; 32])).await;
    let mut pods: Vec<Pod> = running.pods.iter().map(|pod| pod.listed.clone()).collect();
    pods.push(stranger.listed);
    running.controller.set_pods(pods);
    let state = await_state(&running.controller, "the laggard's name", |state| {
        state.verifiers == 4
    })
    .await;
    let laggards: Vec<_> = state
        .laggards
        .iter()
        .map(|lag| (lag.name.as_str(), lag.reason))
        .collect();
    assert_eq!(laggards, [("b-1", LaggardReason::Unreachable)]);
    assert_eq!(state.acknowledged, 3);
    running.stop().await;
}

/// A span of that name about that pod, in any round, and whether it failed.
fn told(collector: &Collector, name: &str, pod: &str) -> Option<(Span, bool)> {
    let rounds = collector.traces("round of keys");
    let mut spans = rounds.into_iter().flat_map(|(_, spans)| spans);
    let is_it = |span: &Span| {
        let about = span.attributes.get("servicechain.pod");
        span.name == name && about.is_some_and(|about| about == pod)
    };
    let found = spans.find(is_it)?;
    let failed = found.failure.is_some();
    Some((found, failed))
}

#[tokio::test]
async fn a_round_of_keys_is_one_trace_with_every_pod_that_is_told() {
    let collector = Collector::start().unwrap();
    let args = ProcessTelemetryArgs {
        log_format: LogFormat::Human,
        log_level: "off".to_owned(),
        otlp_endpoint: Some(collector.endpoint().to_owned()),
        trace_sampling_percent: 100.0,
        resource_attributes: ResourceAttributes::default(),
    };
    let _telemetry = telemetry::init_process(&args, "operator").unwrap();
    let running = Running::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut pods: Vec<Pod> = running.pods.iter().map(|pod| pod.listed.clone()).collect();
    pods.push(Pod {
        name: "b-1".to_owned(),
        keys_address: Some(address.to_string()),
        listed: ListedPod {
            pod: PodId::new("b-1").unwrap(),
            ..pods[1].listed.clone()
        },
        workload: pods[1].workload.clone(),
    });
    running.controller.set_pods(pods);
    let (pushed, silent) = await_condition("the spans of both pods", DEADLINE, async || {
        let both = told(&collector, "push", "a-1").zip(told(&collector, "push", "b-1"));
        both.ok_or_else(|| format!("{:#?}", collector.spans()))
    })
    .await
    .unwrap();
    assert!(!pushed.1 && silent.1, "{pushed:?} {silent:?}");
    let rounds = collector.traces("round of keys");
    let (_, spans) = rounds
        .iter()
        .find(|(round, _)| round.trace == pushed.0.trace)
        .unwrap();
    let ask = spans.iter().find(|span| span.id == pushed.0.parent).unwrap();
    assert_eq!(ask.name, "ask");
    running.stop().await;
}
