//! One issuer pod with a clock that stands still, and the publisher's hand: bundles are made by the tests.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use servicechain_auth::keys_endpoint::Offers as _;
use servicechain_auth::{Hop, Verifier, VerifierConfig};
use servicechain_keys::{
    Algorithm, Bundle, ChainId, Generation, HeldBundle, Issuer, IssuerKey, IssuerKind, IssuerState, Jwk,
    KeyState, Nonce, NumericDate, PodId, Policy, Trust, TrustKey, Workload,
};
use servicechain_runtime::clock::{Clock, ManualClock};
use servicechain_runtime::metrics::Metrics;
use servicechain_token_issuer::app::app;
use servicechain_token_issuer::{Config, SigningKeys};
use tower::ServiceExt as _;

pub(crate) const URL: &str = "http://issuer.example";
pub(crate) const SECRET: &str = "correct horse battery staple";
pub(crate) const NONCE: Nonce = Nonce::new([5; 16]);
pub(crate) const START: u64 = 1_700_000_000;
const SECRET_SHA256: &str = "c4bbcb1fbec99d65bf59d85c8cb62ee2db963f0fe106f483d9afa73bd4e39a8a";

pub(crate) static TRUST_KEY: LazyLock<TrustKey> = LazyLock::new(|| TrustKey::from_seed(&[7; 32]).unwrap());

pub(crate) struct Pod {
    pub(crate) app: Router,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) hand: ManualClock,
}

pub(crate) fn config(algorithm: Algorithm) -> Config {
    let yaml = format!(
        r#"
issuer: {{name: platform, url: "{URL}", algorithm: {algorithm}, tokenLifetime: 15m, audiences: [shop, billing]}}
clients:
- {{id: demo, secretSha256: {SECRET_SHA256}, grants: [ClientCredentials], scopes: ["items:read", "items:write"]}}
- {{id: "odd:id+1", secretSha256: {SECRET_SHA256}, grants: [ClientCredentials], audiences: [shop]}}
"#
    );
    Config::from_yaml(&yaml).unwrap()
}

pub(crate) fn verifier_config(clock: &Clock) -> VerifierConfig {
    let trust = Trust::new(ChainId::new("chain").unwrap(), vec![TRUST_KEY.anchor().clone()]);
    let workload = Workload::new("platform").unwrap();
    VerifierConfig::new(
        trust,
        PodId::new("pod-1").unwrap(),
        workload,
        Hop::new("platform"),
        clock.as_fn(),
    )
}

impl Pod {
    pub(crate) fn start(algorithm: Algorithm, directory: Option<PathBuf>) -> Self {
        let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(START));
        Self::of(
            Verifier::new(verifier_config(&clock)),
            hand,
            clock,
            algorithm,
            directory,
        )
    }

    fn of(
        verifier: Arc<Verifier>,
        hand: ManualClock,
        clock: Clock,
        algorithm: Algorithm,
        directory: Option<PathBuf>,
    ) -> Self {
        let config = config(algorithm);
        let keys = SigningKeys::start(config.issuer.clone(), Arc::clone(&verifier), directory).unwrap();
        let app = app(
            config,
            Arc::clone(&verifier),
            Arc::clone(&keys),
            &mut Metrics::new(),
            clock,
        );
        Self {
            app,
            keys,
            verifier,
            hand,
        }
    }

    /// The container ended and another began, an hour or no time later; the pod and its bundle are the same.
    pub(crate) fn restart(&self, algorithm: Algorithm, directory: Option<PathBuf>) -> Self {
        let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(self.now()));
        let verifier = Verifier::new(verifier_config(&clock));
        if let Some(held) = self.verifier.held() {
            verifier.hold(held);
        }
        Self::of(verifier, hand, clock, algorithm, directory)
    }

    /// A pod whose first key is Active and whose second is Staged.
    pub(crate) fn signing(algorithm: Algorithm) -> Self {
        let pod = Self::start(algorithm, None);
        let keys = pod.offered_as([KeyState::Active, KeyState::Staged]);
        pod.publish(1, keys);
        pod
    }

    pub(crate) fn now(&self) -> u64 {
        self.verifier.now().as_seconds()
    }

    pub(crate) fn offered(&self) -> Vec<Jwk> {
        let config = self.verifier.config();
        let algorithm = |jwk: &serde_json::Map<String, Value>| {
            Algorithm::from_name(jwk["alg"].as_str().unwrap()).unwrap()
        };
        let offers = self.keys.offers(&NONCE);
        let verify = |offer: &servicechain_keys::Offer| {
            offer
                .verify(algorithm(&offer.jwk), &NONCE, &config.trust.chain, &config.pod)
                .unwrap()
        };
        offers.iter().map(verify).collect()
    }

    pub(crate) fn offered_as(&self, states: [KeyState; 2]) -> Vec<IssuerKey> {
        self.offered()
            .into_iter()
            .zip(states)
            .map(|(jwk, state)| entry(jwk, state))
            .collect()
    }

    pub(crate) fn publish(&self, generation: u64, keys: Vec<IssuerKey>) -> Arc<HeldBundle> {
        let held = Arc::new(bundle(generation, keys).sign(&TRUST_KEY).unwrap());
        self.verifier.hold(Arc::clone(&held));
        self.keys.keep_up().unwrap();
        held
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        Answer::of(self.app.clone().oneshot(request).await.unwrap()).await
    }

    /// With the client's Basic credentials.
    pub(crate) async fn token(&self, form: &str) -> Answer {
        self.ask(
            token_request()
                .header("authorization", basic("demo", SECRET))
                .body(form.to_owned().into())
                .unwrap(),
        )
        .await
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: axum::response::Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) fn error(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.body["error"].as_str().unwrap_or_default(),
        )
    }

    pub(crate) fn token(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["access_token"].as_str().unwrap()
    }
}

pub(crate) fn token_request() -> http::request::Builder {
    Request::post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded")
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"))
    )
}

pub(crate) fn entry(jwk: Jwk, state: KeyState) -> IssuerKey {
    IssuerKey {
        jwk,
        state,
        since: NumericDate::from_seconds(START),
        owner: Some(PodId::new("pod-1").unwrap()),
        staged_in: Generation::new(1),
        max_lifetime: Duration::from_mins(15),
        sign_until: None,
        until: None,
    }
}

pub(crate) fn bundle(generation: u64, keys: Vec<IssuerKey>) -> Bundle {
    Bundle {
        v: 1,
        chain: ChainId::new("chain").unwrap(),
        generation: Generation::new(generation),
        issued_at: NumericDate::from_seconds(START),
        policy: Policy {
            clock_skew: Duration::ZERO,
            max_token_bytes: 8192,
            max_token_lifetime: Duration::from_hours(24),
            required_claims: vec![],
        },
        issuers: vec![Issuer {
            name: "platform".to_owned(),
            iss: URL.to_owned(),
            kind: IssuerKind::Managed,
            audiences: vec!["shop".to_owned()],
            token_types: vec!["at+jwt".to_owned()],
            scopes_claim: "scope".to_owned(),
            max_token_lifetime: None,
            state: IssuerState::Ready,
            keys,
        }],
        revocations: vec![],
        crit: vec![],
    }
}
