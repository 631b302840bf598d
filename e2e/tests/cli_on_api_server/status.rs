//! `status` and `wait`: what a chain is like, what is in the way, and who may not know.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_fixtures::api_server::ApiServer;

use crate::{Shop, Talking, condition, ended, ready, servicechain};

#[tokio::test(flavor = "multi_thread")]
async fn status_draws_what_the_operator_says() {
    let shop = Shop::new().await.with_chain().await;
    let before = shop.ends("status -n NS shop").await;
    assert_eq!(before.code, Some(0), "{before:?}");
    assert!(
        before.stdout.contains("! the operator has not looked at it yet"),
        "{before:?}"
    );

    shop.says(ready(1)).await;
    let drawn = shop.ends("status -n NS shop").await;
    assert_eq!((drawn.code, drawn.stderr.as_str()), (Some(0), ""));
    for line in [
        "├─ gateway  2/2",
        "└─ a        2/2  postgres 17 (single instance, no backup)",
        "keys  2/3 @ 7",
    ] {
        assert!(
            drawn.stdout.contains(line),
            "{line:?} is not in\n{}",
            drawn.stdout
        );
    }
    assert!(drawn.stdout.starts_with("shop  Ready  "), "{}", drawn.stdout);
    assert!(!drawn.stdout.contains('\x1b'), "colours in a pipe");

    let line = shop.ends("status shop -n NS -o json").await;
    let said: Value = serde_json::from_str(&line.stdout).unwrap();
    assert_eq!(
        (&said["ready"], &said["status"]["keys"]["generation"]),
        (&json!(true), &json!(7))
    );

    let watched = shop.ends("status -n NS shop --watch").await;
    assert_eq!(watched.code, Some(2), "a pipe cannot be redrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_when_the_newest_generation_is_ready_and_not_before() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    let edit = json!({"spec": {"paused": true}});
    let chains = shop.api::<ServiceChain>();
    chains
        .patch("shop", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();

    let mut wait = Talking::start(shop.run("wait -n NS shop --timeout 60s"));
    wait.says("to be Ready").await;
    wait.says("the operator has seen generation 1 of it, not yet 2")
        .await;
    let mut status = ready(2);
    status["conditions"] = json!([condition("Ready", "False", 2, "pod shop-a-1 starts")]);
    shop.says(status).await;
    wait.says("Because: pod shop-a-1 starts").await;
    shop.says(ready(2)).await;
    let end = wait.ends().await;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{end:?}");
    assert!(end.stdout.starts_with("shop is Ready after "), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_in_vain_names_what_is_in_the_way_and_ends_with_3() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(json!({"observedGeneration": 1, "conditions": [
        condition("Ready", "False", 1, "stores are not ready"),
        condition("StoresReady", "False", 1, "the volume shop-a-postgres does not bind"),
    ]}))
    .await;
    let end = shop.ends("wait -n NS shop --timeout 1s").await;
    assert_eq!(end.code, Some(3), "{end:?}");
    assert_eq!(
        end.stderr,
        "error: chain shop is not Ready after 1 s\n  \
         StoresReady is False (Because): the volume shop-a-postgres does not bind\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_not_there_or_goes_ends_with_4() {
    let shop = Shop::new().await.with_chain().await;
    for verb in ["status", "wait", "keys", "token"] {
        let end = shop.ends(&format!("{verb} -n NS shp")).await;
        let says = format!(
            "error: there is no chain \"shp\" in namespace {}; there is shop\n",
            shop.namespace
        );
        assert_eq!((end.code, end.stderr), (Some(4), says), "{verb}");
    }
    let elsewhere = shop.ends("status shop").await;
    assert_eq!(elsewhere.code, Some(4));
    assert!(elsewhere.stderr.contains("add -n "), "{elsewhere:?}");

    let mut wait = Talking::start(shop.run("wait -n NS shop --timeout 60s"));
    wait.says("the operator has not looked at it yet").await;
    let chains = shop.api::<ServiceChain>();
    chains.delete("shop", &DeleteParams::default()).await.unwrap();
    let end = wait.ends().await;
    assert_eq!(end.code, Some(4), "{end:?}");
    assert!(
        end.stderr.contains("was deleted while it was waited for"),
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_a_right_is_told_which() {
    let shop = Shop::new().await.with_chain().await;
    let (_folder, file) = shop.kubeconfig_of("jane");
    let end = ended(servicechain(&file, "status shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert_eq!(
        end.stderr,
        format!(
            "error: user \"jane\" may not get servicechains.servicechain.dev in namespace {}: ask for a role with the \
             verb \"get\" on \"servicechains.servicechain.dev\"\n",
            shop.namespace
        )
    );
    let unknown = ended(servicechain(&file, "status shop --context nowhere")).await;
    assert_eq!(unknown.code, Some(2));
    assert_eq!(
        unknown.stderr,
        "error: the kubeconfig has no context \"nowhere\"; there is fixture\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_crd_or_without_an_answer_is_told_from_a_missing_chain() {
    let server = tokio::task::spawn_blocking(|| ApiServer::start().unwrap());
    let mut server = server.await.unwrap();
    let kubeconfig = server.kubeconfig();
    let end = ended(servicechain(&kubeconfig, "wait shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr.contains("ServiceChain is not installed") && end.stderr.contains("`helm install "),
        "{end:?}"
    );

    server.stop().unwrap();
    let end = ended(servicechain(&kubeconfig, "status shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("does not answer: "), "{end:?}");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
}
