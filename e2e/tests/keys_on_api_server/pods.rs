//! Pods as objects of a real API server, each with a real verifier behind its address: what a kubelet would write of them,
//! and what a node would do to them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use servicechain_auth::keys_endpoint::{router, router_with_offers};
use servicechain_auth::{Hop, Verifier, VerifierConfig};
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster::fresh_namespace;
use servicechain_keys::{ChainId, PodId, Trust, Workload};
use servicechain_operator::controller::accepted;
use servicechain_operator::key_controller::{Missing, OperatorRoots};
use servicechain_operator::object_names::{Component, bundle_config_map, labels, object};
use servicechain_runtime::clock::Clock;
use servicechain_token_issuer::{Config, SigningKeys};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::leader::{DEADLINE, Leader};

/// A namespace with one chain and the operator's roots.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) chain: ServiceChain,
    pub(crate) roots: OperatorRoots,
    pub(crate) folder: TempDir,
}

/// A pod that runs. Dropping it ends its container; its object stays.
pub(crate) struct RunningPod {
    pub(crate) name: String,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) signing_keys: Option<Arc<SigningKeys>>,
    /// Of its keys port.
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// A pod's object whose container has not started.
pub(crate) struct Scheduled {
    pub(crate) object: Pod,
    pub(crate) workload: &'static str,
    pub(crate) listener: TcpListener,
}

impl Scheduled {
    /// Of its keys.
    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

/// The parts that the chain of these tests has.
pub(crate) const GATEWAY: Component<'static> = Component::Gateway;
pub(crate) const SERVICE: Component<'static> = Component::Service("a");
pub(crate) const ISSUER: Component<'static> = Component::Issuer("platform");

impl Cluster {
    pub(crate) async fn new(client: Client) -> Self {
        Self::with_issuers(client, json!([{"name": "platform", "managed": {}}])).await
    }

