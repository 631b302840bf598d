//! What an operator that looks after everybody's chains bears from one who may write in a namespace of his own.
#![cfg(test)]

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, ServiceAccount};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use servicechain_e2e::cluster::fresh_namespace;
use servicechain_e2e::operator::{Operator, World, chain, create};

const MAPS: u64 = 64;
/// Close to the most that an object may hold.
const BYTES: usize = 1_000_000;

/// The most memory that this process, and so an operator in it, ever had, in bytes.
fn most_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("VmHWM in /proc/self/status")?.trim().parse()?;
    Ok(kibibytes << 10)
}

#[tokio::test]
async fn what_somebody_labels_as_the_chains_own_is_not_taken_into_memory() {
    let world = World::start().await.unwrap();
    let client = world.client().await.unwrap();
    let namespace = fresh_namespace(&client).await.unwrap();
    let chain = create(&client, &chain(&namespace, &["a"]).unwrap())
        .await
        .unwrap();
    let pass = async || {
        let client = world.operator_client("operator").await.unwrap();
        let operator = Operator::start(client.clone(), &namespace).await.unwrap();
        operator.await_pass(&client, &chain).await.unwrap();
        operator.end().await;
    };
    pass().await;
    let labels: BTreeMap<_, _> = [("servicechain.dev/chain".to_owned(), "shop".to_owned())].into();
    let metadata = |number| ObjectMeta {
        name: Some(format!("flood-{number}")),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    };
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let accounts = Api::<ServiceAccount>::namespaced(client, &namespace);
    for number in 0..MAPS {
        let map = ConfigMap {
            metadata: metadata(number),
            data: Some(BTreeMap::from([("x".to_owned(), "x".repeat(BYTES))])),
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await.unwrap();
        let account = ServiceAccount {
            metadata: metadata(number),
            image_pull_secrets: Some(vec![LocalObjectReference {
                name: "x".repeat(BYTES),
            }]),
            ..ServiceAccount::default()
        };
        accounts.create(&PostParams::default(), &account).await.unwrap();
    }
    let before = most_memory().unwrap();
    pass().await;
    let taken = most_memory().unwrap() - before;
    let all = MAPS * BYTES as u64;
    assert!(
        taken < all / 2,
        "{} MB, for ConfigMaps and as many ServiceAccounts of {} MB",
        taken / 1_000_000,
        all / 1_000_000
    );
}
