//! What a client gets, and each way in which it gets nothing.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use servicechain_auth::{Hop, verify};
use servicechain_keys::{Algorithm, CompactJws, NumericDate};

use crate::fixtures::{Pod, SECRET, START, URL, basic, token_request};

const GRANT: &str = "grant_type=client_credentials";

fn claims(token: &str) -> Value {
    serde_json::from_slice(&CompactJws::parse(token, 8192).unwrap().payload).unwrap()
}

#[tokio::test]
async fn issued_token_passes_the_verifier_of_every_hop_with_each_algorithm() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
        let pod = Pod::signing(algorithm);
        let answer = pod.token(GRANT).await;
        let token = answer.token();
        let held = pod.verifier.held().unwrap();
        let caller = verify(token, &held, &Hop::new("a"), NumericDate::from_seconds(START)).unwrap();
        assert_eq!(caller.client_id(), Some("demo"), "{algorithm}");
        assert_eq!(caller.subject(), "demo");
        assert_eq!(answer.body["expires_in"], 900);
        assert!(
            verify(
                token,
                &held,
                &Hop::new("a"),
                NumericDate::from_seconds(START + 900)
            )
            .is_err()
        );
    }
}

#[tokio::test]
async fn token_is_one_of_rfc_9068() {
    let pod = Pod::signing(Algorithm::ES256);
    let answer = pod.token(GRANT).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["pragma"], "no-cache");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["scope"], "items:read items:write");
    let jws = CompactJws::parse(answer.token(), 8192).unwrap();
    assert_eq!(jws.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(jws.header.kid.as_deref(), pod.offered()[0].kid());
    let mut claims = claims(answer.token());
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    let expected = json!({
        "iss": URL, "sub": "demo", "client_id": "demo", "aud": ["shop", "billing"], "iat": START, "exp": START + 900,
        "scope": "items:read items:write",
    });
    assert_eq!(claims, expected);
    let again = self::claims(pod.token(GRANT).await.token());
    assert_ne!(again["jti"], jti);
}

#[tokio::test]
async fn another_library_verifies_the_token_by_the_published_keys() {
    for (algorithm, name) in [
        (Algorithm::ES256, jsonwebtoken::Algorithm::ES256),
        (Algorithm::RS256, jsonwebtoken::Algorithm::RS256),
        (Algorithm::EdDSA, jsonwebtoken::Algorithm::EdDSA),
    ] {
        let pod = Pod::signing(algorithm);
        let token = pod.token(GRANT).await;
        let published = pod
            .ask(Request::get("/jwks.json").body(Body::empty()).unwrap())
            .await;
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(published.body).unwrap();
        let header = jsonwebtoken::decode_header(token.token()).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut rules = jsonwebtoken::Validation::new(name);
        rules.set_issuer(&[URL]);
        rules.set_audience(&["shop"]);
        // The issuer's clock stands in the past.
        rules.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Value>(token.token(), &key, &rules).unwrap();
        assert_eq!(decoded.claims["sub"], "demo", "{algorithm}");
    }
}

