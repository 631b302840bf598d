//! The rules of verification one by one, and properties that hold for any token.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use servicechain_auth::rejected::{TokenFault, Unavailable};
use servicechain_auth::specimen::{
    ISSUER, ISSUER_NAME, Specimen, active_key, managed_issuer, new_key, sign_claims,
};
use servicechain_auth::{Caller, Hop, Rejected, verify, verify_jws};
use servicechain_keys::{
    Algorithm, Bundle, IssuerKind, IssuerState, KeySet, KeyState, NumericDate, RequiredClaim, Revocation,
    RevocationKind, ShortDigest, SigningKey,
};

const OTHER: &str = "http://shop-issuer-other.shop.svc";

struct Case {
    chain: Specimen,
    bundle: Bundle,
    hop: Hop,
}

impl Case {
    fn new() -> Self {
        let chain = Specimen::new();
        Self {
            bundle: chain.bundle(),
            chain,
            hop: Hop::new("a"),
        }
    }

    fn verify(&self, token: &str) -> Result<Caller, Rejected> {
        verify(token, &self.chain.sign(&self.bundle), &self.hop, self.chain.now())
    }

    /// Verifies a token whose claims are changed; null removes one.
    fn with(&self, changes: &Value) -> Result<Caller, Rejected> {
        let mut claims = self.chain.claims();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.remove(name)
            } else {
                claims.insert(name.clone(), value.clone())
            };
        }
        self.verify(&self.chain.token_with(&claims))
    }

    fn revoke(&mut self, kind: RevocationKind, value: &str, issued_before: NumericDate) {
        self.bundle.revocations.push(Revocation {
            issuer: ISSUER_NAME.to_owned(),
            kind,
            digest: ShortDigest::of(value),
            issued_before,
            expires: None,
        });
    }
}

fn now() -> u64 {
    servicechain_auth::specimen::BEGINNING.as_seconds()
}

#[track_caller]
fn assert_refused(result: Result<Caller, Rejected>, why: impl Into<Rejected>) {
    assert_eq!(result.map(|caller| caller.to_string()), Err(why.into()));
}

#[test]
fn a_good_token_names_its_caller() {
    let case = Case::new();
    let token = case.chain.token();
    let caller = case.verify(&token).unwrap();
    assert_eq!(
        (caller.issuer(), caller.issuer_name(), caller.subject()),
        (ISSUER, ISSUER_NAME, "alice")
    );
    assert_eq!(caller.client_id(), Some("demo"));
    assert_eq!(caller.scopes(), ["items:read", "items:write"]);
    assert_eq!(caller.expires_at().as_seconds(), now() + 900);
    assert_eq!(caller.issued_at().as_seconds(), now());
    assert_eq!(caller.key_id(), Some(case.chain.key.kid()));
    assert_eq!(caller.generation(), case.bundle.generation);
    assert_eq!(caller.token().as_str(), token);
    assert_eq!(
        caller.claim("jti").as_ref().and_then(Value::as_str),
        Some("5f0c1f5e-6d0e-4f6b-9a3e-0d7f5c2f9a10")
    );
    assert_eq!(caller.to_string(), "user:alice");
    assert_eq!(
        case.with(&json!({"sub": "demo"})).unwrap().to_string(),
        "client:demo"
    );
}

#[test]
fn debug_and_display_of_a_caller_tell_no_claims_and_no_token() {
    let case = Case::new();
    let caller = case
        .with(&json!({"sub": "x\n".repeat(100), "secret": "hidden"}))
        .unwrap();
    for shown in [format!("{caller:?}"), caller.to_string()] {
        assert!(
            !shown.contains("hidden") && !shown.contains('\n') && !shown.contains("eyJ"),
            "{shown}"
        );
        assert!(shown.len() < 250, "{shown}");
    }
}

