//! Two operators as real processes on a real API server: whatever happens to the first, one at a time writes, and no
//! generation of a bundle has two contents.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_crds::schema::{SCHEMA, SCHEMA_ANNOTATION};
use servicechain_e2e::cluster::{await_seen, fresh_namespace};
use servicechain_e2e::operator::{DEADLINE, World, Write, chain, create};
use servicechain_e2e::process::Process;

/// Longer than a lease lasts, and than anything waits for it.
const SLEEP: Duration = Duration::from_secs(30);

struct Pair {
    world: World,
    client: Client,
    namespace: String,
    folder: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Self {
        let world = World::start().await.unwrap();
        let client = world.client().await.unwrap();
        let namespace = fresh_namespace(&client).await.unwrap();
        create(&client, &chain(&namespace, &["a"]).unwrap())
            .await
            .unwrap();
        Self {
            world,
            client,
            namespace,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn start(&self, pod: &str) -> Process {
        let kubeconfig = format!("KUBECONFIG={}", self.world.server.kubeconfig().display());
        let namespace = self.namespace.as_str();
        let args = [
            kubeconfig.as_str(),
            env!("CARGO_BIN_EXE_operator_replica"),
            "--operator-namespace",
            namespace,
            "--watch-namespace",
            namespace,
            "--pod-name",
            pod,
            "--pod-ip",
            "127.0.0.1",
            "--gateway-image",
            "gateway:test",
            "--item-service-image",
            "item-service:test",
            "--token-issuer-image",
            "token-issuer:test",
            "--redis-image",
            "redis:test",
            "--postgres-images",
            "17=postgres:test",
            "--admin-port",
            "0",
            "--knock-port",
            "0",
            "--log-format",
            "human",
        ];
        Process::start(Path::new("/usr/bin/env"), &args, self.folder.path()).unwrap()
    }

    /// Waits until this one leads.
    async fn await_leader(&self, pod: &str, process: &Process) {
        let leases = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        let what = format!("{pod} to lead");
        let seen = await_seen(&what, DEADLINE, async || {
            let lease = leases
                .get_opt("servicechain-operator")
                .await
                .map_err(|error| error.to_string())?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            match holder {
                Some(holder) if holder.starts_with(&format!("{pod}_127.0.0.1:")) => Ok(()),
                holder => Err(format!("{holder:?} does")),
            }
        });
        if let Err(error) = seen.await {
            panic!("{error:#}\n{}", process.log());
        }
    }

    async fn await_gateway(&self, replicas: i32, process: &Process) {
        let api = Api::<Deployment>::namespaced(self.client.clone(), &self.namespace);
        let seen = await_seen("the gateway's replicas", DEADLINE, async || {
            let found = api
                .get_opt("shop-gateway")
                .await
                .map_err(|error| error.to_string())?;
            let now = found.and_then(|found| found.spec?.replicas);
            if now == Some(replicas) {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
        if let Err(error) = seen.await {
            panic!("{error:#}\n{}", process.log());
        }
    }

    async fn edit(&self, patch: Value) {
        let api = Api::<ServiceChain>::namespaced(self.client.clone(), &self.namespace);
        api.patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    async fn bundle(&self) -> Option<String> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        api.get_opt("shop-keys")
            .await
            .unwrap()?
            .data?
            .remove("bundle.jws")
    }

    /// Changes the policy, which is a new generation.
    async fn await_next_bundle(&self, skew: &str, process: &Process) {
        let before = self.bundle().await;
        self.edit(json!({"spec": {"tokenPolicy": {"clockSkew": skew}}}))
            .await;
        let seen = await_seen("another bundle", DEADLINE, async || {
            let now = self.bundle().await;
            if now.is_some() && now != before {
                Ok(())
            } else {
                Err("it is the same")
            }
        });
        if let Err(error) = seen.await {
            panic!("{error:#}\n{}", process.log());
        }
    }

    fn writes(&self) -> Vec<Write> {
        self.world.writes().unwrap()
    }
}

#[tokio::test]
async fn a_leader_that_slept_writes_nothing_any_more_and_no_generation_has_two_contents() {
    let pair = Pair::new().await;
    let first = pair.start("one");
    pair.await_leader("one", &first).await;
    pair.await_gateway(2, &first).await;
    pair.await_next_bundle("31s", &first).await;
    let second = pair.start("two");

    // It sleeps while there is something to do for whoever leads.
    let slept = tokio::time::Instant::now() + SLEEP;
    first.signal("STOP").unwrap();
    pair.edit(json!({"spec": {"gateway": {"replicas": 3}}})).await;
    pair.await_leader("two", &second).await;
    pair.await_gateway(3, &second).await;
    pair.await_next_bundle("32s", &second).await;
    // Most of it has passed with what was awaited.
    tokio::time::sleep_until(slept).await;
    first.signal("CONT").unwrap();
    await_seen("the first to end", DEADLINE, async || {
        let log = first.log();
        if log.contains("the lease could not be renewed") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await
    .unwrap();
    pair.edit(json!({"spec": {"gateway": {"replicas": 4}}})).await;
    pair.await_gateway(4, &second).await;
    pair.await_next_bundle("33s", &second).await;

    let writes = pair.writes();
    let last_of_first = writes.iter().rposition(|write| write.pod == "one").unwrap();
    let first_of_second = writes.iter().position(|write| write.pod == "two").unwrap();
    assert!(
        last_of_first < first_of_second,
        "{:?}",
        &writes[first_of_second..=last_of_first]
    );

    let mut contents: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for write in writes
        .iter()
        .filter(|write| write.resource == "configmaps" && write.code < 300)
    {
        if let Some(bundle) = write.sent["data"]["bundle.jws"].as_str() {
            contents
                .entry(generation(bundle))
                .or_default()
                .insert(bundle.to_owned());
        }
    }
    assert!(contents.len() >= 4, "{:?}", contents.keys());
    assert!(
        contents.values().all(|bundles| bundles.len() == 1),
        "two contents of one generation"
    );
    println!("{} generations, each with one content", contents.len());
}

#[tokio::test]
async fn an_operator_that_is_told_to_end_hands_over_at_once() {
    let pair = Pair::new().await;
    let first = pair.start("one");
    pair.await_leader("one", &first).await;
    let second = pair.start("two");
    pair.await_gateway(2, &first).await;
    first.signal("TERM").unwrap();
    pair.await_leader("two", &second).await;
    assert!(first.log().contains("the lease is released"), "{}", first.log());
    pair.edit(json!({"spec": {"gateway": {"replicas": 3}}})).await;
    pair.await_gateway(3, &second).await;
}

#[tokio::test]
async fn an_operator_writes_nothing_and_leads_nobody_while_the_crds_are_older_than_it() {
    let pair = Pair::new().await;
    let crds = Api::<CustomResourceDefinition>::all(pair.client.clone());
    let set = async |schema: u32| {
        let patch = json!({"metadata": {"annotations": {SCHEMA_ANNOTATION: schema.to_string()}}});
        let name = "servicechains.servicechain.dev";
        crds.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    };
    set(SCHEMA - 1).await;
    let operator = pair.start("one");
    await_seen("the operator to refuse", DEADLINE, async || {
        let log = operator.log();
        let refuses = log.matches("upgrade the chart servicechain-crds").count() >= 2;
        if refuses { Ok(()) } else { Err(log) }
    })
    .await
    .unwrap();
    let leases = Api::<Lease>::namespaced(pair.client.clone(), &pair.namespace);
    assert!(leases.get_opt("servicechain-operator").await.unwrap().is_none());
    assert!(pair.writes().is_empty(), "{:?}", pair.writes());
    set(SCHEMA).await;
    pair.await_gateway(2, &operator).await;
}

/// What the header of a bundle says (key protocol, line 5).
fn generation(bundle: &str) -> u64 {
    let header = bundle.split('.').next().unwrap();
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["gen"].as_u64().unwrap()
}
