//! The trust key is replaced by order, step by step, with a new leader between any two of them.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster::await_seen;
use servicechain_keys::{BundleRefusal, ChainId, Generation, HeldBundle, Trust, TrustAnchor};
use servicechain_operator::clock;
use servicechain_operator::controller::accepted;
use servicechain_operator::key_controller::trust_secret::{
    ROTATE_ANNOTATION, STANDING_ANNOTATION, TRUST_KEY_SECRET,
};
use servicechain_operator::key_controller::{Missing, OperatorRoots, TrustRotation};
use servicechain_operator::lease::LeaseState;
use tokio::task::AbortHandle;

use crate::Shop;
use crate::leader::{DEADLINE, Leader};
use crate::liar::push;
use crate::pods::{Cluster, GATEWAY, ISSUER, SERVICE};

/// What looks after the trust key, until it is dropped.
struct Rotating(AbortHandle);

impl Rotating {
    async fn start(cluster: &Cluster, leader: &Leader) -> Self {
        let rotation = TrustRotation::new(
            cluster.client.clone(),
            cluster.namespace.clone(),
            Some(cluster.namespace.clone()),
            leader.keys.clone(),
            clock::system(),
        );
        rotation.catch_up().await;
        Self(tokio::spawn(rotation.run()).abort_handle())
    }
}

impl Drop for Rotating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// As one process ends and another begins, which knew the roots before anything changed.
async fn succeed(shop: &mut Shop, stale: &OperatorRoots, rotating: Rotating) -> Rotating {
    drop(rotating);
    shop.leader.keys.end().await;
    let fresh = shop.read_roots().await;
    let leader = Leader::start(&shop.cluster.client, stale, LeaseState::always_held()).await;
    let rotating = Rotating::start(&shop.cluster, &leader).await;
    assert_eq!(stale.anchors(), fresh.anchors(), "a leader reads them again");
    shop.cluster.roots = stale.clone();
    leader.track(&shop.cluster.chain);
    shop.leader = leader;
    rotating
}

impl Shop {
    async fn read_roots(&self) -> OperatorRoots {
        let namespace = &self.cluster.namespace;
        let missing = Missing::MadeOnce(Some(namespace));
        OperatorRoots::ensure(&self.cluster.client, namespace, missing)
            .await
            .unwrap()
    }
}

async fn secret(cluster: &Cluster) -> Secret {
    cluster.api::<Secret>().get(TRUST_KEY_SECRET).await.unwrap()
}

async fn await_standing(cluster: &Cluster, wanted: &str) -> Secret {
    let said = await_seen(wanted, DEADLINE, async || {
        let secret = secret(cluster).await;
        let says = secret.annotations().get(STANDING_ANNOTATION).cloned();
        let is_said = says.as_ref().is_some_and(|says| says.contains(wanted));
        is_said.then_some(secret).ok_or(format!("{says:?}"))
    });
    said.await.unwrap()
}

async fn signed_by(cluster: &Cluster, chain: &ServiceChain, anchors: &[TrustAnchor]) -> String {
    let trust = Trust::new(ChainId::new(chain.uid().unwrap()).unwrap(), anchors.to_vec());
    let map = cluster
        .api::<ConfigMap>()
        .get(&format!("{}-keys", chain.name_any()))
        .await
        .unwrap();
    let bundle = map.data.unwrap()["bundle.jws"].clone();
    let held = HeldBundle::open(bundle.as_bytes(), &trust).unwrap();
    held.signed_by().to_owned()
}

/// A second chain in the same namespace, without pods.
async fn second_chain(shop: &Shop) -> ServiceChain {
    let mut spec = serde_json::to_value(&shop.cluster.chain.spec).unwrap();
    spec["paused"] = json!(false);
    let chain: ServiceChain = shop
        .cluster
        .create(json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "alone"},
            "spec": spec,
        }))
        .await;
    let kept = accepted::keep(&chain, &shop.cluster.roots.secret);
    let _: ConfigMap = shop.cluster.create(serde_json::to_value(kept).unwrap()).await;
    shop.leader.track(&chain);
    let made = |state: &servicechain_operator::key_controller::KeyState| state.newest.is_some();
    shop.leader.await_state(&chain, "its first bundle", made).await;
    chain
}

