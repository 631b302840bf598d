//! What a chain lacks is named in a condition, with the object it is about, and nothing more than mending that is needed.
#![cfg(test)]

use std::time::Duration;

use serde_json::{Value, json};
use servicechain_e2e::shop::{NAME, Shop, condition, smallest};

/// Until the operator has seen it, and Kubernetes has tried.
const NAMED_WITHIN: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_missing_client_secret_is_named_until_it_is_there() {
    let shop = Shop::prepare().await.unwrap();
    shop.apply(|chain| {
        smallest(chain);
        chain["spec"]["issuers"][0]["managed"]["clients"][0]["secretRef"] = json!({"name": "given"});
    })
    .await
    .unwrap();
    assert_named(&shop, "IssuersReady", &["given"]).await;

    shop.cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "given", "namespace": shop.namespace},
            "stringData": {"clientID": "demo", "clientSecret": "correct-horse-battery-staple"},
        }))
        .await
        .unwrap();
    shop.await_ready().await.unwrap();
}

#[tokio::test]
async fn a_volume_that_does_not_bind_is_named_with_its_class_until_there_is_one() {
    let shop = Shop::prepare().await.unwrap();
    // Not of a namespace, so not of this test alone.
    let class = format!("of-{}", shop.namespace);
    shop.apply(|chain| {
        smallest(chain);
        chain["spec"]["services"][0]["database"]["managed"]["storage"] = json!({"className": class});
    })
    .await
    .unwrap();
    assert_named(&shop, "StoresReady", &["shop-a-postgres", &class]).await;

    shop.cluster
        .apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
            "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
        }))
        .await
        .unwrap();
    shop.await_ready().await.unwrap();
    shop.cluster
        .kubectl(["delete", "storageclass", &class])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_quota_that_leaves_no_room_for_pods_is_named_until_it_is_gone() {
    let shop = Shop::prepare().await.unwrap();
    shop.cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "narrow", "namespace": shop.namespace},
            "spec": {"hard": {"pods": "2"}},
        }))
        .await
        .unwrap();
    shop.apply(smallest).await.unwrap();
    assert_some_condition_names(&shop, &["narrow", "pods=2"]).await;

    shop.kubectl(&["delete", "resourcequota", "narrow"])
        .await
        .unwrap();
    shop.await_ready().await.unwrap();
}

#[tokio::test]
async fn a_quota_that_leaves_no_room_for_an_object_is_named_until_it_is_gone() {
    let shop = Shop::prepare().await.unwrap();
    shop.cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "narrow", "namespace": shop.namespace},
            "spec": {"hard": {"count/services": "1"}},
        }))
        .await
        .unwrap();
    shop.apply(smallest).await.unwrap();
    assert_some_condition_names(&shop, &["narrow", "count/services=1"]).await;

    shop.kubectl(&["delete", "resourcequota", "narrow"])
        .await
        .unwrap();
    shop.await_ready().await.unwrap();
}

async fn assert_named(shop: &Shop, kind: &str, words: &[&str]) {
    let what = format!("not {kind}, with {words:?} in its message");
    shop.await_chain(&what, NAMED_WITHIN, |chain| {
        condition(chain, kind).is_some_and(|condition| is_false_and_says(condition, words))
    })
    .await
    .unwrap();
    let line = shop
        .kubectl(&["get", "chain", NAME, "--no-headers"])
        .await
        .unwrap();
    assert!(line.contains("False"), "{line}");
}

async fn assert_some_condition_names(shop: &Shop, words: &[&str]) {
    let what = format!("without a condition that says {words:?}");
    shop.await_chain(&what, NAMED_WITHIN, |chain| {
        let conditions = chain["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .into_iter()
            .any(|condition| is_false_and_says(condition, words))
    })
    .await
    .unwrap();
}

fn is_false_and_says(condition: &Value, words: &[&str]) -> bool {
    let message = condition["message"].as_str().unwrap_or_default();
    condition["status"] == "False" && words.iter().all(|word| message.contains(word))
}
