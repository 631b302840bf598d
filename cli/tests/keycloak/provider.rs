//! What a client and an administrator of Keycloak ask of it.

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use servicechain_fixtures::keycloak::PASSWORD;

use super::DEADLINE;

/// The issuer's for the client `demo`.
pub(crate) async fn access_token(issuer: &str) -> String {
    let form = format!("grant_type=client_credentials&client_id=demo&client_secret={PASSWORD}");
    token(issuer, form).await
}

/// A new key that signs from now on.
pub(crate) async fn rotate(keycloak: &str, priority: u32) {
    let form = format!("grant_type=password&client_id=admin-cli&username=admin&password={PASSWORD}");
    let administrator = token(&format!("{keycloak}/realms/master"), form).await;
    let component = json!({
        "name": format!("key-{priority}"),
        "providerId": "rsa-generated",
        "providerType": "org.keycloak.keys.KeyProvider",
        "config": {
            "priority": [priority.to_string()], "enabled": ["true"], "active": ["true"],
            "algorithm": ["RS256"], "keySize": ["2048"],
        },
    });
    let request = Request::post(format!("{keycloak}/admin/realms/shop/components"))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {administrator}"));
    let (status, body) = send(request, component.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&body));
}

async fn token(issuer: &str, form: String) -> String {
    let request = Request::post(format!("{issuer}/protocol/openid-connect/token"))
        .header("content-type", "application/x-www-form-urlencoded");
    let (status, body) = send(request, form).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn send(request: http::request::Builder, body: String) -> (StatusCode, Vec<u8>) {
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        (head.status, body.collect().await.unwrap().to_bytes().to_vec())
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}