#[tokio::test]
async fn the_trust_key_is_replaced_by_order_whoever_leads_and_old_bundles_are_refused_then() {
    let mut shop = Box::pin(Shop::start()).await;
    let alone = second_chain(&shop).await;
    // As other replicas read them when they began.
    let (one, other) = (shop.read_roots().await, shop.read_roots().await);
    let rotating = Rotating::start(&shop.cluster, &shop.leader).await;
    let first = shop.cluster.roots.anchors();
    assert_eq!(first.len(), 1);
    let old_bundle = shop.cluster.bundle().await.unwrap();

    let order = jiff::Timestamp::now().to_string();
    let order = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: order}}});
    let secrets: Api<Secret> = shop.cluster.api();
    let params = PatchParams::default();
    secrets
        .patch(TRUST_KEY_SECRET, &params, &Patch::Merge(&order))
        .await
        .unwrap();
    await_standing(&shop.cluster, "chain ").await;
    let both = shop.cluster.roots.anchors();
    assert_eq!((both.len(), &both[0]), (2, &first[0]));

    // A crash after the next key was made: whoever leads next had read the Secret before.
    let rotating = succeed(&mut shop, &one, rotating).await;
    shop.leader.track(&alone);
    assert_eq!(shop.cluster.roots.anchors(), both);
    // A chain without verifiers goes on by itself, and waits for nobody.
    let switched = |kid: String| {
        move |state: &servicechain_operator::key_controller::KeyState| state.signed_by.as_ref() == Some(&kid)
    };
    let next = both[1].kid().to_owned();
    shop.leader
        .await_state(&alone, "the next key's signature", switched(next.clone()))
        .await;
    await_standing(
        &shop.cluster,
        &format!(
            "chain {}/shop: not all of its verifiers know the next key",
            shop.cluster.namespace
        ),
    )
    .await;

    // Its pods are replaced, as a rollout does. Until the last is gone, the first key signs.
    let issuers = shop.issuers.clone();
    let gateways = shop.cluster.api().get("shop-gateway").await.unwrap();
    let services = shop.cluster.api().get("shop-a").await.unwrap();
    for (name, component, controller) in [
        ("issuer-3", ISSUER, &issuers),
        ("issuer-4", ISSUER, &issuers),
        ("a-2", SERVICE, &services),
        ("gateway-2", GATEWAY, &gateways),
    ] {
        assert_eq!(
            signed_by(&shop.cluster, &shop.cluster.chain, &both).await,
            first[0].kid()
        );
        let old = shop.pods.remove(
            match component {
                ISSUER => shop.pods.iter().position(|pod| pod.name.starts_with("issuer")),
                SERVICE => shop.pods.iter().position(|pod| pod.name.starts_with("a-")),
                _ => shop.pods.iter().position(|pod| pod.name.starts_with("gateway")),
            }
            .unwrap(),
        );
        let new = shop
            .cluster
            .start(name, component, controller, &shop.leader)
            .await;
        new.await_confirmed().await;
        shop.cluster.delete_pod(old).await;
        shop.leader.keys.wake(&shop.cluster.uid());
        shop.pods.push(new);
    }
    let chain = shop.cluster.chain.clone();
    shop.leader
        .await_state(&chain, "the next key's signature", switched(next.clone()))
        .await;
    // A crash between the switch and the end.
    let rotating = succeed(&mut shop, &other, rotating).await;
    shop.leader.track(&alone);
    let done = await_standing(&shop.cluster, &format!("done: trust key {next} signs alone")).await;
    assert!(!done.data.unwrap().contains_key("next.key"));
    await_seen("one anchor", DEADLINE, async || {
        let anchors = shop.cluster.roots.anchors();
        (anchors == both[1..]).then_some(()).ok_or(format!("{anchors:?}"))
    })
    .await
    .unwrap();
    let after = shop.await_in_sync().await;
    assert_eq!(after.signed_by.as_ref(), Some(&next));
    for pod in &shop.pods {
        assert_eq!(pod.verifier.held().unwrap().signed_by(), next, "{}", pod.name);
    }

    // With one anchor a verifier knows the old key no more.
    let last = shop.cluster.start("a-3", SERVICE, &services, &shop.leader).await;
    last.await_confirmed().await;
    assert_eq!(push(&last, &old_bundle).await.status, http::StatusCode::CONFLICT);
    shop.leader.keys.wake(&shop.cluster.uid());
    shop.leader
        .await_state(&shop.cluster.chain, "the refusal", |state| {
            let pod = state.pod("a-3");
            pod.is_some_and(|pod| pod.refused.contains(&BundleRefusal::Anchor))
        })
        .await;
    // The order was carried out once.
    let kept = secret(&shop.cluster).await;
    assert!(!kept.data.unwrap().contains_key("next.key"));
    drop(rotating);
}

#[tokio::test]
async fn by_order_a_chain_begins_anew_although_none_of_its_pods_is_believed() {
    let shop = Box::pin(Shop::start()).await;
    let old = shop.await_in_sync().await;
    shop.leader.keys.end().await;
    let secrets: Api<Secret> = shop.cluster.api();
    for name in [TRUST_KEY_SECRET, "servicechain-root-secret"] {
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let client = &shop.cluster.client;
    let anew = OperatorRoots::ensure(client, &shop.cluster.namespace, Missing::MadeAnew);
    let anew = anew.await.unwrap();
    // As a pass keeps it under the new root secret.
    let kept = accepted::keep(&shop.cluster.chain, &anew.secret);
    let maps: Api<ConfigMap> = shop.cluster.api();
    let name = kept.metadata.name.clone().unwrap();
    maps.replace(&name, &PostParams::default(), &kept).await.unwrap();
    let leader = Leader::start(client, &anew, LeaseState::always_held()).await;
    leader.track(&shop.cluster.chain);
    let begun = leader
        .await_state(&shop.cluster.chain, "a bundle by the new key", |state| {
            state.newest.is_some() && state.laggards.len() == 4
        })
        .await;
    assert_eq!(begun.newest.unwrap().0, Generation::new(1));
    assert_ne!(begun.signed_by, old.signed_by);
    assert!(
        begun
            .laggards
            .iter()
            .all(|laggard| laggard.word() == "NotAuthentic")
    );
    assert_eq!(
        signed_by(&shop.cluster, &shop.cluster.chain, &anew.anchors()).await,
        anew.anchors()[0].kid()
    );
    assert!(
        leader.keys.bundle_exists(&shop.cluster.uid()),
        "templates wait for it"
    );
}
