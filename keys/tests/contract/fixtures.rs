//! A small chain: one trust key, one managed issuer, and bundles of it.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value, json};
use servicechain_keys::{
    Algorithm, Bundle, ChainId, Generation, HeldBundle, Issuer, IssuerKey, IssuerKind, IssuerState, Jwk,
    KeyState, NumericDate, PodId, Policy, SigningKey, Trust, TrustKey,
};

pub(crate) static TRUST_KEY: LazyLock<TrustKey> = LazyLock::new(|| TrustKey::from_seed(&[7; 32]).unwrap());
pub(crate) static ES256: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::ES256).unwrap());
pub(crate) static ED25519: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::EdDSA).unwrap());
pub(crate) static RS256: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::RS256).unwrap());

pub(crate) const CHAIN: &str = "6d9a1f0e-6f3c-4a58-9a60-2f6b8f0f3a10";

pub(crate) fn chain() -> ChainId {
    ChainId::new(CHAIN).unwrap()
}

pub(crate) fn pod() -> PodId {
    PodId::new("pod-1").unwrap()
}

pub(crate) fn trust() -> Trust {
    Trust::new(chain(), vec![TRUST_KEY.anchor().clone()])
}

pub(crate) fn issuer_key(jwk: Jwk) -> IssuerKey {
    IssuerKey {
        jwk,
        state: KeyState::Active,
        owner: Some(pod()),
        staged_in: Generation::new(1),
        since: NumericDate::from_seconds(1_699_999_000),
        max_lifetime: Duration::from_mins(15),
        sign_until: None,
        until: None,
    }
}

pub(crate) fn issuer(name: &str, keys: Vec<IssuerKey>) -> Issuer {
    Issuer {
        name: name.to_owned(),
        iss: format!("https://{name}.example"),
        kind: IssuerKind::Managed,
        audiences: vec!["shop".to_owned()],
        token_types: vec!["at+jwt".to_owned()],
        scopes_claim: "scope".to_owned(),
        max_token_lifetime: None,
        state: IssuerState::Ready,
        keys,
    }
}

pub(crate) fn bundle(generation: u64) -> Bundle {
    Bundle {
        v: 1,
        chain: chain(),
        generation: Generation::new(generation),
        issued_at: NumericDate::from_seconds(1_700_000_000),
        policy: Policy {
            clock_skew: Duration::from_secs(30),
            max_token_bytes: 8192,
            max_token_lifetime: Duration::from_hours(24),
            required_claims: vec![],
        },
        issuers: vec![issuer("platform", vec![issuer_key(ES256.public_jwk().clone())])],
        revocations: vec![],
        crit: vec![],
    }
}

pub(crate) fn signed(generation: u64) -> HeldBundle {
    bundle(generation).sign(&TRUST_KEY).unwrap()
}

/// Any payload at all, under a bundle's header, signed by the trust key.
pub(crate) fn sign_payload(generation: u64, payload: &[u8]) -> String {
    sign_with_header(&header(generation), payload)
}

pub(crate) fn header(generation: u64) -> Map<String, Value> {
    object(json!({
        "alg": "EdDSA", "typ": "servicechain-bundle+jws", "kid": TRUST_KEY.anchor().kid(), "chain": CHAIN,
        "gen": generation,
    }))
}

pub(crate) fn sign_with_header(header: &Map<String, Value>, payload: &[u8]) -> String {
    let key = SigningKey::from_pkcs8(Algorithm::EdDSA, &TRUST_KEY.to_pkcs8().unwrap()).unwrap();
    key.sign_compact_with(header, payload).unwrap()
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}
