//! A chain on a cluster as the API server shows it: the example, with all its pods ready, for tests to break.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::{ServiceChainStatus, ServiceStatus};
use servicechain_keys::{Digest, Generation, KeyState as StateOfKey, NumericDate, PodId, Workload};
use servicechain_operator::config::{Images, Settings};
use servicechain_operator::controller::accepted::{Accepted, judge};
use servicechain_operator::controller::observed::Observed;
use servicechain_operator::controller::rollout::Held;
use servicechain_operator::controller::status::{Pass, status};
use servicechain_operator::key_controller::external::FetchRules;
use servicechain_operator::key_controller::state::KeyEntry;
use servicechain_operator::key_controller::{KeyState, PodKeys};
use servicechain_operator::object_names::{Component, components, object, store_secret};

pub(crate) struct World {
    pub(crate) chain: ServiceChain,
    pub(crate) accepted: Accepted,
    pub(crate) observed: Observed,
    pub(crate) keys: Option<KeyState>,
    pub(crate) held: Vec<Held>,
    pub(crate) settings: Settings,
}

pub(crate) fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl World {
    /// Everything is as it should be.
    pub(crate) fn ready() -> Self {
        Self::of(json!({}))
    }

    /// The example, with some of its `spec` replaced.
    pub(crate) fn of(spec: Value) -> Self {
        let store = json!({"managed": {}});
        let service = |name| json!({"name": name, "database": store, "cache": store});
        let mut document = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop", "uid": "0c9b", "generation": 3},
            "spec": {
                "audiences": ["shop"],
                "issuers": [{"name": "platform", "managed": {"clients": [{"id": "demo"}]}}],
                "gateway": {
                    "service": {"type": "NodePort", "nodePort": 30080},
                    "routes": [{"name": "items", "service": "a"}],
                },
                "services": [service("a"), service("b"), service("c")],
            },
        });
        merge(&mut document["spec"], spec);
        let chain: ServiceChain = read(document);
        let accepted = judge(&chain, None);
        let validated = accepted.chain().unwrap().clone();
        let mut observed = Observed::default();
        let mut verifiers = 0;
        for component in components(&validated) {
            let name = object(&validated.name, component);
            if let Component::Database { .. } = component {
                observed.claims.push(claim(&name));
                let secret = store_secret(&validated.name, component);
                observed.secrets.insert(secret, ["password".to_owned()].into());
            }
            match component {
                Component::Database { .. } | Component::Cache { .. } => {
                    observed
                        .stateful_sets
                        .push(stateful_set(&name, &component.label()));
                    observed.pods.push(pod(
                        &format!("{name}-0"),
                        &component.label(),
                        &format!("{name}-sts"),
                    ));
                }
                _ => {
                    observed.deployments.push(deployment(&name, &component.label()));
                    observed
                        .replica_sets
                        .push(replica_set(&format!("{name}-7d9f"), &name, 1));
                    for suffix in ["x1", "x2"] {
                        let pod = pod(
                            &format!("{name}-7d9f-{suffix}"),
                            &component.label(),
                            &format!("{name}-7d9f"),
                        );
                        observed.pods.push(pod);
                        verifiers += 1;
                    }
                }
            }
        }
        Self {
            accepted,
            observed,
            keys: Some(keys(verifiers)),
            held: Vec::new(),
            settings: settings(),
            chain,
        }
    }

    pub(crate) fn judged_at(&self, now: Timestamp) -> ServiceChainStatus {
        let pass = Pass {
            accepted: &self.accepted,
            applied: None,
            observed: &self.observed,
            keys: self.keys.as_ref(),
            held: &self.held,
            settings: &self.settings,
        };
        let status = status(&self.chain, &pass, now);
        assert_in_bounds(&self.chain, &status);
        status
    }

    pub(crate) fn judged(&self) -> Judged {
        Judged(self.judged_at(at("2026-01-01T00:00:00Z")))
    }

    pub(crate) fn deployment(&mut self, name: &str) -> &mut Deployment {
        let mut all = self.observed.deployments.iter_mut();
        all.find(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    pub(crate) fn stateful_set(&mut self, name: &str) -> &mut StatefulSet {
        let mut all = self.observed.stateful_sets.iter_mut();
        all.find(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    pub(crate) fn pod(&mut self, name: &str) -> &mut Pod {
        let mut all = self.observed.pods.iter_mut();
        all.find(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    pub(crate) fn claim(&mut self, name: &str) -> &mut PersistentVolumeClaim {
        let mut all = self.observed.claims.iter_mut();
        all.find(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    /// The pod is not ready: what kubelet says of its only container.
    pub(crate) fn container(&mut self, pod: &str, status: Value) {
        let mut container = json!({
            "name": "main", "image": "registry.example/b:4", "imageID": "", "ready": false, "restartCount": 0,
            "started": false, "state": {},
        });
        merge(&mut container, status);
        let pod = self.pod(pod);
        pod.status = Some(read(json!({
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            ],
            "containerStatuses": [container],
        })));
    }

    /// Of a Deployment, or else of a `StatefulSet`.
    pub(crate) fn counts(&mut self, name: &str, counts: Value) {
        let deployment = self
            .observed
            .deployments
            .iter_mut()
            .find(|one| one.metadata.name.as_deref() == Some(name));
        if let Some(deployment) = deployment {
            let mut status = serde_json::to_value(&deployment.status).unwrap();
            merge(&mut status, counts);
            deployment.status = read(status);
        } else {
            let set = self.stateful_set(name);
            let mut status = serde_json::to_value(&set.status).unwrap();
            merge(&mut status, counts);
            set.status = read(status);
        }
    }

    pub(crate) fn event(&mut self, uid: &str, reason: &str, message: &str) {
        self.observed.events.push(event(uid, reason, message));
    }
}

/// A status, with what tests ask of it.
pub(crate) struct Judged(pub(crate) ServiceChainStatus);

impl Judged {
    /// Status, reason and message of a condition.
    pub(crate) fn says(&self, kind: &str) -> (&str, &str, &str) {
        let condition = self.0.conditions.iter().find(|one| one.type_ == kind);
        let condition = condition.unwrap_or_else(|| panic!("no condition {kind}"));
        (&condition.status, &condition.reason, &condition.message)
    }

    /// Nothing but this is wrong, and the sentence stands where people look for it.
    #[track_caller]
    pub(crate) fn names(&self, kind: &str, reason: &str, sentence: &str) {
        let (status, why, message) = self.says(kind);
        assert_eq!((status, why), ("False", reason), "{kind}: {message}");
        assert_eq!(message, sentence);
        self.degraded(reason, sentence);
    }

    #[track_caller]
    pub(crate) fn degraded(&self, reason: &str, sentence: &str) {
        assert_eq!(self.says("Degraded"), ("True", reason, sentence));
    }

    pub(crate) fn service(&self, name: &str) -> &ServiceStatus {
        self.0
            .services
            .iter()
            .find(|service| service.name == name)
            .unwrap()
    }
}

/// The API server refuses a status beyond its schema as a whole.
fn assert_in_bounds(chain: &ServiceChain, status: &ServiceChainStatus) {
    let of_status = |chain: &ServiceChain| {
        let mistakes = servicechain_crds::validated(chain).err().into_iter().flatten();
        mistakes
            .filter(|mistake| mistake.path.starts_with("status"))
            .map(|mistake| mistake.to_string())
            .collect::<Vec<_>>()
    };
    let with_status = ServiceChain {
        status: Some(status.clone()),
        ..chain.clone()
    };
    assert_eq!(of_status(&with_status), Vec::<String>::new());
    let keys = status.keys.iter();
    let (laggards, entries): (Vec<_>, Vec<_>) = keys.map(|keys| (&keys.laggards, &keys.entries)).unzip();
    let pods: Vec<_> = laggards
        .into_iter()
        .flatten()
        .map(|laggard| &laggard.pod)
        .collect();
    let kids: Vec<_> = entries
        .into_iter()
        .flatten()
        .map(|entry| (&entry.issuer, &entry.kid))
        .collect();
    assert_eq!(
        pods.iter().collect::<BTreeSet<_>>().len(),
        pods.len(),
        "a map names each pod once"
    );
    assert_eq!(
        kids.iter().collect::<BTreeSet<_>>().len(),
        kids.len(),
        "a map names each key once"
    );
}

pub(crate) fn settings() -> Settings {
    Settings {
        images: Images {
            gateway: "gateway:1".to_owned(),
            item_service: "item-service:1".to_owned(),
            token_issuer: "token-issuer:1".to_owned(),
            postgres: BTreeMap::from([("17".to_owned(), "postgres:17".to_owned())]),
            redis: "redis:1".to_owned(),
        },
        default_postgres_major: "17".to_owned(),
        knock_url: "http://servicechain-operator.ops.svc:9091".to_owned(),
        operator_namespace: "ops".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        node_port_urls: BTreeMap::from([(30_080, "http://127.0.0.1:8080".to_owned())]),
        fetch_rules: FetchRules::default(),
    }
}

pub(crate) fn keys(verifiers: usize) -> KeyState {
    KeyState {
        newest: Some((Generation::new(7), Digest::of(b"seven"))),
        acknowledged: verifiers,
        verifiers,
        entries: vec![entry("platform", "k1", StateOfKey::Active)],
        is_settled: true,
        in_sync: true,
        pods: (0..verifiers)
            .map(|number| verifier(&format!("verifier-{number}")))
            .collect(),
        signed_by: Some("t5Zx".to_owned()),
        ..KeyState::default()
    }
}

/// One that holds the newest keys and has nothing to be said of.
pub(crate) fn verifier(name: &str) -> PodKeys {
    PodKeys {
        name: name.to_owned(),
        pod: PodId::new(name).unwrap(),
        workload: Workload::new("a").unwrap(),
        is_counted: true,
        acknowledged: true,
        generation: Some(Generation::new(7)),
        refusal: None,
        refused: BTreeSet::new(),
        falsehood: None,
        unconfirmed: false,
        clock_offset: Some(0),
        anchors: vec!["t5Zx".to_owned()],
    }
}

pub(crate) fn entry(issuer: &str, kid: &str, state: StateOfKey) -> KeyEntry {
    KeyEntry {
        issuer: issuer.to_owned(),
        kid: Some(kid.to_owned()),
        algorithm: "ES256",
        state,
        since: NumericDate::from_seconds(1_767_225_600),
    }
}

fn labels(component: &str) -> Value {
    json!({"servicechain.dev/chain": "shop", "servicechain.dev/component": component})
}

pub(crate) fn deployment(name: &str, component: &str) -> Deployment {
    read(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 2, "labels": labels(component)},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels(component)},
            "template": {"metadata": {"labels": labels(component)}, "spec": {"containers": [{"name": "main", "image": "registry.example/b:4"}]}},
        },
        "status": {
            "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
        },
    }))
}

pub(crate) fn replica_set(name: &str, deployment: &str, revision: u32) -> ReplicaSet {
    read(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name,
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment, "uid": deployment, "controller": true}],
        },
        "spec": {"selector": {}},
    }))
}

fn stateful_set(name: &str, component: &str) -> StatefulSet {
    read(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-sts"), "generation": 1, "labels": labels(component)},
        "spec": {"replicas": 1, "serviceName": name, "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "currentRevision": "r1", "updateRevision": "r1",
        },
    }))
}

pub(crate) fn pod(name: &str, component: &str, owner: &str) -> Pod {
    read(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "labels": labels(component),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "registry.example/b:4"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "main", "image": "registry.example/b:4", "imageID": "sha256:1", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        },
    }))
}

fn claim(name: &str) -> PersistentVolumeClaim {
    read(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-pvc"), "annotations": {"servicechain.dev/postgres-major": "17"}},
        "spec": {"accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Bound"},
    }))
}

fn event(uid: &str, reason: &str, message: &str) -> Event {
    read(json!({
        "metadata": {"name": format!("{uid}.1"), "namespace": "shop"},
        "involvedObject": {"uid": uid},
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }))
}

pub(crate) fn gateway_service(value: Value) -> Service {
    let mut service = json!({"metadata": {"name": "shop-gateway", "namespace": "shop"}});
    merge(&mut service, value);
    read(service)
}

/// Objects are merged, everything else replaces.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