#[test]
fn expiry_and_beginning_are_stretched_by_the_clock_skew_and_no_further() {
    let case = Case::new();
    assert!(case.with(&json!({"iat": now() - 900, "exp": now() - 29})).is_ok());
    assert_refused(
        case.with(&json!({"iat": now() - 900, "exp": now() - 30})),
        TokenFault::Expired,
    );
    assert!(case.with(&json!({"nbf": now() + 30})).is_ok());
    assert_refused(case.with(&json!({"nbf": now() + 31})), TokenFault::NotYetValid);
    assert!(case.with(&json!({"iat": now() + 30, "exp": now() + 900})).is_ok());
    assert_refused(
        case.with(&json!({"iat": now() + 31, "exp": now() + 900})),
        TokenFault::IssuedInFuture,
    );
}

#[test]
fn lifetimes_are_bounded_by_policy_issuer_and_key() {
    let mut case = Case::new();
    assert!(case.with(&json!({"exp": now() + 86_400})).is_ok());
    assert_refused(
        case.with(&json!({"exp": now() + 86_401})),
        TokenFault::LivesTooLong,
    );
    case.bundle.issuers[0].keys[0].max_lifetime = Duration::from_hours(1);
    assert!(case.with(&json!({"exp": now() + 3600})).is_ok());
    assert_refused(case.with(&json!({"exp": now() + 3601})), TokenFault::LivesTooLong);
    case.bundle.issuers[0].max_token_lifetime = Some(Duration::from_mins(1));
    assert!(case.with(&json!({"exp": now() + 60})).is_ok());
    assert_refused(case.with(&json!({"exp": now() + 61})), TokenFault::LivesTooLong);
}

#[test]
fn a_hop_may_ask_for_time_left() {
    let mut case = Case::new();
    case.hop.minimum_remaining = Duration::from_mins(1);
    assert!(case.with(&json!({"exp": now() + 60})).is_ok());
    assert_refused(case.with(&json!({"exp": now() + 59})), TokenFault::ExpiresTooSoon);
}

#[test]
fn a_managed_issuers_token_has_client_and_id_and_an_external_ones_need_not() {
    let mut case = Case::new();
    assert_refused(
        case.with(&json!({"client_id": null})),
        TokenFault::ClaimMissing("client_id"),
    );
    assert_refused(case.with(&json!({"jti": null})), TokenFault::ClaimMissing("jti"));
    case.bundle.issuers[0].kind = IssuerKind::External;
    assert!(case.with(&json!({"client_id": null, "jti": null})).is_ok());
}

#[test]
fn the_type_must_be_one_of_the_issuers() {
    let mut case = Case::new();
    let typed = |case: &Case, typ: Option<&str>| {
        let mut header = json!({"alg": "ES256", "kid": case.chain.key.kid()});
        if let Some(typ) = typ {
            header["typ"] = typ.into();
        }
        let payload = Value::Object(case.chain.claims()).to_string();
        let token = case
            .chain
            .key
            .sign_compact_with(header.as_object().unwrap(), payload.as_bytes())
            .unwrap();
        case.verify(&token)
    };
    assert!(typed(&case, Some("at+jwt")).is_ok());
    assert!(
        typed(&case, Some("application/at+jwt")).is_ok(),
        "RFC 7515 section 4.1.9"
    );
    for typ in [
        None,
        Some(""),
        Some("JWT"),
        Some("AT+JWT"),
        Some("at+jwt "),
        Some("application/application/at+jwt"),
    ] {
        assert_refused(typed(&case, typ), TokenFault::TokenType);
    }
    case.bundle.issuers[0].token_types = vec!["JWT".into(), String::new()];
    assert!(typed(&case, None).is_ok(), "an empty type allows its absence");
    assert!(typed(&case, Some("JWT")).is_ok());
    assert_refused(typed(&case, Some("at+jwt")), TokenFault::TokenType);
}

