//! The key controller on a real API server: bundles in a `ConfigMap`, pods by LIST, real verifiers behind their addresses.
#![cfg(test)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

mod leader;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_crds::{Revocation, ServiceChain};
use servicechain_e2e::cluster::{await_seen, fresh_namespace};
use servicechain_e2e::operator::World;
use servicechain_fixtures::await_condition;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{ChainId, Digest, Generation, HeldBundle, RevocationKind, Trust};
use servicechain_operator::clock;
use servicechain_operator::key_controller::{FIELD_MANAGER, KeyState, OperatorRoots, ROTATE_ANNOTATION};
use servicechain_operator::lease::{Candidate, LeaseState};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use leader::{DEADLINE, Leader};
use pods::{Cluster, GATEWAY, ISSUER, RunningPod, SERVICE};

/// One server for all tests of this file, each in a namespace of its own.
async fn client() -> Client {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    let world = WORLD.get_or_init(async || World::start().await.unwrap()).await;
    world.client().await.unwrap()
}

/// A chain with a gateway, a service and two issuer pods, all of which hold the newest keys.
struct Shop {
    cluster: Cluster,
    leader: Leader,
    pods: Vec<RunningPod>,
    issuers: ReplicaSet,
}

impl Shop {
    async fn start() -> Self {
        let cluster = Cluster::new(client().await).await;
        let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
        leader.keys.track(&cluster.chain);
        Self::fill(cluster, leader).await
    }

    async fn fill(cluster: Cluster, leader: Leader) -> Self {
        leader
            .await_state(&cluster.chain, "the first bundle", |state| state.newest.is_some())
            .await;
        let issuers = cluster.replica_set(ISSUER).await;
        let gateways = cluster.replica_set(GATEWAY).await;
        let services = cluster.replica_set(SERVICE).await;
        let pods = vec![
            cluster.start("gateway-1", GATEWAY, &gateways, &leader).await,
            cluster.start("a-1", SERVICE, &services, &leader).await,
            cluster.start("issuer-1", ISSUER, &issuers, &leader).await,
            cluster.start("issuer-2", ISSUER, &issuers, &leader).await,
        ];
        for pod in &pods {
            pod.await_confirmed().await;
        }
        leader.await_in_sync(&cluster.chain, 4).await;
        Self {
            cluster,
            leader,
            pods,
            issuers,
        }
    }

    async fn await_in_sync(&self) -> Arc<KeyState> {
        self.leader.await_in_sync(&self.cluster.chain, 4).await
    }

    async fn revoke(&self, name: &str, what: Value) {
        let mut spec = json!({"chainRef": {"name": "shop"}, "issuer": "platform"});
        spec.as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        let _: Revocation = self
            .cluster
            .create(json!({"apiVersion": "servicechain.dev/v1alpha1", "kind": "Revocation", "metadata": {"name": name}, "spec": spec}))
            .await;
        self.leader.keys.wake(&self.cluster.uid());
    }

    async fn await_generation(&self, what: &str, generation: Generation) -> Arc<KeyState> {
        self.leader
            .await_state(&self.cluster.chain, what, |state| {
                state.in_sync && state.newest.is_some_and(|(newest, _)| newest >= generation)
            })
            .await
    }

    /// As somebody who may write it, and is not the operator.
    async fn overwrite(&self, change: impl Fn(&mut ConfigMap)) {
        let api = self.cluster.api::<ConfigMap>();
        let mut map = self.cluster.config_map().await.unwrap();
        map.metadata.resource_version = None;
        change(&mut map);
        api.replace("shop-keys", &PostParams::default(), &map)
            .await
            .unwrap();
        self.leader.keys.wake(&self.cluster.uid());
    }
}

fn kid(state: &KeyState) -> Vec<String> {
    let active = state
        .entries
        .iter()
        .filter(|entry| entry.state == servicechain_keys::KeyState::Active);
    active.filter_map(|entry| entry.kid.clone()).collect()
}

