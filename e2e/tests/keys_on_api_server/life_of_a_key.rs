//! From the first bundle and the roots of trust to keys that sign, rotate, are revoked, and are refused.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster::{await_seen, fresh_namespace};
use servicechain_fixtures::await_condition;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{Digest, Generation, RevocationKind};
use servicechain_operator::key_controller::{FIELD_MANAGER, Missing, OperatorRoots, ROTATE_ANNOTATION};
use servicechain_operator::lease::LeaseState;

use crate::leader::{DEADLINE, Leader};
use crate::pods::{Cluster, ISSUER, SERVICE};
use crate::{Shop, client, kid};

#[tokio::test]
async fn the_first_bundle_comes_before_any_pod_and_a_key_signs_once_every_pod_holds_it() {
    let cluster = Cluster::new(client().await).await;
    let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
    assert!(!leader.keys.bundle_exists(&cluster.uid()));
    leader.track(&cluster.chain);
    let first = leader
        .await_state(&cluster.chain, "the first bundle", |state| state.in_sync)
        .await;
    assert!(leader.keys.bundle_exists(&cluster.uid()));
    assert_eq!(first.newest.unwrap().0, Generation::new(1));
    assert!(first.entries.is_empty(), "there is nobody who could sign");
    let map = cluster.config_map().await.unwrap();
    let owners = map.metadata.owner_references.unwrap();
    assert_eq!(
        (owners.len(), &owners[0].uid, owners[0].controller),
        (1, &cluster.uid(), Some(true))
    );
    let managers = map.metadata.managed_fields.unwrap();
    assert!(
        managers
            .iter()
            .all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
    );

    let shop = Box::pin(Shop::fill(cluster, leader)).await;
    let state = shop.await_in_sync().await;
    assert_eq!(
        (state.acknowledged, state.laggards.len(), kid(&state).len()),
        (4, 0, 2)
    );
    let newest = state.newest.unwrap();
    let stored = shop.cluster.bundle().await.unwrap();
    assert_eq!(newest.1, Digest::of(stored.as_bytes()));
    for pod in &shop.pods {
        let held = pod.verifier.held().unwrap();
        assert_eq!((held.generation(), held.digest()), newest, "{}", pod.name);
        if let Some(keys) = &pod.signing_keys {
            await_condition("a key of its own that signs", DEADLINE, async || keys.can_sign())
                .await
                .unwrap();
        }
        let shown = state.pod(&pod.name).unwrap();
        assert!(shown.is_counted && shown.acknowledged, "{shown:?}");
    }
    assert!(shop.leader.health.stuck().is_empty());
}

#[tokio::test]
async fn revocations_and_orders_to_rotate_are_read_from_the_cluster() {
    let shop = Shop::start().await;
    let before = shop.await_in_sync().await;
    let first = before.newest.unwrap().0;
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let revoked = shop.await_generation("the revocation", first.next()).await;
    for pod in &shop.pods {
        let held = pod.verifier.held().unwrap();
        let kinds: Vec<_> = held.bundle().revocations.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [RevocationKind::Sub], "{}", pod.name);
    }
    let key = kid(&before)[0].clone();
    shop.revoke("key", json!({"key": key})).await;
    let gone = shop
        .leader
        .await_state(&shop.cluster.chain, "the key to go", |state| {
            state.in_sync && kid(state).len() == 2 && !kid(state).contains(&key)
        })
        .await;
    assert!(gone.newest > revoked.newest);

    let keys = kid(&gone);
    let newest = gone.entries.iter().map(|entry| entry.since).max().unwrap();
    let order = Timestamp::from_second(newest.as_seconds().cast_signed() + 1).unwrap();
    let patch = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: order.to_string()}}});
    let chains = shop.cluster.api::<ServiceChain>();
    let ordered = chains
        .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    shop.leader.track(&ordered);
    let rotated = await_seen("another key for each issuer pod", DEADLINE, async || {
        // Its time may not have come yet when it is first read.
        shop.leader.keys.wake(&shop.cluster.uid());
        let state = shop.leader.keys.state(&shop.cluster.uid()).unwrap();
        let active = kid(&state);
        let are_others = active.len() == 2 && keys.iter().all(|kid| !active.contains(kid));
        are_others.then_some(active.clone()).ok_or(format!("{active:?}"))
    });
    let rotated = rotated.await.unwrap();
    let state = shop.await_in_sync().await;
    assert_eq!(kid(&state), rotated, "an order is carried out once");
}

