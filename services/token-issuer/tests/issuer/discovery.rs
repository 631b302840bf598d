//! What anybody may read.

use axum::body::Body;
use http::Request;
use serde_json::json;
use servicechain_keys::{Algorithm, KeyState, SigningKey};

use crate::fixtures::{Pod, URL, entry};

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn metadata_names_what_the_issuer_can_do() {
    let pod = Pod::start(Algorithm::RS256, None);
    let expected = json!({
        "issuer": URL,
        "token_endpoint": format!("{URL}/oauth2/token"),
        "jwks_uri": format!("{URL}/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": ["items:read", "items:write"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        let answer = pod.ask(get(path)).await;
        assert_eq!(answer.body, expected, "{path}");
        assert_eq!(answer.headers["cache-control"], "public, max-age=60");
    }
}

#[tokio::test]
async fn every_key_of_the_held_bundle_is_published_and_no_other() {
    let pod = Pod::start(Algorithm::ES256, None);
    let unknown = pod.ask(get("/jwks.json")).await;
    assert_eq!(unknown.status, 503);
    assert_eq!(unknown.headers["retry-after"], "1");

    let of_another = SigningKey::generate(Algorithm::ES256).unwrap();
    let mut foreign = entry(of_another.public_jwk().clone(), KeyState::Retiring);
    foreign.owner = Some("pod-2".parse().unwrap());
    let [active, unpublished] = pod
        .offered_as([KeyState::Active, KeyState::Staged])
        .try_into()
        .unwrap();
    pod.publish(1, vec![active.clone(), foreign]);
    let answer = pod.ask(get("/jwks.json")).await;
    assert_eq!(
        answer.body,
        json!({"keys": [active.jwk, of_another.public_jwk()]})
    );
    assert_eq!(answer.headers["cache-control"], "public, max-age=60");
    assert!(!answer.body.to_string().contains(unpublished.jwk.kid().unwrap()));
    assert!(!answer.body.to_string().contains("\"d\""));
}
