//! The cluster that `cargo xtask up` makes, seen by what runs in it: names, volumes, the pod network, and a node that
//! goes and comes back.
#![cfg(test)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service};
use kube::api::{LogParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_e2e::cluster::{Cluster, fresh_namespace};
use servicechain_fixtures::await_condition;

/// Images are on the nodes already; what is waited for is the scheduler, the volume and the network.
const POD_DEADLINE: Duration = Duration::from_mins(2);
/// A node counts as lost about 50 s after its last sign of life.
const NODE_DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_pod_of_ours_starts_resolves_a_service_name_and_keeps_a_file_on_a_volume() {
    let test = Test::new().await;
    let node = format!("{}-worker", test.cluster.name);
    test.create_redis(&node).await;
    let claim = json!({
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    });
    test.api::<PersistentVolumeClaim>()
        .create(&PostParams::default(), &from(claim))
        .await
        .unwrap();

    let volume = json!({"name": "data", "persistentVolumeClaim": {"claimName": "kept"}});
    test.create_probe("writes", &node, &volume).await;
    test.await_phase("writes", "Succeeded").await;
    let log = test.log("writes").await;
    assert!(
        log.starts_with("redis:6379 is 10.96."),
        "the Service's own address is expected: {log}"
    );

    let mut reader = pod("reads", &node, test.cluster.image("redis").unwrap(), &volume);
    reader["spec"]["containers"][0]["command"] = json!(["cat", "/data/seen"]);
    test.create(reader).await;
    test.await_phase("reads", "Succeeded").await;
    assert_eq!(test.log("reads").await, log);
}

#[tokio::test]
async fn a_worker_that_was_stopped_and_started_is_reached_from_the_other_nodes_again() {
    let test = Test::new().await;
    let [near, far] = ["worker", "worker2"].map(|node| format!("{}-{node}", test.cluster.name));
    test.create_redis(&far).await;
    let scratch = json!({"name": "data", "emptyDir": {}});
    test.create_probe("before", &near, &scratch).await;
    test.await_phase("before", "Succeeded").await;

    test.cluster.docker(["stop", "--time", "5", &far]).await.unwrap();
    test.await_node(&far, "Unknown").await;
    test.cluster.docker(["start", &far]).await.unwrap();
    test.await_node(&far, "True").await;

    for (name, node) in [("from-another-node", &near), ("from-itself", &far)] {
        test.create_probe(name, node, &scratch).await;
        test.await_phase(name, "Succeeded").await;
    }
}

struct Test {
    cluster: Cluster,
    client: Client,
    namespace: String,
}

impl Test {
    async fn new() -> Self {
        let cluster = Cluster::from_environment().unwrap();
        let client = cluster.client().await.unwrap();
        let namespace = fresh_namespace(&client).await.unwrap();
        Self {
            cluster,
            client,
            namespace,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create(&self, pod: Value) {
        self.api::<Pod>()
            .create(&PostParams::default(), &from(pod))
            .await
            .unwrap();
    }

    /// Redis on `node`, ready, behind a Service of its name.
    async fn create_redis(&self, node: &str) {
        let volume = json!({"name": "data", "emptyDir": {}});
        let mut redis = pod("redis", node, self.cluster.image("redis").unwrap(), &volume);
        redis["metadata"]["labels"] = json!({"app": "redis"});
        redis["spec"]["restartPolicy"] = json!("Always");
        redis["spec"]["containers"][0]["readinessProbe"] =
            json!({"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 1});
        self.create(redis).await;
        let service = json!({
            "metadata": {"name": "redis"},
            "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]},
        });
        self.api::<Service>()
            .create(&PostParams::default(), &from(service))
            .await
            .unwrap();
        self.await_phase("redis", "Running").await;
    }

    /// A pod that succeeds once it has reached Redis by its name; it tries again until then.
    async fn create_probe(&self, name: &str, node: &str, volume: &Value) {
        let mut probe = pod(name, node, self.cluster.image("probe").unwrap(), volume);
        probe["spec"]["restartPolicy"] = json!("OnFailure");
        probe["spec"]["containers"][0]["args"] = json!(["redis:6379", "/data/seen"]);
        self.create(probe).await;
    }

    async fn await_phase(&self, pod: &str, phase: &str) {
        let pods = self.api::<Pod>();
        let what = format!("pod {pod} to be {phase}");
        let reached = await_condition(&what, POD_DEADLINE, async || {
            let status = pods
                .get(pod)
                .await
                .map_err(|error| error.to_string())?
                .status
                .unwrap_or_default();
            if status.phase.as_deref() == Some(phase) {
                return Ok(());
            }
            Err(serde_json::to_string(&status).unwrap_or_default())
        });
        reached.await.unwrap();
    }

    async fn await_node(&self, node: &str, ready: &str) {
        let nodes = Api::<Node>::all(self.client.clone());
        let what = format!("node {node} to have Ready={ready}");
        let reached = await_condition(&what, NODE_DEADLINE, async || {
            let status = nodes
                .get(node)
                .await
                .map_err(|error| error.to_string())?
                .status
                .unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let found = conditions
                .into_iter()
                .find(|condition| condition.type_ == "Ready")
                .map(|it| it.status);
            if found.as_deref() == Some(ready) {
                return Ok(());
            }
            Err(format!("Ready={found:?}"))
        });
        reached.await.unwrap();
    }

    async fn log(&self, pod: &str) -> String {
        self.api::<Pod>().logs(pod, &LogParams::default()).await.unwrap()
    }
}

/// A pod as our charts make them: not root, nothing writable but its volume, no capabilities.
fn pod(name: &str, node: &str, image: &str, volume: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [volume],
            "containers": [{
                "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}
