//! Every attack, against the pure function and against the layer: none passes, and each fails for its own reason.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use servicechain_auth::attacks::{Attack, Target, attacks, odd_kids};
use servicechain_auth::rejected::Unavailable;
use servicechain_auth::specimen::{AUDIENCE, BEGINNING, ISSUER, Specimen, bearing};
use servicechain_auth::verifier::Judged;
use servicechain_auth::{Hop, Rejected, RequireTokenLayer, verify};
use servicechain_keys::{Algorithm, KeySet};
use tower::{ServiceBuilder, ServiceExt};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];

fn target(chain: &Specimen) -> Target<'_> {
    Target {
        key: &chain.key,
        kid: chain.key.kid(),
        iss: ISSUER,
        audience: AUDIENCE,
        token_type: "at+jwt",
        now: BEGINNING,
    }
}

/// The token of an attack that is one header with one token.
fn token_of(attack: &Attack) -> Option<&str> {
    let values: Vec<_> = attack.headers.values().collect();
    let [only] = values[..] else { return None };
    only.to_str().ok()?.strip_prefix("Bearer ")
}

#[test]
fn no_attack_passes_verification() {
    for algorithm in ALGORITHMS {
        let chain = Specimen::signing_with(algorithm);
        let target = target(&chain);
        let held = chain.sign(&chain.bundle());
        let hop = Hop::new("a");
        assert!(
            verify(&target.good_token(), &held, &hop, chain.now()).is_ok(),
            "the base of all attacks passes"
        );
        let all = attacks(&target);
        assert!(all.len() >= 75, "{} attacks", all.len());
        for attack in &all {
            let Some(token) = token_of(attack) else { continue };
            let refused = verify(token, &held, &hop, chain.now());
            let reason = refused.as_ref().map_err(Rejected::reason).expect_err(attack.name);
            assert_eq!(reason, attack.reason, "{} ({algorithm:?})", attack.name);
        }
    }
}

#[tokio::test]
async fn no_attack_reaches_the_service() {
    for algorithm in ALGORITHMS {
        let chain = Specimen::signing_with(algorithm);
        let target = target(&chain);
        let app = ServiceBuilder::new()
            .layer(RequireTokenLayer::new(chain.verifier()))
            .service_fn(|request: Request<()>| async move {
                assert_eq!(
                    request.headers()["x-good"],
                    "yes",
                    "an attack reached the service"
                );
                Ok::<_, Infallible>(Response::new(Bytes::new()))
            });
        for attack in attacks(&target) {
            let mut request = Request::new(());
            *request.headers_mut() = attack.headers.clone();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), attack.status, "{}", attack.name);
            let rejected = response.extensions().get::<Rejected>().expect(attack.name);
            assert_eq!(rejected.reason(), attack.reason, "{}", attack.name);
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            let code = if attack.status == 400 {
                "invalid_request"
            } else {
                "invalid_token"
            };
            assert_eq!(challenge, format!("Bearer error=\"{code}\""), "{}", attack.name);
            let body = std::str::from_utf8(response.body()).unwrap();
            assert!(!body.contains(attack.reason), "{} tells its reason", attack.name);
        }
        let mut good = Request::new(());
        *good.headers_mut() = bearing(&target.good_token());
        good.headers_mut().insert("x-good", "yes".parse().unwrap());
        assert_eq!(app.oneshot(good).await.unwrap().status(), 200);
    }
}

/// The odd kids are only names nobody has: refused by an authority's word, 503 where there is none to ask.
#[test]
fn a_kid_is_never_more_than_a_name() {
    let chain = Specimen::new();
    let held = chain.sign(&chain.bundle());
    for (name, token) in odd_kids(&target(&chain)) {
        let refused = verify(&token, &held, &Hop::new("a"), chain.now()).expect_err(name);
        assert_eq!(refused, Unavailable::UnknownKey.into(), "{name}");
    }
}

#[test]
fn a_cached_token_hides_no_attack() {
    let chain = Specimen::new();
    let target = target(&chain);
    let verifier = chain.verifier();
    let good = bearing(&target.good_token());
    assert!(matches!(verifier.judge(&good), Judged::Verified(_)));
    for attack in attacks(&target) {
        assert!(
            matches!(verifier.judge(&attack.headers), Judged::Rejected(_)),
            "{}",
            attack.name
        );
    }
    assert!(matches!(verifier.judge(&good), Judged::Verified(_)));
    assert_eq!(verifier.cached_tokens(), 1, "nothing refused is kept");
}

#[test]
fn names_of_attacks_are_unique() {
    let chain = Specimen::new();
    let mut names: Vec<_> = attacks(&target(&chain))
        .iter()
        .map(|attack| attack.name)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Keys that must never verify anything are refused when a set is read.
#[test]
fn weak_and_odd_keys_are_no_keys() {
    use servicechain_keys::base64url::encode;
    let odd_modulus = |bytes: usize| {
        let mut modulus = vec![0xc5; bytes];
        *modulus.last_mut().unwrap() = 0xc7;
        encode(modulus)
    };
    let rsa = |bytes: usize, exponent: &[u8]| {
        let (n, e) = (odd_modulus(bytes), encode(exponent));
        format!(r#"{{"kty":"RSA","kid":"k","alg":"RS256","n":"{n}","e":"{e}"}}"#)
    };
    let chain = Specimen::new();
    let good = chain.key.public_jwk().to_members();
    let changed = |name: &str, value: &str| {
        let mut jwk = good.clone();
        jwk.insert(name.to_owned(), value.into());
        serde_json::Value::Object(jwk).to_string()
    };
    let without_algorithm = {
        let mut jwk = good.clone();
        jwk.remove("alg");
        serde_json::Value::Object(jwk).to_string()
    };
    for (name, jwk) in [
        ("RSA of 1024 bits", rsa(128, &[1, 0, 1])),
        ("RSA with e = 1", rsa(256, &[1])),
        (
            "a symmetric key",
            r#"{"kty":"oct","kid":"k","alg":"HS256","k":"c2VjcmV0"}"#.to_owned(),
        ),
        ("an encryption key", changed("use", "enc")),
        ("a key pinned to HS256", changed("alg", "HS256")),
        ("a key pinned to none", changed("alg", "none")),
    ] {
        let set = format!(r#"{{"keys":[{jwk}]}}"#);
        let (keys, refused) = KeySet::from_jwks(set.as_bytes(), &Algorithm::ALL).unwrap();
        assert!(keys.is_empty() && refused.len() == 1, "{name}");
    }
    let twice = format!(r#"{{"keys":[{0},{0}]}}"#, changed("kid", "k"));
    assert!(
        KeySet::from_jwks(twice.as_bytes(), &Algorithm::ALL)
            .unwrap()
            .0
            .is_empty(),
        "a duplicate kid"
    );

    let alone = format!(r#"{{"keys":[{without_algorithm}]}}"#);
    if let Ok((keys, _)) = KeySet::from_jwks(alone.as_bytes(), &Algorithm::ALL) {
        let other = Target {
            key: &chain.key,
            ..target(&chain)
        };
        let lie = attacks(&other)
            .into_iter()
            .find(|attack| attack.name == "another algorithm than the key's");
        let lie = lie.unwrap();
        assert!(
            servicechain_auth::verify_jws(token_of(&lie).unwrap(), &keys).is_err(),
            "alg is never the token's"
        );
    }
}