#[tokio::test]
async fn client_authenticates_by_basic_or_by_form() {
    let pod = Pod::signing(Algorithm::ES256);
    let post = |id: &str| {
        format!(
            "{GRANT}&client_id={id}&client_secret={}",
            SECRET.replace(' ', "+")
        )
    };
    for form in [post("demo"), post("odd%3Aid%2B1")] {
        let answer = pod.ask(token_request().body(form.into()).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    for id in ["demo", "odd%3Aid%2B1"] {
        for scheme in ["Basic ", "basic "] {
            let header = basic(id, SECRET).replacen("Basic ", scheme, 1);
            let request = token_request()
                .header("authorization", header)
                .body(GRANT.into())
                .unwrap();
            let answer = pod.ask(request).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    let named_twice = pod.token(&format!("{GRANT}&client_id=demo")).await;
    assert_eq!(named_twice.status, 200);
}

#[tokio::test]
async fn wrong_client_is_refused_the_same_whether_it_exists_or_not() {
    let pod = Pod::signing(Algorithm::ES256);
    let mut bodies = Vec::new();
    for (id, secret) in [("demo", "wrong"), ("nobody", SECRET), ("demo", ""), ("", SECRET)] {
        let request = token_request()
            .header("authorization", basic(id, secret))
            .body(GRANT.into())
            .unwrap();
        let answer = pod.ask(request).await;
        assert_eq!(answer.error(), (401, "invalid_client"));
        assert_eq!(
            answer.headers["www-authenticate"],
            "Basic realm=\"token\", charset=\"UTF-8\""
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
        bodies.push(answer.body);
        let form = format!("{GRANT}&client_id={id}&client_secret={secret}");
        let answer = pod.ask(token_request().body(form.into()).unwrap()).await;
        assert_eq!(answer.error(), (401, "invalid_client"));
        assert!(answer.headers.get("www-authenticate").is_none());
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    for header in [
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "Basic ZGVtbw==",
        "Basic JXp6OmE=",
    ] {
        let request = token_request()
            .header("authorization", header)
            .body(GRANT.into())
            .unwrap();
        assert_eq!(
            pod.ask(request).await.error(),
            (401, "invalid_client"),
            "{header}"
        );
    }
}

#[tokio::test]
async fn two_ways_to_authenticate_are_refused() {
    let pod = Pod::signing(Algorithm::ES256);
    let both = format!(
        "{GRANT}&client_id=demo&client_secret={}",
        SECRET.replace(' ', "+")
    );
    assert_eq!(pod.token(&both).await.error(), (400, "invalid_request"));
    assert_eq!(
        pod.token(&format!("{GRANT}&client_id=other")).await.error(),
        (400, "invalid_request")
    );
    let request = token_request()
        .header("authorization", basic("demo", SECRET))
        .header("authorization", basic("demo", SECRET))
        .body(GRANT.into())
        .unwrap();
    assert_eq!(pod.ask(request).await.error(), (400, "invalid_request"));
}

#[tokio::test]
async fn malformed_requests_are_refused_with_the_errors_of_rfc_6749() {
    let pod = Pod::signing(Algorithm::ES256);
    for (form, error) in [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password", "unsupported_grant_type"),
        ("grant_type=refresh_token", "unsupported_grant_type"),
        (
            "grant_type=client_credentials&grant_type=client_credentials",
            "invalid_request",
        ),
        ("grant_type=client_credentials&x=1&x=2", "invalid_request"),
        ("grant_type=client_credentials&scope=%ff", "invalid_request"),
        ("grant_type=client_credentials&scope=admin", "invalid_scope"),
        (
            "grant_type=client_credentials&scope=items:read++items:write",
            "invalid_scope",
        ),
        (
            "grant_type=client_credentials&scope=items:read+admin",
            "invalid_scope",
        ),
        ("grant_type=client_credentials&audience=other", "invalid_target"),
        ("grant_type=client_credentials&audience=sho", "invalid_target"),
        (
            "grant_type=client_credentials&resource=https://other",
            "invalid_target",
        ),
        (
            "grant_type=client_credentials&resource=shop&audience=shop",
            "invalid_request",
        ),
    ] {
        let answer = pod.token(form).await;
        assert_eq!(answer.error(), (400, error), "{form}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(answer.body["error_description"].as_str().unwrap().is_ascii());
    }
    let in_url = Request::post(format!("/oauth2/token?{GRANT}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", basic("demo", SECRET));
    assert_eq!(
        pod.ask(in_url.body(GRANT.into()).unwrap()).await.error(),
        (400, "invalid_request")
    );
    let json = Request::post("/oauth2/token").header("content-type", "application/json");
    assert_eq!(
        pod.ask(json.body("{}".into()).unwrap()).await.error(),
        (400, "invalid_request")
    );
    let large = format!("{GRANT}&x={}", "a".repeat(8 * 1024));
    assert_eq!(pod.token(&large).await.error(), (413, "invalid_request"));
    let get = Request::get("/oauth2/token").body(Body::empty()).unwrap();
    assert_eq!(pod.ask(get).await.status, 405);
    let elsewhere = Request::get("/oauth2/authorize").body(Body::empty()).unwrap();
    assert_eq!(pod.ask(elsewhere).await.status, 404);
}

#[tokio::test]
async fn scope_and_audience_can_be_narrowed() {
    let pod = Pod::signing(Algorithm::ES256);
    let answer = pod
        .token(&format!("{GRANT}&scope=items:read+items:read&audience=shop"))
        .await;
    assert_eq!(answer.body["scope"], "items:read");
    let claims = claims(answer.token());
    assert_eq!(
        (&claims["scope"], &claims["aud"]),
        (&json!("items:read"), &json!(["shop"]))
    );
    let answer = pod.token(&format!("{GRANT}&resource=billing")).await;
    assert_eq!(self::claims(answer.token())["aud"], json!(["billing"]));
    let form = format!(
        "{GRANT}&client_id=odd%3Aid%2B1&client_secret={}",
        SECRET.replace(' ', "+")
    );
    let answer = pod.ask(token_request().body(form.into()).unwrap()).await;
    assert!(answer.body.get("scope").is_none());
    let claims = self::claims(answer.token());
    assert!(claims.get("scope").is_none());
    assert_eq!(claims["aud"], json!(["shop"]));
}