#[tokio::test]
async fn the_first_bundle_comes_before_any_pod_and_a_key_signs_once_every_pod_holds_it() {
    let cluster = Cluster::new(client().await).await;
    let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
    assert!(!leader.keys.bundle_exists(&cluster.uid()));
    leader.keys.track(&cluster.chain);
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

    let shop = Shop::fill(cluster, leader).await;
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
    next.keys.track(chain);
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
async fn a_config_map_of_somebody_else_is_never_touched_and_named() {
    let cluster = Cluster::new(client().await).await;
    let theirs: ConfigMap = cluster
        .create(json!({"metadata": {"name": "shop-keys"}, "data": {"color": "green"}}))
        .await;
    let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
    leader.keys.track(&cluster.chain);
    let state = leader
        .await_state(&cluster.chain, "a problem", |state| state.problem.is_some())
        .await;
    assert!(state.problem.as_ref().unwrap().contains("delete it"), "{state:?}");
    assert_eq!(cluster.config_map().await.unwrap(), theirs);
    assert!(!leader.keys.bundle_exists(&cluster.uid()));
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
    shop.leader.keys.track(&ordered);
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
async fn a_knock_is_answered_only_for_a_pod_that_the_api_server_shows_as_running() {
    let shop = Shop::start().await;
    let gateways = shop
        .cluster
        .api::<ReplicaSet>()
        .get("shop-gateway")
        .await
        .unwrap();
    let scheduled = shop.cluster.schedule("gateway-2", GATEWAY, &gateways).await;
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    shop.cluster.say("gateway-2", "Pending", waiting, false).await;
    let pod = shop.cluster.run(scheduled, &shop.leader).await;
    let too_early = tokio::time::timeout(RunningPod::A_WHILE, pod.verifier.ready()).await;
    assert!(too_early.is_err(), "confirmed, and left out of Have");
    shop.cluster.say_running("gateway-2").await;
    pod.await_confirmed().await;
    let state = shop.leader.await_in_sync(&shop.cluster.chain, 5).await;
    assert!(state.pod("gateway-2").unwrap().acknowledged);

    shop.cluster.delete_pod(pod).await;
    shop.leader.keys.wake(&shop.cluster.uid());
    shop.await_in_sync().await;
}

#[tokio::test]
async fn a_pod_whose_file_is_stale_is_told_the_newest_when_it_knocks() {
    let shop = Shop::start().await;
    let stale = shop.cluster.folder.path().join("stale.jws");
    std::fs::write(&stale, shop.cluster.bundle().await.unwrap()).unwrap();
    let before = shop.await_in_sync().await.newest.unwrap().0;
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let newest = shop
        .await_generation("the revocation", before.next())
        .await
        .newest
        .unwrap()
        .0;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let scheduled = shop.cluster.schedule("a-2", SERVICE, &services).await;
    shop.cluster.say_running("a-2").await;
    let address = shop.leader.knock_address;
    let pod = shop.cluster.run_with(scheduled, address, Some(stale)).await;
    pod.await_confirmed().await;
    assert!(pod.verifier.generation() >= newest);
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
async fn two_leaders_at_once_give_one_generation_one_content() {
    const GENERATIONS: usize = 20;
    let cluster = Cluster::new(client().await).await;
    let seen = record(&cluster);
    let [one, other] = [
        Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await,
        Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await,
    ];
    one.keys.track(&cluster.chain);
    other.keys.track(&cluster.chain);
    let shop = Shop::fill(cluster, one).await;
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

#[tokio::test]
async fn whoever_does_not_lead_names_the_leader() {
    let shop = Shop::start().await;
    let Cluster {
        client,
        namespace,
        roots,
        ..
    } = &shop.cluster;
    let [leads, waits] = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let candidate = |name: &str, listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        Candidate::new(
            client.clone(),
            namespace,
            "operator",
            name,
            address,
            clock::system(),
        )
    };
    let (mut first, mut second) = (candidate("operator-1", &leads), candidate("operator-2", &waits));
    first.acquire().await;
    let waiting = second.state();
    let task = tokio::spawn(async move { second.acquire().await });
    await_condition("the second to know the first", DEADLINE, async || {
        waiting.leader_address().ok_or("it does not")
    })
    .await
    .unwrap();
    let leader = Leader::on(leads, client, roots, first.state());
    let standby = Leader::on(waits, client, roots, waiting);
    leader.keys.track(&shop.cluster.chain);

    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let pod = shop.cluster.start("a-2", SERVICE, &services, &standby).await;
    pod.await_confirmed().await;
    assert!(standby.keys.state(&shop.cluster.uid()).is_none());
    task.abort();
}

#[tokio::test]
async fn a_leader_that_is_not_surely_one_any_more_answers_no_knock() {
    let shop = Shop::start().await;
    let lost = LeaseState::default();
    let was = Leader::start(&shop.cluster.client, &shop.cluster.roots, lost).await;
    was.keys.track(&shop.cluster.chain);
    was.await_in_sync(&shop.cluster.chain, 4).await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let pod = shop.cluster.start("a-2", SERVICE, &services, &was).await;
    let ready = tokio::time::timeout(RunningPod::A_WHILE, pod.verifier.ready()).await;
    assert!(ready.is_err(), "confirmed by somebody who may not lead");
}

#[tokio::test]
async fn a_chain_that_starts_as_a_whole_is_confirmed_as_a_whole() {
    const PODS: usize = 30;
    let shop = Shop::start().await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let mut scheduled = Vec::new();
    for number in 0..PODS {
        let name = format!("burst-{number}");
        scheduled.push(shop.cluster.schedule(&name, SERVICE, &services).await);
        shop.cluster.say_running(&name).await;
    }
    let started = std::time::Instant::now();
    let starts = scheduled
        .into_iter()
        .map(|pod| shop.cluster.run(pod, &shop.leader));
    let pods = futures_util::future::join_all(starts).await;
    let confirmed = pods.iter().map(RunningPod::await_confirmed);
    futures_util::future::join_all(confirmed).await;
    println!(
        "{PODS} pods that started at once were confirmed in {:?}",
        started.elapsed()
    );
    shop.leader.await_in_sync(&shop.cluster.chain, 4 + PODS).await;
}

#[tokio::test]
async fn roots_are_made_once_and_never_replaced() {
    let cluster = Cluster::new(client().await).await;
    let namespace = fresh_namespace(&cluster.client).await.unwrap();
    let ensure = || OperatorRoots::ensure(&cluster.client, &namespace);
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
