//! A chain with keys of its own, for examples, tests and benchmarks: bundles that verify, tokens that pass, and a clock
//! that moves when told. Only with the feature `attacks`; nothing a running process uses.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "examples and tests want a chain or an end, not an error"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use servicechain_keys::{
    AckKey, Algorithm, Bundle, ChainId, Generation, HeldBundle, Issuer, IssuerKey, IssuerKind, IssuerState,
    KeyState, NumericDate, PodId, Policy, RootSecret, SigningKey, Trust, TrustKey, Workload,
};

use crate::hop::Hop;
use crate::verifier::{Clock, Verifier, VerifierConfig};

/// The issuer's name in the bundle.
pub const ISSUER_NAME: &str = "platform";
/// Its `iss`.
pub const ISSUER: &str = "http://shop-issuer-platform.shop.svc";
/// The audience of its tokens.
pub const AUDIENCE: &str = "shop";
/// Where a specimen's clock begins: 2027-01-15T08:00:00Z.
pub const BEGINNING: NumericDate = NumericDate::from_seconds(1_800_000_000);
const TOKEN_LIFETIME: Duration = Duration::from_mins(15);

/// One managed issuer with one active key, and whoever may sign bundles.
#[derive(Debug)]
pub struct Specimen {
    pub trust_key: TrustKey,
    pub root: RootSecret,
    /// The issuer's key.
    pub key: SigningKey,
    now: Arc<AtomicU64>,
}

impl Specimen {
    /// A chain whose issuer signs with ES256.
    #[must_use]
    pub fn new() -> Self {
        Self::signing_with(Algorithm::ES256)
    }

    #[must_use]
    pub fn signing_with(algorithm: Algorithm) -> Self {
        Self {
            trust_key: TrustKey::from_seed(&[7; 32]).expect("any 32 bytes are a seed"),
            root: RootSecret::new([9; 32]),
            key: new_key(algorithm),
            now: Arc::new(AtomicU64::new(BEGINNING.as_seconds())),
        }
    }

    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::new(chain(), vec![self.trust_key.anchor().clone()])
    }

    #[must_use]
    pub fn ack_key(&self, workload: &Workload) -> AckKey {
        self.root.ack_key(&chain(), workload)
    }

    /// Generation 1, with the issuer's key. Change it and [`Specimen::sign`] it.
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        Bundle {
            v: servicechain_keys::bundle::VERSION,
            chain: chain(),
            generation: Generation::new(1),
            issued_at: BEGINNING,
            policy: Policy {
                clock_skew: Duration::from_secs(30),
                max_token_bytes: 8192,
                max_token_lifetime: Duration::from_hours(24),
                required_claims: Vec::new(),
            },
            issuers: vec![managed_issuer(ISSUER_NAME, ISSUER, &[&self.key])],
            revocations: Vec::new(),
            crit: Vec::new(),
        }
    }

    #[must_use]
    pub fn sign(&self, bundle: &Bundle) -> Arc<HeldBundle> {
        Arc::new(
            bundle
                .sign(&self.trust_key)
                .expect("a bundle its verifiers accept"),
        )
    }

    /// What a token of the issuer says by now; add, change or remove members.
    #[must_use]
    pub fn claims(&self) -> Map<String, Value> {
        let now = self.now().as_seconds();
        let claims = json!({
            "iss": ISSUER,
            "sub": "alice",
            "aud": AUDIENCE,
            "client_id": "demo",
            "jti": "5f0c1f5e-6d0e-4f6b-9a3e-0d7f5c2f9a10",
            "iat": now,
            "exp": now + TOKEN_LIFETIME.as_secs(),
            "scope": "items:read items:write",
        });
        claims.as_object().cloned().unwrap_or_default()
    }

    /// A token that passes.
    #[must_use]
    pub fn token(&self) -> String {
        self.token_with(&self.claims())
    }

    /// A token of the issuer that says this.
    #[must_use]
    pub fn token_with(&self, claims: &Map<String, Value>) -> String {
        sign_claims(&self.key, claims)
    }

    #[must_use]
    pub fn now(&self) -> NumericDate {
        NumericDate::from_seconds(self.now.load(Ordering::SeqCst))
    }

    /// Moves the clock of every verifier of this chain.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// A pod of the chain, with no file, directory or operator.
    #[must_use]
    pub fn config(&self, hop: Hop) -> VerifierConfig {
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(now.load(Ordering::SeqCst)));
        let workload = Workload::new("gateway").expect("a plain word");
        let pod = PodId::new("0b5f6c1e-5b8e-4d0f-9c55-2f6a5c1b7a11").expect("a plain word");
        let mut config = VerifierConfig::new(self.trust(), pod, workload.clone(), hop, clock);
        config.ack_key = Some(self.ack_key(&workload));
        config
    }

    /// A verifier that holds [`Specimen::bundle`].
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        let verifier = Verifier::new(self.config(Hop::new("gateway")));
        verifier.hold(self.sign(&self.bundle()));
        verifier
    }
}

impl Default for Specimen {
    fn default() -> Self {
        Self::new()
    }
}

/// The headers of a request with this token.
#[must_use]
pub fn bearing(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a token of printable characters");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

#[must_use]
pub fn chain() -> ChainId {
    ChainId::new("4e0a9c52-3a53-4f0e-8c93-7f2b5a0d1c11").expect("a plain word")
}

#[must_use]
pub fn new_key(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).expect("keys can be made")
}

/// An access token (RFC 9068) that says this.
#[must_use]
pub fn sign_claims(key: &SigningKey, claims: &Map<String, Value>) -> String {
    let payload = Value::Object(claims.clone()).to_string();
    key.sign_compact("at+jwt", payload.as_bytes()).expect("keys sign")
}

/// A managed issuer of the chain with these keys, all Active.
#[must_use]
pub fn managed_issuer(name: &str, iss: &str, keys: &[&SigningKey]) -> Issuer {
    Issuer {
        name: name.to_owned(),
        iss: iss.to_owned(),
        kind: IssuerKind::Managed,
        audiences: vec![AUDIENCE.to_owned()],
        token_types: vec!["at+jwt".to_owned()],
        scopes_claim: "scope".to_owned(),
        max_token_lifetime: None,
        state: if keys.is_empty() {
            IssuerState::NoKeys
        } else {
            IssuerState::Ready
        },
        keys: keys.iter().map(|key| active_key(key)).collect(),
    }
}

#[must_use]
pub fn active_key(key: &SigningKey) -> IssuerKey {
    IssuerKey {
        jwk: key.public_jwk().clone(),
        state: KeyState::Active,
        owner: None,
        staged_in: Generation::new(1),
        since: BEGINNING,
        max_lifetime: Duration::from_hours(24),
        sign_until: None,
        until: None,
    }
}