    pub(crate) async fn with_issuers(client: Client, issuers: Value) -> Self {
        let namespace = fresh_namespace(&client).await.unwrap();
        let missing = Missing::MadeOnce(Some(&namespace));
        let roots = OperatorRoots::ensure(&client, &namespace, missing).await.unwrap();
        let chain = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop"},
            "spec": {
                "audiences": ["shop"],
                "issuers": issuers,
                "gateway": {"routes": [{"name": "items", "service": "a"}]},
                "services": [{"name": "a", "database": {"managed": {}}}],
            },
        });
        let chain = create(&client, &namespace, chain).await;
        let kept = serde_json::to_value(accepted::keep(&chain, &roots.secret)).unwrap();
        create::<ConfigMap>(&client, &namespace, kept).await;
        Self {
            client,
            namespace,
            chain,
            roots,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn uid(&self) -> String {
        self.chain.uid().unwrap()
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        create(&self.client, &self.namespace, object).await
    }

    /// The `ReplicaSet` that the pods of a component are controlled by; its Deployment is controlled by the chain.
    pub(crate) async fn replica_set(&self, component: Component<'_>) -> ReplicaSet {
        let name = object("shop", component);
        let labels = labels("shop", component);
        let template = json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "verifier", "image": "verifier:test"}]},
        });
        let spec = json!({"selector": {"matchLabels": labels}, "template": template});
        let deployment = json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner(&self.chain)]},
            "spec": spec,
        });
        let deployment: Deployment = self.create(deployment).await;
        let set = json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner(&deployment)]},
            "spec": spec,
        });
        self.create(set).await
    }

    /// A pod that a node has, and that has an address.
    pub(crate) async fn schedule(
        &self,
        name: &str,
        component: Component<'static>,
        controller: &ReplicaSet,
    ) -> Scheduled {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Scheduled {
            object: self.object(name, component, controller, port).await,
            workload: component.workload().unwrap(),
            listener,
        }
    }

    /// The object of a pod whose keys port is this one.
    pub(crate) async fn object(
        &self,
        name: &str,
        component: Component<'static>,
        controller: &ReplicaSet,
        port: u16,
    ) -> Pod {
        self.create(json!({
            "metadata": {
                "name": name,
                "labels": labels("shop", component),
                "ownerReferences": [owner(controller)],
            },
            "spec": {"containers": [{
                "name": "verifier",
                "image": "verifier:test",
                "ports": [{"name": "keys", "containerPort": port}],
                "env": [
                    {"name": "CHAIN_UID", "value": self.uid()},
                    {"name": "WORKLOAD", "value": component.workload().unwrap()},
                ],
            }]},
        }))
        .await
    }

    /// As a kubelet says it of a container in this state.
    pub(crate) async fn say(&self, pod: &str, phase: &str, state: Value, ready: bool) {
        let status = json!({"status": {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "containerStatuses": [{
                "name": "verifier",
                "image": "verifier:test",
                "imageID": "",
                "ready": ready,
                "restartCount": 0,
                "state": state,
            }],
        }});
        self.api::<Pod>()
            .patch_status(pod, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    pub(crate) async fn say_running(&self, pod: &str) {
        let state = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        self.say(pod, "Running", state, true).await;
    }

    /// The container starts with what its mounted `ConfigMap` holds now, and knocks at `leader`.
    pub(crate) async fn run(&self, scheduled: Scheduled, leader: &Leader) -> RunningPod {
        let file = self
            .folder
            .path()
            .join(format!("{}.jws", scheduled.object.name_any()));
        if let Some(bundle) = self.bundle().await {
            std::fs::write(&file, bundle).unwrap();
        }
        self.run_with(scheduled, leader.knock_address, Some(file)).await
    }

    pub(crate) async fn run_with(
        &self,
        scheduled: Scheduled,
        operator: SocketAddr,
        file: Option<PathBuf>,
    ) -> RunningPod {
        let Scheduled {
            object,
            workload,
            listener,
        } = scheduled;
        let name = object.name_any();
        let address = listener.local_addr().unwrap();
        let chain = ChainId::new(self.uid()).unwrap();
        let trust = Trust::new(chain.clone(), self.roots.anchors());
        let workload = Workload::new(workload).unwrap();
        let pod = PodId::new(object.uid().unwrap()).unwrap();
        let hop = Hop::new(workload.to_string());
        let mut config = VerifierConfig::new(trust, pod, workload.clone(), hop, Clock::system().as_fn());
        config.ack_key = Some(self.roots.of(chain).ack_key(&workload));
        config.bundle_file = file;
        config.state_dir = Some(self.state_of(&name));
        config.operator_url = Some(format!("http://{operator}").parse().unwrap());
        config.startup_wait = DEADLINE;
        let verifier = Verifier::start(config).await.unwrap();
        let mut tasks = JoinSet::new();
        let signing_keys =
            (workload.as_str() == "platform").then(|| signing_keys(&verifier, &self.namespace));
        let router = match &signing_keys {
            None => router(Arc::clone(&verifier)),
            Some(keys) => {
                tasks.spawn(keep_up(Arc::clone(&verifier), Arc::clone(keys)));
                let offers = Arc::clone(keys);
                router_with_offers(Arc::clone(&verifier), offers)
            }
        };
        tasks.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        RunningPod {
            name,
            verifier,
            signing_keys,
            address,
            _tasks: tasks,
        }
    }

    /// A pod from its creation until it is told the operator's word.
    pub(crate) async fn start(
        &self,
        name: &str,
        component: Component<'static>,
        controller: &ReplicaSet,
        leader: &Leader,
    ) -> RunningPod {
        let scheduled = self.schedule(name, component, controller).await;
        let pod = self.run(scheduled, leader).await;
        self.say_running(name).await;
        pod
    }

    pub(crate) async fn delete_pod(&self, pod: RunningPod) {
        let at_once = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(&pod.name, &at_once).await.unwrap();
    }

    pub(crate) async fn config_map(&self) -> Option<ConfigMap> {
        self.api::<ConfigMap>()
            .get_opt(&bundle_config_map("shop"))
            .await
            .unwrap()
    }

    pub(crate) async fn bundle(&self) -> Option<String> {
        self.config_map().await?.data?.remove("bundle.jws")
    }

    pub(crate) fn state_of(&self, pod: &str) -> PathBuf {
        let folder: &Path = self.folder.path();
        folder.join("state").join(pod)
    }
}

async fn create<K>(client: &Client, namespace: &str, object: Value) -> K
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    Api::<K>::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}

pub(crate) fn owner<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    serde_json::to_value(owner.controller_owner_ref(&()).unwrap()).unwrap()
}

fn signing_keys(verifier: &Arc<Verifier>, namespace: &str) -> Arc<SigningKeys> {
    let url = format!("http://shop-issuer-platform.{namespace}.svc");
    let yaml = format!(
        "issuer: {{name: platform, url: {url:?}, algorithm: ES256, tokenLifetime: 15m, audiences: [shop]}}\nclients: []"
    );
    let config = Config::from_yaml(&yaml).unwrap();
    SigningKeys::start(config.issuer, Arc::clone(verifier), None).unwrap()
}

async fn keep_up(verifier: Arc<Verifier>, keys: Arc<SigningKeys>) {
    let mut generations = verifier.subscribe();
    while generations.changed().await.is_ok() {
        let keys = Arc::clone(&keys);
        let kept = tokio::task::spawn_blocking(move || keys.keep_up());
        kept.await.unwrap().unwrap();
    }
}

impl RunningPod {
    /// Waits until it is ready by the operator's word, not by its silence.
    pub(crate) async fn await_confirmed(&self) {
        let ready = tokio::time::timeout(DEADLINE / 2, self.verifier.ready());
        ready
            .await
            .unwrap_or_else(|_| panic!("{} heard no word of the operator", self.name));
        assert!(self.verifier.is_confirmed(), "{}", self.name);
    }

    /// Time for a knock and for the round that follows; for what must not happen.
    pub(crate) const A_WHILE: Duration = Duration::from_millis(2500);
}