#[tokio::test]
async fn a_key_that_no_issuer_pod_of_the_chain_offers_is_refused() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let before = shop.await_in_sync().await;
    // It has the issuer's own key to answer with, and another's ReplicaSet.
    let gateways = shop
        .cluster
        .api::<ReplicaSet>()
        .get("shop-gateway")
        .await
        .unwrap();
    let impostor = shop
        .cluster
        .start("impostor", ISSUER, &gateways, &shop.leader)
        .await;
    let said = tokio::time::timeout(DEADLINE, async {
        loop {
            let event = events.recv().await.unwrap();
            if event.reason == "OfferRefused" {
                return event;
            }
        }
    });
    let said = said.await.expect("an event of the refused offer");
    assert!(said.is_warning && said.chain.name == "shop", "{said:?}");
    let state = shop.leader.await_in_sync(&shop.cluster.chain, 5).await;
    assert_eq!(kid(&state), kid(&before));
    assert!(impostor.signing_keys.as_ref().unwrap().can_sign().is_err());
    // Nor from one whose ReplicaSet only says that it is the issuer's.
    let labels = shop.issuers.metadata.labels.clone();
    let mut forged = shop.issuers.clone();
    forged.metadata = kube::api::ObjectMeta {
        name: Some("forged".to_owned()),
        labels,
        ..kube::api::ObjectMeta::default()
    };
    let forged = shop.cluster.create(serde_json::to_value(forged).unwrap()).await;
    let impostor = shop
        .cluster
        .start("impostor-2", ISSUER, &forged, &shop.leader)
        .await;
    let state = shop.leader.await_in_sync(&shop.cluster.chain, 6).await;
    assert_eq!(kid(&state), kid(&before));
    drop(impostor);
}

#[tokio::test]
async fn pods_that_do_not_answer_are_named() {
    let shop = Shop::start().await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let scheduled = shop.cluster.schedule("a-silent", SERVICE, &services).await;
    drop(scheduled);
    shop.cluster.say_running("a-silent").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let state = shop
        .leader
        .await_state(&shop.cluster.chain, "a laggard", |state| state.verifiers == 5)
        .await;
    let laggards: Vec<_> = state
        .laggards
        .iter()
        .map(|laggard| (laggard.name.as_str(), laggard.reason))
        .collect();
    assert_eq!(laggards, [("a-silent", LaggardReason::Unreachable)]);
    assert!(!state.in_sync && state.acknowledged == 4);
}

#[tokio::test]
async fn roots_are_made_once_and_never_replaced() {
    let cluster = Cluster::new(client().await).await;
    let namespace = fresh_namespace(&cluster.client).await.unwrap();
    let ensure = || OperatorRoots::ensure(&cluster.client, &namespace, Missing::MadeOnce(Some(&namespace)));
    let (one, other) = tokio::join!(ensure(), ensure());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.anchors(), other.anchors());
    assert_eq!(*one.secret.to_text(), *other.secret.to_text());
    let again = ensure().await.unwrap();
    assert_eq!(one.anchors(), again.anchors());

    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), &namespace);
    let broken = json!({"data": {"root-secret": "YnJva2Vu"}});
    let params = PatchParams::default();
    let broken = secrets
        .patch("servicechain-root-secret", &params, &Patch::Merge(&broken))
        .await
        .unwrap();
    let error = ensure().await.unwrap_err();
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
    let kept = secrets.get("servicechain-root-secret").await.unwrap();
    assert_eq!(kept.metadata.resource_version, broken.metadata.resource_version);
}

#[tokio::test]
async fn lost_roots_of_a_chain_that_has_keys_are_not_made_anew_without_an_order() {
    let cluster = Cluster::new(client().await).await;
    let namespace = cluster.namespace.as_str();
    let ensure = |missing| OperatorRoots::ensure(&cluster.client, namespace, missing);
    let made_once = Missing::MadeOnce(Some(namespace));
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), namespace);
    let lose = async |name| secrets.delete(name, &DeleteParams::default()).await.unwrap();
    lose("servicechain-trust-key").await;
    let before = ensure(made_once).await.unwrap();

    let keys = json!({"generation": 7, "digest": "sha256:", "acknowledged": 0, "verifiers": 0});
    let chains = Api::<ServiceChain>::namespaced(cluster.client.clone(), namespace);
    let said = Patch::Merge(json!({"status": {"keys": keys}}));
    chains
        .patch_status("shop", &PatchParams::default(), &said)
        .await
        .unwrap();
    assert_eq!(ensure(made_once).await.unwrap().anchors(), before.anchors());
    for name in ["servicechain-trust-key", "servicechain-root-secret"] {
        let kept = secrets.get(name).await.unwrap();
        lose(name).await;
        let refusal = ensure(made_once).await.unwrap_err().to_string();
        assert!(
            refusal.contains(name) && refusal.contains(&format!("chain {namespace}/shop has keys")),
            "{refusal}"
        );
        assert!(secrets.get_opt(name).await.unwrap().is_none());
        let mut restored = kept;
        restored.metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        secrets.create(&PostParams::default(), &restored).await.unwrap();
        assert_eq!(ensure(made_once).await.unwrap().anchors(), before.anchors());
    }
    lose("servicechain-trust-key").await;
    let after = ensure(Missing::MadeAnew).await.unwrap();
    assert_ne!(after.anchors(), before.anchors());
}
