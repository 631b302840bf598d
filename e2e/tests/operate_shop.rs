//! The life of a chain as its user sees it, with kubectl, our own command line and requests through a NodePort: applied,
//! asked, mended, deleted, found again with its items, and gone with its namespace.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use servicechain_e2e::cluster::await_seen;
use servicechain_e2e::shop::{NAME, READY_WITHIN, Shop};

/// Everything that a chain makes.
const KINDS: &str = "all,configmaps,networkpolicies,poddisruptionbudgets,serviceaccounts,secrets";
const GONE_WITHIN: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_chain_answers_undoes_drift_and_finds_its_items_again_after_it_was_deleted() {
    let shop = Shop::prepare().await.unwrap();
    apply_and_wait(&shop).await;
    let line = shop.kubectl(&["get", "chain", "--no-headers"]).await.unwrap();
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(columns[..3], [NAME, "True", "3/3"], "{line}");
    let (held, generation) = columns[3].split_once('@').unwrap();
    assert_eq!(held, "10/10", "{line}");
    assert!(generation.parse::<u64>().unwrap() >= 2, "{line}");

    let token = shop
        .cluster
        .servicechain(["token", "--namespace", &shop.namespace, NAME])
        .await
        .unwrap();
    let put = shop.put("/items/1", &token, r#"{"name":"lamp"}"#).await.unwrap();
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(item(&shop, &token).await, "lamp");
    let refused = shop.get("/items/1", None).await.unwrap();
    assert_eq!(refused.status, 401, "{refused:?}");

    undo_drift(&shop, "deployment", "shop-b").await;
    undo_drift(&shop, "service", "shop-gateway").await;
    undo_drift(&shop, "networkpolicy", "shop-c").await;

    // What is kept: what opens the volumes.
    delete_chain(&shop).await;
    let volumes = shop
        .kubectl(&["get", "persistentvolumeclaims", "--output=name"])
        .await
        .unwrap();
    assert_eq!(volumes.lines().count(), 3, "{volumes}");

    apply_and_wait(&shop).await;
    let token = shop.token().await.unwrap();
    assert_eq!(item(&shop, &token).await, "lamp");

    let delete = ["delete", "namespace", &shop.namespace, "--timeout=120s"];
    shop.cluster.kubectl(delete).await.unwrap();
}

async fn apply_and_wait(shop: &Shop) {
    shop.apply(|_| {}).await.unwrap();
    let wait = ["wait", "--namespace", &shop.namespace, NAME, "--timeout", "360s"];
    if let Err(error) = shop.cluster.servicechain(wait).await {
        panic!("{error:#}: {}", shop.chain().await.unwrap()["status"]);
    }
}

/// The name of item 1, as `a` has it, with an answer of all three hops around it.
async fn item(shop: &Shop, token: &str) -> String {
    let answer = shop.get("/items/1", Some(token)).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: Value = answer.json().unwrap();
    let hops: Vec<&str> = body["hops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| hop["service"].as_str().unwrap())
        .collect();
    assert_eq!(hops, ["a", "b", "c"]);
    body["hops"][0]["item"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What is deleted comes back, as another object, and the chain is Ready again.
async fn undo_drift(shop: &Shop, kind: &str, name: &str) {
    let uid = ["get", kind, name, "--output=jsonpath={.metadata.uid}"];
    let before = shop.kubectl(&uid).await.unwrap();
    shop.kubectl(&["delete", kind, name, "--wait=false"])
        .await
        .unwrap();
    let what = format!("{kind} {name} to come back");
    await_seen(&what, READY_WITHIN, async || match shop.kubectl(&uid).await {
        Ok(after) if after != before => Ok(()),
        Ok(_) => Err("it is there still".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap();
    shop.await_ready().await.unwrap();
}

async fn delete_chain(shop: &Shop) {
    shop.kubectl(&["delete", "chain", NAME, "--wait"]).await.unwrap();
    let kept: BTreeSet<String> = ["a", "b", "c"]
        .iter()
        .map(|service| format!("secret/shop-{service}-postgres"))
        .collect();
    let labels = format!("servicechain.dev/chain={NAME}");
    await_seen(
        "everything but the kept Secrets to be gone",
        GONE_WITHIN,
        async || {
            let left = shop
                .kubectl(&["get", KINDS, "--selector", &labels, "--output=name"])
                .await
                .map_err(|error| format!("{error:#}"))?;
            let left: BTreeSet<String> = left.lines().map(str::to_owned).collect();
            if left == kept {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    )
    .await
    .unwrap();
}
