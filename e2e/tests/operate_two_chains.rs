//! Two chains of the same name in two namespaces: what opens one of them opens nothing of the other. Each refusal is seen
//! beside the same thing accepted where it belongs.
#![cfg(test)]

use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;
use servicechain_e2e::shop::{Shop, smallest};

#[tokio::test]
async fn a_token_a_bundle_and_database_credentials_are_good_for_their_own_chain_alone() {
    let (ours, theirs) = tokio::join!(Shop::start(smallest), Shop::start(smallest));
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());

    let token = ours.token().await.unwrap();
    assert_eq!(ours.put("/items/1", &token, "{}").await.unwrap().status, 201);
    assert_eq!(ours.get("/items/1", Some(&token)).await.unwrap().status, 200);
    assert_eq!(theirs.get("/items/1", Some(&token)).await.unwrap().status, 401);

    let (our_bundle, their_bundle) = (bundle(&ours).await, bundle(&theirs).await);
    for component in ["gateway", "a", "issuer-platform"] {
        let (status, answer) = push(&theirs, component, &our_bundle).await;
        assert_eq!(
            (status, &answer["outcome"]),
            (409, &"refused".into()),
            "{component}: {answer}"
        );
        assert_eq!(answer["reason"], "chain", "{component}: {answer}");
        let (status, answer) = push(&theirs, component, &their_bundle).await;
        assert_eq!(
            (status, &answer["outcome"]),
            (200, &"unchanged".into()),
            "{component}: {answer}"
        );
    }

    let password = password(&ours).await;
    assert_eq!(query(&ours, &ours.namespace, &password).await.unwrap(), "1");
    let refused = query(&ours, &theirs.namespace, &password)
        .await
        .unwrap_err()
        .to_string();
    // Where NetworkPolicies are enforced, it does not get as far as a password.
    assert!(
        refused.contains("password authentication failed") || refused.contains("timeout expired"),
        "{refused}"
    );
}

async fn bundle(shop: &Shop) -> String {
    let map = shop.api::<ConfigMap>().get("shop-keys").await.unwrap();
    map.data.unwrap().remove("bundle.jws").unwrap()
}

/// Puts a bundle to the keys port of a component's pod, through the API server.
async fn push(shop: &Shop, component: &str, bundle: &str) -> (u16, Value) {
    let pod = shop.pods(component).await.unwrap().remove(0);
    let (name, uid) = (pod.metadata.name.unwrap(), pod.metadata.uid.unwrap());
    let path = format!(
        "/api/v1/namespaces/{}/pods/{name}:9091/proxy/keys/v1/keys",
        shop.namespace
    );
    let request = Request::put(path)
        .header("Pod-Uid", uid)
        .header("Nonce", "AAAAAAAAAAAAAAAAAAAAAA")
        .body(bundle.as_bytes().to_vec().into())
        .unwrap();
    let answer = shop.client.send(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await.unwrap();
    let said = || String::from_utf8_lossy(&body).into_owned().into();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| said()))
}

/// With which `a` opens its database.
async fn password(shop: &Shop) -> String {
    let secret = shop.api::<Secret>().get("shop-a-postgres").await.unwrap();
    let password = secret.data.unwrap().remove("password").unwrap();
    String::from_utf8(password.0).unwrap()
}

/// `SELECT 1` in the database of a namespace's chain, from within our own database's pod.
async fn query(shop: &Shop, namespace: &str, password: &str) -> anyhow::Result<String> {
    let url = format!("postgres://app:{password}@shop-a-postgres.{namespace}.svc:5432/app");
    let psql = [
        "exec",
        "shop-a-postgres-0",
        "--",
        "env",
        "PGCONNECT_TIMEOUT=5",
        "psql",
        &url,
    ];
    shop.kubectl(&[psql.as_slice(), &["-At", "-c", "SELECT 1"]].concat())
        .await
}
