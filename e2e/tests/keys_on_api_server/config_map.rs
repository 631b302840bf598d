//! What becomes of the bundle when somebody deletes its `ConfigMap`, rolls it back, or changes it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;
use servicechain_crds::ServiceChain;
use servicechain_fixtures::await_condition;
use servicechain_operator::lease::LeaseState;

use crate::leader::{DEADLINE, Leader};
use crate::pods::{Cluster, RunningPod};
use crate::{Shop, client};

#[tokio::test]
async fn a_deleted_config_map_comes_back_as_the_very_bundle_that_pods_hold() {
    let shop = Shop::start().await;
    let before = shop.await_in_sync().await;
    let bytes = shop.cluster.bundle().await.unwrap();
    let api = shop.cluster.api::<ConfigMap>();
    api.delete("shop-keys", &DeleteParams::default()).await.unwrap();
    shop.leader.keys.wake(&shop.cluster.uid());
    let back = await_condition("the ConfigMap", DEADLINE, async || {
        shop.cluster.bundle().await.ok_or("it is not there")
    });
    assert_eq!(back.await.unwrap(), bytes);
    assert_eq!(shop.await_in_sync().await.newest, before.newest);
}

#[tokio::test]
async fn a_leader_that_knows_nothing_adopts_what_pods_hold() {
    let shop = Shop::start().await;
    let before = shop.await_in_sync().await;
    let bytes = shop.cluster.bundle().await.unwrap();
    shop.leader.keys.end().await;
    let api = shop.cluster.api::<ConfigMap>();
    api.delete("shop-keys", &DeleteParams::default()).await.unwrap();
    let Cluster {
        client, roots, chain, ..
    } = &shop.cluster;
    let next = Leader::start(client, roots, LeaseState::always_held()).await;
    next.track(chain);
    let after = next.await_in_sync(chain, 4).await;
    assert_eq!(after.newest, before.newest);
    assert_eq!(shop.cluster.bundle().await.unwrap(), bytes);
}

#[tokio::test]
async fn a_config_map_that_was_rolled_back_never_makes_a_generation_twice() {
    let shop = Shop::start().await;
    let old = shop.cluster.bundle().await.unwrap();
    let before = shop.await_in_sync().await.newest.unwrap();
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let newer = shop
        .await_generation("the revocation", before.0.next())
        .await
        .newest;
    let newer_bytes = shop.cluster.bundle().await.unwrap();
    // As an etcd that was restored, but for the versions.
    shop.overwrite(|map| {
        map.data = Some(BTreeMap::from([("bundle.jws".to_owned(), old.clone())]));
    })
    .await;
    await_condition("the newer bundle", DEADLINE, async || {
        let bundle = shop.cluster.bundle().await;
        if bundle.as_ref() == Some(&newer_bytes) {
            Ok(())
        } else {
            Err("an older one")
        }
    })
    .await
    .unwrap();
    assert_eq!(shop.await_in_sync().await.newest, newer);
}

#[tokio::test]
async fn what_somebody_else_makes_of_the_config_map_is_undone() {
    let shop = Shop::start().await;
    let before = shop.await_in_sync().await;
    let original = shop.cluster.config_map().await.unwrap();
    let changes: [fn(&mut ConfigMap); 3] = [
        |map| map.data = Some(BTreeMap::from([("bundle.jws".to_owned(), "garbage".to_owned())])),
        |map| map.metadata.owner_references = None,
        |map| {
            map.metadata.labels = None;
            map.data
                .as_mut()
                .unwrap()
                .insert("more".to_owned(), "data".to_owned());
        },
    ];
    for change in changes {
        shop.overwrite(change).await;
        await_condition("what it was", DEADLINE, async || {
            let map = shop.cluster.config_map().await.unwrap();
            let is_as_before = map.data == original.data
                && map.metadata.labels == original.metadata.labels
                && map.metadata.owner_references == original.metadata.owner_references;
            if is_as_before {
                Ok(())
            } else {
                Err(format!("{map:?}"))
            }
        })
        .await
        .unwrap();
    }
    assert_eq!(shop.await_in_sync().await.newest, before.newest);
}

#[tokio::test]
async fn a_config_map_that_somebody_made_immutable_is_made_anew_and_keys_go_on() {
    let shop = Shop::start().await;
    let before = shop.await_in_sync().await.newest.unwrap();
    let bytes = shop.cluster.bundle().await.unwrap();
    shop.overwrite(|map| map.immutable = Some(true)).await;
    await_condition("one that can be written", DEADLINE, async || {
        match shop.cluster.config_map().await {
            Some(map) if map.immutable != Some(true) => Ok(()),
            map => Err(format!("{map:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(shop.cluster.bundle().await.unwrap(), bytes);
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    shop.await_generation("the revocation", before.0.next()).await;
}

#[tokio::test]
async fn a_config_map_of_somebody_else_is_never_touched_and_named() {
    let cluster = Cluster::new(client().await).await;
    let theirs: ConfigMap = cluster
        .create(json!({"metadata": {"name": "shop-keys"}, "data": {"color": "green"}}))
        .await;
    let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
    leader.track(&cluster.chain);
    let state = leader
        .await_state(&cluster.chain, "a problem", |state| state.problem.is_some())
        .await;
    assert!(state.problem.as_ref().unwrap().contains("delete it"), "{state:?}");
    assert_eq!(cluster.config_map().await.unwrap(), theirs);
    assert!(!leader.keys.bundle_exists(&cluster.uid()));
}

#[tokio::test]
async fn a_chain_that_is_gone_is_written_nothing() {
    let shop = Shop::start().await;
    let chains = shop.cluster.api::<ServiceChain>();
    chains.delete("shop", &DeleteParams::default()).await.unwrap();
    let maps = shop.cluster.api::<ConfigMap>();
    maps.delete("shop-keys", &DeleteParams::default()).await.unwrap();
    shop.leader.keys.wake(&shop.cluster.uid());
    let comes_back = tokio::time::timeout(RunningPod::A_WHILE, async {
        while maps.get_opt("shop-keys").await.unwrap().is_none() {
            tokio::time::sleep(RunningPod::A_WHILE / 20).await;
        }
    });
    assert!(comes_back.await.is_err(), "a ConfigMap for a chain that is gone");
    shop.leader.keys.forget(&shop.cluster.uid());
    assert!(shop.leader.keys.state(&shop.cluster.uid()).is_none());
}
