//! The operator itself, while a chain is asked all the time: gone for a while, and upgraded with its CRDs in either order.
//! There is one operator in a cluster, so the tests of this file run one after another.
#![cfg(test)]

use std::time::Duration;

use serde_json::json;
use servicechain_e2e::cluster::{Cluster, OPERATOR_NAMESPACE, await_seen};
use servicechain_e2e::installed;
use servicechain_e2e::load::{Load, Tally};
use servicechain_e2e::shop::{Shop, condition, single, smallest};
use tokio::sync::Mutex;

const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts");
const WITHIN: Duration = Duration::from_mins(3);
const ITEM: &str = "/items/1";

static OPERATOR_IS_MINE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn without_an_operator_requests_go_on_and_a_container_that_restarts_serves_from_its_files() {
    let _mine = OPERATOR_IS_MINE.lock().await;
    let shop = Shop::start(single).await.unwrap();
    let token = put_an_item(&shop).await;
    installed::scale(&shop.cluster, 0).await.unwrap();

    for (component, container) in [
        ("a", "service"),
        ("b", "service"),
        ("c", "service"),
        ("gateway", "gateway"),
    ] {
        let pod = shop.pods(component).await.unwrap().remove(0);
        shop.cluster.kill_container(&pod, container).await.unwrap();
        shop.await_restart(&pod).await.unwrap();
    }
    await_seen("the chain to answer", WITHIN, async || {
        let answer = shop
            .get(ITEM, Some(&token))
            .await
            .map_err(|error| format!("{error:#}"))?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await
    .unwrap();
    let tally = asked(&shop, &token, async || {}).await;
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert_eq!(shop.get(ITEM, None).await.unwrap().status, 401);
    // The issuer goes on signing as well.
    shop.token().await.unwrap();

    installed::scale(&shop.cluster, 2).await.unwrap();
    shop.patch(json!({"spec": {"gateway": {"replicas": 2}}}))
        .await
        .unwrap();
    shop.await_ready().await.unwrap();
}

#[tokio::test]
async fn an_upgrade_of_the_crds_and_then_of_the_operator_is_not_noticed_by_clients() {
    let _mine = OPERATOR_IS_MINE.lock().await;
    let shop = Shop::start(smallest).await.unwrap();
    let token = put_an_item(&shop).await;
    let tally = asked(&shop, &token, async || {
        upgrade(&shop.cluster, "servicechain-crds", "crds-first").await;
        upgrade(&shop.cluster, "servicechain", "crds-first").await;
        installed::await_rollout(&shop.cluster).await.unwrap();
        assert_alive(&shop).await;
    })
    .await;
    assert!(tally.failures.is_empty(), "{tally:?}");
}

#[tokio::test]
async fn an_operator_upgraded_before_its_crds_waits_for_them_and_says_so() {
    let _mine = OPERATOR_IS_MINE.lock().await;
    let shop = Shop::start(smallest).await.unwrap();
    let token = put_an_item(&shop).await;
    let tally = asked(&shop, &token, async || {
        // As they were before this version.
        for name in ["servicechains", "revocations"] {
            let name = format!("customresourcedefinition/{name}.servicechain.dev");
            let older = "servicechain.dev/schema=0";
            shop.cluster
                .kubectl(["annotate", "--overwrite", &name, older])
                .await
                .unwrap();
        }
        upgrade(&shop.cluster, "servicechain", "operator-first").await;
        await_a_new_pod_that_waits(&shop.cluster).await;
        upgrade(&shop.cluster, "servicechain-crds", "operator-first").await;
        installed::await_rollout(&shop.cluster).await.unwrap();
        assert_alive(&shop).await;
    })
    .await;
    assert!(tally.failures.is_empty(), "{tally:?}");
}

#[tokio::test]
async fn an_image_that_does_not_pull_is_named_until_it_does() {
    let _mine = OPERATOR_IS_MINE.lock().await;
    let shop = Shop::prepare().await.unwrap();
    let missing = format!("servicechain/postgres:of-{}", shop.namespace);
    let image = format!(
        "images.postgres.16.repository=servicechain/postgres,images.postgres.16.tag=of-{}",
        shop.namespace
    );
    let chart = format!("{CHARTS}/servicechain");
    let set = [
        "upgrade",
        "servicechain",
        &chart,
        "--reset-then-reuse-values",
        "--set-string",
        &image,
    ];
    shop.cluster.helm(set).await.unwrap();
    installed::await_rollout(&shop.cluster).await.unwrap();
    shop.apply(|chain| {
        smallest(chain);
        chain["spec"]["services"][0]["database"]["managed"]["version"] = json!("16");
    })
    .await
    .unwrap();
    shop.await_chain("not StoresReady for its image", WITHIN, |chain| {
        let stores = condition(chain, "StoresReady");
        stores.is_some_and(|stores| stores["message"].as_str().unwrap_or_default().contains(&missing))
    })
    .await
    .unwrap();

    // The image comes to every node; nothing of Kubernetes is touched.
    let there = format!("docker.io/{}", shop.cluster.image("postgres").unwrap());
    let wanted = format!("docker.io/{missing}");
    for node in ["control-plane", "worker", "worker2"] {
        let node = format!("{}-{node}", shop.cluster.name);
        let tag = ["ctr", "--namespace", "k8s.io", "images", "tag", &there, &wanted];
        shop.cluster
            .docker(["exec", &node].into_iter().chain(tag))
            .await
            .unwrap();
    }
    shop.await_ready().await.unwrap();
}

async fn put_an_item(shop: &Shop) -> String {
    let token = shop.token().await.unwrap();
    assert_eq!(
        shop.put(ITEM, &token, r#"{"name":"lamp"}"#).await.unwrap().status,
        201
    );
    token
}

/// What clients see while `change` happens.
async fn asked(shop: &Shop, token: &str, change: impl AsyncFnOnce()) -> Tally {
    let hops = shop.chain().await.unwrap()["spec"]["services"]
        .as_array()
        .unwrap()
        .len();
    let load = Load::start(2, shop.gateway, ITEM, token, hops);
    load.await_answers(50).await.unwrap();
    change().await;
    load.await_answers(50).await.unwrap();
    load.stop().await
}

/// The operator does its work: what is asked for comes about, and what is deleted comes back.
async fn assert_alive(shop: &Shop) {
    shop.patch(json!({"spec": {"gateway": {"replicas": 2}}}))
        .await
        .unwrap();
    shop.kubectl(&["delete", "serviceaccount", "shop-a"])
        .await
        .unwrap();
    await_seen("what was deleted to come back", WITHIN, async || {
        shop.kubectl(&["get", "serviceaccount", "shop-a"])
            .await
            .map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    shop.await_chain("Ready with two replicas of the gateway", WITHIN, |chain| {
        let is_ready = condition(chain, "Ready").is_some_and(|it| it["status"] == "True");
        is_ready && chain["status"]["gateway"]["ready"] == 2
    })
    .await
    .unwrap();
}

/// `helm upgrade` to what differs by an annotation of its pods alone, so that there is something to roll.
async fn upgrade(cluster: &Cluster, release: &str, mark: &str) {
    let chart = format!("{CHARTS}/{release}");
    let mark = format!("podAnnotations.mark={mark}");
    let mut arguments = vec!["upgrade", release, &chart, "--reset-then-reuse-values"];
    if release == "servicechain" {
        arguments.extend(["--set-string", &mark]);
    }
    cluster.helm(arguments).await.unwrap();
}

/// Running, not ready, and its log has a sentence about the CRDs.
async fn await_a_new_pod_that_waits(cluster: &Cluster) {
    await_seen("a new operator to wait for its CRDs", WITHIN, async || {
        for pod in installed::pods(cluster)
            .await
            .map_err(|error| format!("{error:#}"))?
        {
            let name = pod.metadata.name.unwrap_or_default();
            let logs = ["--namespace", OPERATOR_NAMESPACE, "logs", &name, "--tail=20"];
            let log = cluster
                .kubectl(logs)
                .await
                .map_err(|error| format!("{error:#}"))?;
            if log.contains("servicechain-crds") {
                return Ok(());
            }
        }
        Err("none says so".to_owned())
    })
    .await
    .unwrap();
}
