//! A real Keycloak as the issuer of a whole chain: its tokens pass every hop while it rotates its keys, none is refused,
//! and what is known of it outlives it.

#![cfg(test)]

mod load;
#[path = "../local/program.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of `servicechain local`, which ask more of it"
)]
mod program;
mod provider;

use std::fs::{self, File};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use servicechain_fixtures::await_condition;
use servicechain_fixtures::keycloak::Keycloak;
use servicechain_keys::{Algorithm, NumericDate, SigningKey};
use servicechain_runtime::clock::Clock;

use load::Load;
use program::{Http, Local, of_hops, servicechain, text};

/// For a JVM on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);

fn chain(issuer: &str) -> Value {
    let service = |name: &str| json!({"name": name, "database": {"managed": {}}, "cache": {"managed": {}}});
    json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "audiences": ["shop"],
            "issuers": [{"name": "corp", "external": {"url": issuer, "algorithms": ["RS256"]}}],
            "gateway": {"routes": [{"name": "items", "service": "a"}]},
            "services": [service("a"), service("b"), service("c")],
        },
    })
}

/// Puts an item at every hop, as a client that heeds Retry-After.
async fn put(url: &str, token: &str) {
    let http = Http::new();
    await_condition("the item at every hop", DEADLINE, async || {
        let item = Some(json!({"name": "lamp"}));
        let (answer, body) = http.send(Method::PUT, url, Some(token), item).await;
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => Err(body),
            status => panic!("{status}: {body}"),
        }
    })
    .await
    .unwrap();
}

/// Nobody but Keycloak could say that it is not its own.
fn invented(issuer: &str) -> String {
    let now = NumericDate::from(Clock::system().now()).as_seconds();
    let claims = json!({"iss": issuer, "sub": "alice", "aud": "shop", "iat": now, "exp": now + 900});
    let key = SigningKey::generate(Algorithm::RS256).unwrap();
    key.sign_compact("JWT", claims.to_string().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_tokens_pass_every_hop_its_rotation_is_followed_and_its_outage_is_survived() {
    let keycloak = tokio::task::spawn_blocking(Keycloak::start).await.unwrap();
    let mut keycloak = keycloak.unwrap();
    let issuer = keycloak.issuer();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.yaml");
    fs::write(&file, chain(&issuer).to_string()).unwrap();
    let said = folder.path().join("stderr");
    let mut local = servicechain(folder.path(), &["local", "--json", "-f", file.to_str().unwrap()]);
    local.stderr(File::create(&said).unwrap());
    let mut local = Local::spawn(local);
    let ready: Value = serde_json::from_str(&local.line()).unwrap();
    let url = format!("{}/items/1", text(&ready, "/gateway"));
    let http = Http::new();
    let said = || fs::read_to_string(&said).unwrap();

    let first = provider::access_token(&issuer).await;
    put(&url, &first).await;
    let (answer, body) = http.get(&url, Some(&first)).await;
    assert_eq!(answer.status(), StatusCode::OK, "{body}\n{}", said());
    assert_eq!(of_hops(&body, "service"), ["a", "b", "c"]);
    let odd = "issuer corp: key 1 is left out: not for verifying signatures";
    let other = odd.replace("key 1", "key 2");
    let is_named = |said: &str| said.contains(odd) || said.contains(&other);
    assert!(is_named(&said()), "its key for encryption is named: {}", said());

    let load = Load::start(&url, &issuer, &first);
    load.await_keys(1).await;
    for (keys, priority) in [(2, 200), (3, 300), (4, 400)] {
        provider::rotate(&keycloak.url(), priority).await;
        load.await_keys(keys).await;
    }
    let newest = load.end().await;

    keycloak.stop().unwrap();
    let invented = invented(&issuer);
    for _ in 0..3 {
        for (token, expected) in [
            (&first, StatusCode::OK),
            (&invented, StatusCode::SERVICE_UNAVAILABLE),
            (&newest, StatusCode::OK),
        ] {
            let (answer, body) = http.get(&url, Some(token)).await;
            assert_eq!(answer.status(), expected, "while it is away: {body}");
        }
    }

    let started = tokio::task::spawn_blocking(move || keycloak.start_again().map(|()| keycloak));
    let mut keycloak = started.await.unwrap().unwrap();
    let load = Load::start(&url, &issuer, &newest);
    provider::rotate(&keycloak.url(), 500).await;
    load.await_keys(2).await;
    load.end().await;
    await_condition(
        "what it never signed to be refused",
        DEADLINE,
        async || match http.get(&url, Some(&invented)).await.0.status() {
            StatusCode::UNAUTHORIZED => Ok(()),
            status => Err(status),
        },
    )
    .await
    .unwrap();
    keycloak.stop().unwrap();
}