#[test]
fn one_audience_must_be_accepted_by_issuer_and_hop() {
    let mut case = Case::new();
    case.bundle.issuers[0].audiences = vec!["shop".into(), "billing".into()];
    assert!(case.with(&json!({"aud": ["other", "billing"]})).is_ok());
    case.hop.audiences = vec!["billing".into()];
    assert!(case.with(&json!({"aud": ["shop", "billing"]})).is_ok());
    assert_refused(case.with(&json!({"aud": ["shop"]})), TokenFault::Audience);
    case.bundle.issuers[0].audiences = vec!["shop".into()];
    assert_refused(
        case.with(&json!({"aud": ["shop", "billing"]})),
        TokenFault::Audience,
    );
    case.bundle.issuers[0].audiences = Vec::new();
    assert_refused(
        case.with(&json!({"aud": ["shop", "billing"]})),
        TokenFault::Audience,
    );
}

#[test]
fn a_hop_may_narrow_the_issuers() {
    let mut case = Case::new();
    case.hop.issuers = vec!["corp".into()];
    assert_refused(case.with(&json!({})), TokenFault::IssuerNotAccepted);
    case.hop.issuers.push(ISSUER_NAME.into());
    assert!(case.with(&json!({})).is_ok());
}

#[test]
fn claims_that_the_policy_requires_must_be_there() {
    let mut case = Case::new();
    let tenant = RequiredClaim {
        name: "org.tenant".into(),
        values: vec!["acme".into()],
    };
    case.bundle.policy.required_claims = vec![tenant];
    assert!(case.with(&json!({"org": {"tenant": "acme"}})).is_ok());
    assert_refused(
        case.with(&json!({"org": {"tenant": "acme2"}})),
        TokenFault::RequiredClaim,
    );
    assert_refused(case.with(&json!({})), TokenFault::RequiredClaim);
}

#[test]
fn a_key_is_only_looked_up_among_its_own_issuers() {
    let mut case = Case::new();
    let other = new_key(Algorithm::ES256);
    case.bundle
        .issuers
        .push(managed_issuer("other", OTHER, &[&other]));
    let mut claims = case.chain.claims();
    // The other issuer's key, for our issuer's token.
    assert_refused(
        case.verify(&sign_claims(&other, &claims)),
        Unavailable::UnknownKey,
    );
    claims.insert("iss".into(), OTHER.into());
    assert!(case.verify(&sign_claims(&other, &claims)).is_ok());
    assert_refused(
        case.verify(&sign_claims(&case.chain.key, &claims)),
        Unavailable::UnknownKey,
    );

    // The same kid at both issuers: each verifies its own only.
    let mut jwk = active_key(&other);
    jwk.jwk = jwk.jwk.with_kid(case.chain.key.kid());
    case.bundle.issuers[1].keys = vec![jwk];
    let token = case.chain.token_with(&claims);
    assert_refused(case.verify(&token), TokenFault::Signature);
}

#[test]
fn without_a_kid_exactly_one_key_must_fit() {
    let mut case = Case::new();
    let token = |key: &SigningKey, case: &Case| {
        let header = json!({"alg": key.algorithm().name(), "typ": "at+jwt"});
        let payload = Value::Object(case.chain.claims()).to_string();
        key.sign_compact_with(header.as_object().unwrap(), payload.as_bytes())
            .unwrap()
    };
    let nameless = token(&case.chain.key, &case);
    assert!(case.verify(&nameless).is_ok());
    case.bundle.issuers[0]
        .keys
        .push(active_key(&new_key(Algorithm::EdDSA)));
    assert!(
        case.verify(&nameless).is_ok(),
        "a key of another algorithm does not fit"
    );
    case.bundle.issuers[0]
        .keys
        .push(active_key(&new_key(Algorithm::ES256)));
    assert_refused(case.verify(&nameless), TokenFault::AmbiguousKey);
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    let chain = Specimen::signing_with(Algorithm::RS256);
    let held = chain.sign(&chain.bundle());
    let same_key = |algorithm| SigningKey::from_pkcs8(algorithm, &chain.key.to_pkcs8().unwrap()).unwrap();
    for algorithm in [
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS512,
    ] {
        let header = json!({"alg": algorithm.name(), "kid": chain.key.kid(), "typ": "at+jwt"});
        let payload = Value::Object(chain.claims()).to_string();
        let key = same_key(algorithm);
        let token = key
            .sign_compact_with(header.as_object().unwrap(), payload.as_bytes())
            .unwrap();
        let refused = verify(&token, &held, &Hop::new("a"), chain.now());
        assert_refused(refused, TokenFault::AlgorithmMismatch);
    }
}

