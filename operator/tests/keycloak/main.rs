//! A real Keycloak as an external issuer, before the real publisher and real verifiers: its tokens pass, its rotation is
//! followed, its outage is survived.

#![cfg(test)]
#[expect(
    dead_code,
    reason = "shared with the tests of hostile issuers, which ask more of it"
)]
#[path = "../external/chain.rs"]
mod chain;

use chain::{Chain, DEADLINE, Verdict, bearing};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use servicechain_fixtures::keycloak::{Keycloak, PASSWORD};

async fn call(
    method: Method,
    url: &str,
    token: Option<&str>,
    kind: &str,
    body: String,
) -> (StatusCode, Vec<u8>) {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", kind);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, body.collect().await.unwrap().to_bytes().to_vec())
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}

async fn token(issuer: &str, form: &str) -> String {
    let url = format!("{issuer}/protocol/openid-connect/token");
    let kind = "application/x-www-form-urlencoded";
    let (status, body) = call(Method::POST, &url, None, kind, form.to_owned()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// A token of the client `demo`.
async fn access_token(keycloak: &Keycloak) -> HeaderMap {
    let form = format!("grant_type=client_credentials&client_id=demo&client_secret={PASSWORD}");
    bearing(&token(&keycloak.issuer(), &form).await)
}

/// A new key that signs from now on.
async fn rotate(keycloak: &Keycloak, priority: u32) {
    let form = format!("grant_type=password&client_id=admin-cli&username=admin&password={PASSWORD}");
    let administrator = token(&format!("{}/realms/master", keycloak.url()), &form).await;
    let url = format!("{}/admin/realms/shop/components", keycloak.url());
    let component = json!({
        "name": format!("key-{priority}"),
        "providerId": "rsa-generated",
        "providerType": "org.keycloak.keys.KeyProvider",
        "config": {
            "priority": [priority.to_string()], "enabled": ["true"], "active": ["true"],
            "algorithm": ["RS256"], "keySize": ["2048"],
        },
    });
    let kind = "application/json";
    let (status, body) = call(
        Method::POST,
        &url,
        Some(&administrator),
        kind,
        component.to_string(),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_tokens_pass_its_rotation_is_followed_and_its_outage_is_survived() {
    let mut keycloak = tokio::task::spawn_blocking(Keycloak::start)
        .await
        .unwrap()
        .unwrap();
    let issuer = json!({"external": {"url": keycloak.issuer(), "algorithms": ["RS256"]}});
    let chain = Chain::start_now(&[("corp", issuer)]).await;
    let first = access_token(&keycloak).await;
    chain.await_passes(&first).await;
    let standing = chain
        .await_standing("corp", "the encryption key", |standing| {
            !standing.refused.is_empty()
        })
        .await;
    assert_eq!(standing.problem, None);
    assert_eq!(standing.refused.len(), 1, "{standing:?}");

    let mut newest = first.clone();
    for priority in [200, 300] {
        rotate(&keycloak, priority).await;
        newest = access_token(&keycloak).await;
        chain.await_passes(&newest).await;
        assert_eq!(chain.present(&first).await, [Verdict::Passes; 2]);
    }
    let active = chain.controller.state().borrow().entries.len();
    assert_eq!(active, 3, "each rotation left its key");

    keycloak.stop().unwrap();
    let invented = chain.token(
        &keycloak.issuer(),
        &servicechain_keys::SigningKey::generate(servicechain_keys::Algorithm::RS256).unwrap(),
    );
    chain.controller.wake();
    assert_eq!(
        chain.present(&newest).await,
        [Verdict::Passes; 2],
        "while it is away"
    );
    let verdicts = chain.present(&invented).await;
    assert_eq!(
        verdicts,
        [Verdict::Unavailable; 2],
        "nobody can say whether it is good"
    );
    assert_eq!(
        chain.present(&first).await,
        [Verdict::Passes; 2],
        "while it is away"
    );

    let mut keycloak = tokio::task::spawn_blocking(move || {
        keycloak.start_again().unwrap();
        keycloak
    })
    .await
    .unwrap();
    rotate(&keycloak, 400).await;
    chain.await_passes(&access_token(&keycloak).await).await;
    keycloak.stop().unwrap();
}
