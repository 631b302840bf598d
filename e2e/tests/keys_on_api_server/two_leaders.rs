//! Two operators that both take themselves for the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use servicechain_crds::Revocation;
use servicechain_e2e::cluster::await_seen;
use servicechain_keys::{ChainId, Digest, HeldBundle, Trust};
use servicechain_operator::lease::LeaseState;

use crate::leader::{DEADLINE, Leader};
use crate::pods::Cluster;
use crate::{Shop, client};

#[tokio::test]
async fn two_leaders_at_once_give_one_generation_one_content() {
    const GENERATIONS: usize = 20;
    let cluster = Cluster::new(client().await).await;
    let seen = record(&cluster);
    let [one, other] = [
        Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await,
        Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await,
    ];
    one.track(&cluster.chain);
    other.track(&cluster.chain);
    let shop = Box::pin(Shop::fill(cluster, one)).await;
    // Each comes and goes, so that of two rounds that overlap one may read what the other does not.
    let revocations = shop.cluster.api::<Revocation>();
    let mut made = 0;
    while generations(&seen) < GENERATIONS {
        assert!(made < 1000, "{} generations only", generations(&seen));
        let name = format!("user-{made}");
        shop.revoke(&name, json!({"subject": name})).await;
        other.keys.wake(&shop.cluster.uid());
        if made > 0 {
            let before = format!("user-{}", made - 1);
            revocations
                .delete(&before, &DeleteParams::default())
                .await
                .unwrap();
        }
        made += 1;
    }
    let agree = await_seen("both to agree on the last revocation", DEADLINE, async || {
        let [one, two] = [&shop.leader, &other].map(|leader| leader.keys.state(&shop.cluster.uid()).unwrap());
        let bundle = shop.cluster.bundle().await.unwrap();
        let held = shop.pods[0].verifier.held().unwrap();
        let is_last = held.bundle().revocations.len() == 1 && held.digest() == Digest::of(bundle.as_bytes());
        let agree = one.in_sync && two.in_sync && one.newest == two.newest;
        for keys in [&shop.leader.keys, &other.keys] {
            keys.wake(&shop.cluster.uid());
        }
        (is_last && agree)
            .then_some(())
            .ok_or(format!("{one:?}, {two:?}"))
    });
    agree.await.unwrap();
    for (generation, contents) in seen.lock().unwrap().iter() {
        assert_eq!(contents.len(), 1, "generation {generation} has {contents:?}");
    }
}

fn generations(seen: &Mutex<BTreeMap<u64, BTreeSet<Digest>>>) -> usize {
    seen.lock().unwrap().len()
}

/// Every content that the `ConfigMap` ever had, by generation.
fn record(cluster: &Cluster) -> Arc<Mutex<BTreeMap<u64, BTreeSet<Digest>>>> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let recorded = Arc::clone(&seen);
    let trust = Trust::new(ChainId::new(cluster.uid()).unwrap(), cluster.roots.anchors());
    let config = watcher::Config::default().fields("metadata.name=shop-keys");
    let watch = watcher(cluster.api::<ConfigMap>(), config).applied_objects();
    tokio::spawn(async move {
        let mut watch = std::pin::pin!(watch);
        while let Some(map) = watch.next().await {
            let bundle = map.unwrap().data.unwrap().remove("bundle.jws").unwrap();
            let held = HeldBundle::open(bundle.as_bytes(), &trust).unwrap();
            let mut seen = recorded.lock().unwrap();
            let contents: &mut BTreeSet<Digest> = seen.entry(held.generation().number()).or_default();
            contents.insert(held.digest());
        }
    });
    seen
}