#[test]
fn every_algorithm_verifies() {
    for algorithm in Algorithm::ALL {
        let chain = Specimen::signing_with(algorithm);
        let held = chain.sign(&chain.bundle());
        assert!(
            verify(&chain.token(), &held, &Hop::new("a"), chain.now()).is_ok(),
            "{algorithm:?}"
        );
    }
}

#[test]
fn keys_in_every_state_verify_and_a_withdrawn_one_until_its_grace_ends() {
    let mut case = Case::new();
    for state in [KeyState::Staged, KeyState::Active, KeyState::Retiring] {
        case.bundle.issuers[0].keys[0].state = state;
        assert!(case.with(&json!({})).is_ok(), "{state:?}");
    }
    let withdrawn = |case: &mut Case, until: u64| {
        case.bundle.issuers[0].keys[0].state = KeyState::Withdrawn;
        case.bundle.issuers[0].keys[0].until = Some(NumericDate::from_seconds(until));
    };
    withdrawn(&mut case, now() + 1);
    assert!(case.with(&json!({})).is_ok());
    withdrawn(&mut case, now());
    assert_refused(case.with(&json!({})), Unavailable::UnknownKey);
}

#[test]
fn a_trusted_issuer_without_keys_is_answered_503_and_not_401() {
    let mut case = Case::new();
    case.bundle.issuers[0].keys.clear();
    case.bundle.issuers[0].state = IssuerState::NoKeys;
    assert_refused(case.with(&json!({})), Unavailable::NoKeys);
}

#[test]
fn a_token_that_could_never_pass_raises_no_question_about_keys() {
    let mut case = Case::new();
    case.bundle.issuers[0].keys.clear();
    case.bundle.issuers[0].state = IssuerState::NoKeys;
    assert_refused(case.with(&json!({"aud": "elsewhere"})), TokenFault::Audience);
    assert_refused(
        case.with(&json!({"iat": now() - 900, "exp": now() - 600})),
        TokenFault::Expired,
    );
    assert_refused(
        case.with(&json!({"iss": "http://elsewhere"})),
        TokenFault::UnknownIssuer,
    );
    case.revoke(RevocationKind::Sub, "alice", NumericDate::from_seconds(now()));
    assert_refused(case.with(&json!({})), TokenFault::Revoked);
}

#[test]
fn a_revocation_ends_what_was_issued_before_it_and_nothing_else() {
    for (kind, value) in [
        (RevocationKind::Sub, "alice"),
        (RevocationKind::Sid, "s1"),
        (RevocationKind::Jti, "t1"),
        (RevocationKind::ClientId, "demo"),
        (RevocationKind::Issuer, ""),
    ] {
        let mut case = Case::new();
        let token = json!({"sid": "s1", "jti": "t1"});
        assert!(case.with(&token).is_ok());
        case.revoke(kind, value, NumericDate::from_seconds(now() - 1));
        assert!(case.with(&token).is_ok(), "{kind:?}: issued later");
        case.revoke(kind, value, NumericDate::from_seconds(now()));
        assert_refused(case.with(&token), TokenFault::Revoked);
        if kind != RevocationKind::Issuer {
            let other = json!({"sub": "bob", "sid": "s2", "jti": "t2", "client_id": "other"});
            assert!(case.with(&other).is_ok(), "{kind:?}: somebody else");
        }
    }
}

