//! The key controller on a real API server: bundles in a `ConfigMap`, pods by LIST, real verifiers behind their addresses.
#![cfg(test)]

mod config_map;
mod foreign;
mod hostile;
mod knocks;
mod leader;
mod liar;
mod life_of_a_key;
mod pods;
mod revocations;
mod trust_rotation;
mod two_leaders;
mod verbs;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::PostParams;
use serde_json::{Value, json};
use servicechain_crds::Revocation;
use servicechain_e2e::operator::World;
use servicechain_keys::Generation;
use servicechain_operator::key_controller::KeyState;
use servicechain_operator::lease::LeaseState;
use tokio::sync::OnceCell;

use leader::Leader;
use pods::{Cluster, GATEWAY, ISSUER, RunningPod, SERVICE};

/// One server for all tests of this file, each in a namespace of its own.
async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD.get_or_init(async || World::start().await.unwrap()).await
}

async fn client() -> Client {
    world().await.client().await.unwrap()
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
        leader.track(&cluster.chain);
        Box::pin(Self::fill(cluster, leader)).await
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