#[test]
fn a_revoked_key_verifies_nothing_by_any_name_and_for_any_iat() {
    let thumbprint = |case: &Case| case.chain.key.public_jwk().thumbprint().to_string();
    let mut by_thumbprint = Case::new();
    let value = thumbprint(&by_thumbprint);
    by_thumbprint.bundle.issuers[0].keys[0].jwk =
        by_thumbprint.chain.key.public_jwk().clone().with_kid("renamed");
    by_thumbprint.revoke(
        RevocationKind::Key,
        &value,
        NumericDate::from_seconds(now() - 3600),
    );
    let header = json!({"alg": "ES256", "kid": "renamed", "typ": "at+jwt"});
    let payload = Value::Object(by_thumbprint.chain.claims()).to_string();
    let key = &by_thumbprint.chain.key;
    let token = key
        .sign_compact_with(header.as_object().unwrap(), payload.as_bytes())
        .unwrap();
    assert_refused(by_thumbprint.verify(&token), TokenFault::Revoked);
}

#[test]
fn a_revocation_concerns_its_own_issuer_only() {
    let mut case = Case::new();
    let other = new_key(Algorithm::ES256);
    case.bundle
        .issuers
        .push(managed_issuer("other", OTHER, &[&other]));
    case.revoke(RevocationKind::Sub, "alice", NumericDate::from_seconds(now()));
    let mut claims = case.chain.claims();
    claims.insert("iss".into(), OTHER.into());
    assert!(case.verify(&sign_claims(&other, &claims)).is_ok());
    assert_refused(case.with(&json!({})), TokenFault::Revoked);
}

#[test]
fn a_compact_jws_gives_its_payload_whatever_that_is() {
    let key = new_key(Algorithm::EdDSA);
    let jwks = json!({"keys": [key.public_jwk().to_members()]}).to_string();
    let (keys, refused) = KeySet::from_jwks(jwks.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(refused, []);
    let token = key.sign_compact("anything", b"no claims").unwrap();
    assert_eq!(verify_jws(&token, &keys).unwrap(), b"no claims");
    let stranger = new_key(Algorithm::EdDSA)
        .sign_compact("anything", b"no claims")
        .unwrap();
    assert_eq!(verify_jws(&stranger, &keys), Err(Unavailable::UnknownKey.into()));
}

#[test]
fn every_flipped_bit_of_a_token_is_noticed() {
    let case = Case::new();
    let held = case.chain.sign(&case.bundle);
    let token = case.chain.token().into_bytes();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut flipped = token.clone();
            flipped[at] ^= 1 << bit;
            let Ok(flipped) = String::from_utf8(flipped) else {
                continue;
            };
            assert!(
                verify(&flipped, &held, &case.hop, case.chain.now()).is_err(),
                "byte {at}, bit {bit}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_string_panics_or_passes(token in any::<String>()) {
        let case = Case::new();
        prop_assert!(case.verify(&token).is_err());
    }

    #[test]
    fn no_three_parts_panic_or_pass(header in ".{0,60}", payload in ".{0,60}", signature in any::<[u8; 64]>()) {
        use servicechain_keys::base64url::encode;
        let token = format!("{}.{}.{}", encode(header), encode(payload), encode(signature));
        prop_assert!(Case::new().verify(&token).is_err());
    }

    #[test]
    fn no_signed_claims_panic(name in "iss|sub|aud|exp|iat|nbf|jti|client_id|scope|sid", value in r#"[\[\]{}",:0-9a-z.\-]{0,12}"#) {
        let case = Case::new();
        let mut claims = case.chain.claims();
        claims.insert(name, "\u{1}".into());
        let payload = Value::Object(claims).to_string().replace("\"\\u0001\"", &value);
        let token = case.chain.key.sign_compact("at+jwt", payload.as_bytes()).unwrap();
        let _ = case.verify(&token);
    }
}
