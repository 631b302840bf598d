//! examples/shop.yaml on the cluster, in a namespace of a test's own that pod-security restricts, with a NodePort that
//! leads to it from this machine. It goes when it is dropped.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::cluster::{Cluster, await_seen};
use crate::token_load::{Credentials, Token};

pub const NAME: &str = "shop";
const EXAMPLE: &str = include_str!("../../examples/shop.yaml");
/// Up to sixteen pods on two cores that others use too.
pub const READY_WITHIN: Duration = Duration::from_mins(6);
/// Of a namespace: which test process made it.
const PROCESS_LABEL: &str = "servicechain.dev/test-process";
/// Other tests of this process have to give one back.
const NODE_PORT_WITHIN: Duration = Duration::from_mins(15);

/// A chain, and how to reach it.
pub struct Shop {
    pub cluster: Cluster,
    pub client: Client,
    pub namespace: String,
    /// The gateway, from here.
    pub gateway: SocketAddr,
    /// Keeps it from others until this is dropped.
    node_port: NodePort,
}

impl Shop {
    /// A namespace without a chain.
    pub async fn prepare() -> anyhow::Result<Self> {
        let cluster = Cluster::from_environment()?;
        let client = cluster.client().await?;
        let process = std::process::id().to_string();
        // What an earlier test process could not remove, since it shared it to its end or failed.
        let left = format!("{PROCESS_LABEL},{PROCESS_LABEL}!={process}");
        let remove = ["delete", "namespace", "--wait=false", "--selector", &left];
        cluster.kubectl(remove).await?;
        let namespace = restricted_namespace(&client, &process).await?;
        let node_port = NodePort::take(&cluster, &client).await?;
        let port = cluster.node_ports[&node_port.0];
        Ok(Self {
            cluster,
            client,
            namespace,
            gateway: (Ipv4Addr::LOCALHOST, port).into(),
            node_port,
        })
    }

    /// The example, with what `change` makes of it, Ready.
    pub async fn start(change: impl FnOnce(&mut Value)) -> anyhow::Result<Self> {
        let shop = Self::prepare().await?;
        shop.apply(change).await?;
        shop.await_ready().await?;
        Ok(shop)
    }

    /// The example as it is in this namespace, with its NodePort.
    pub fn manifest(&self) -> anyhow::Result<Value> {
        let mut chain: Value = serde_saphyr::from_str(EXAMPLE)?;
        chain["metadata"]["namespace"] = json!(self.namespace);
        chain["spec"]["gateway"]["service"]["nodePort"] = json!(self.node_port.0);
        Ok(chain)
    }

    /// As users do.
    pub async fn apply(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut chain = self.manifest()?;
        change(&mut chain);
        self.cluster.apply(&chain).await?;
        Ok(())
    }

    /// A merge patch of the chain.
    pub async fn patch(&self, patch: Value) -> anyhow::Result<()> {
        let patch = patch.to_string();
        self.kubectl(&["patch", "servicechain", NAME, "--type=merge", "--patch", &patch])
            .await?;
        Ok(())
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let namespace = ["--namespace", &self.namespace];
        self.cluster
            .kubectl(namespace.into_iter().chain(arguments.iter().copied()))
            .await
    }

    /// Ready as far as the newest spec is concerned.
    pub async fn await_ready(&self) -> anyhow::Result<Value> {
        self.await_chain("Ready", READY_WITHIN, |chain| {
            condition(chain, "Ready").is_some_and(|ready| ready["status"] == "True")
        })
        .await
    }

    /// The chain once `is_so` holds for it.
    pub async fn await_chain(
        &self,
        what: &str,
        deadline: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let what = format!("chain {}/{NAME} to be {what}", self.namespace);
        let reached = await_seen(&what, deadline, async || {
            let chain = self.chain().await.map_err(|error| format!("{error:#}"))?;
            if is_so(&chain) {
                Ok(chain)
            } else {
                Err(conditions(&chain))
            }
        });
        match reached.await {
            Ok(chain) => Ok(chain),
            Err(error) => Err(error.context(self.pods_at_a_glance().await)),
        }
    }

    pub async fn chain(&self) -> anyhow::Result<Value> {
        let kind = GroupVersionKind::gvk("servicechain.dev", "v1alpha1", "ServiceChain");
        let resource = ApiResource::from_gvk_with_plural(&kind, "servicechains");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        Ok(serde_json::to_value(api.get(NAME).await?)?)
    }

    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A component's pods that are not ending.
    pub async fn pods(&self, component: &str) -> anyhow::Result<Vec<Pod>> {
        let labels = format!("servicechain.dev/chain={NAME},servicechain.dev/component={component}");
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&labels))
            .await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// Waits until a container of the pod has started again and the pod is Ready.
    pub async fn await_restart(&self, pod: &Pod) -> anyhow::Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        await_seen(
            &format!("pod {name} to be ready again"),
            READY_WITHIN,
            async || {
                let seen = self
                    .api::<Pod>()
                    .get(name)
                    .await
                    .map_err(|error| error.to_string())?;
                if restarts(&seen) > restarts(pod) && is_ready(&seen) {
                    return Ok(());
                }
                Err(format!(
                    "{} restarts, ready: {}",
                    restarts(&seen),
                    is_ready(&seen)
                ))
            },
        )
        .await
    }

    /// What a client of the example's issuer gets tokens with.
    pub async fn credentials(&self, client: &str) -> anyhow::Result<Credentials> {
        let name = format!("{NAME}-client-platform-{client}");
        let data = self.api::<Secret>().get(&name).await?.data.unwrap_or_default();
        let field = |name: &str| {
            let value = data
                .get(name)
                .with_context(|| format!("the Secret has no {name}"))?;
            Ok::<_, anyhow::Error>(String::from_utf8(value.0.clone())?)
        };
        Ok(Credentials {
            id: field("clientID")?,
            secret: field("clientSecret")?,
        })
    }

    /// A token of the example's client, through the gateway.
    pub async fn token(&self) -> anyhow::Result<String> {
        let token = Token::fetch(self.gateway, &self.credentials("demo").await?).await?;
        Ok(token.text.clone())
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        client::get(self.gateway, path, token).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &str) -> anyhow::Result<Answer> {
        client::put(self.gateway, path, token, body).await
    }

    /// For the message of a failure.
    async fn pods_at_a_glance(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "--output=wide"]).await;
        pods.unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shop")
            .field("namespace", &self.namespace)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.cluster.begin_to_remove_namespace(&self.namespace);
    }
}

/// Leaves only the first service, with one pod of each kind: quickly there, and enough where nothing else matters.
pub fn smallest(chain: &mut Value) {
    let spec = &mut chain["spec"];
    if let Some(services) = spec["services"].as_array_mut() {
        services.truncate(1);
    }
    single(chain);
}

/// One pod of each kind.
pub fn single(chain: &mut Value) {
    let spec = &mut chain["spec"];
    spec["gateway"]["replicas"] = json!(1);
    spec["issuers"][0]["managed"]["replicas"] = json!(1);
    for service in spec["services"].as_array_mut().into_iter().flatten() {
        service["replicas"] = json!(1);
    }
}

/// A condition that is said of the newest spec.
#[must_use]
pub fn condition<'a>(chain: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = chain["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| {
        condition["type"] == name && condition["observedGeneration"] == chain["metadata"]["generation"]
    })
}

#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .map(|status| status.restart_count)
        .sum()
}

/// All that is said of a chain, for the message of a failure.
fn conditions(chain: &Value) -> String {
    let conditions = chain["status"]["conditions"].as_array().into_iter().flatten();
    let lines: Vec<String> = conditions
        .map(|condition| {
            let field = |name: &str| condition[name].as_str().unwrap_or("?");
            format!(
                "{}={} {} {:?} of generation {}",
                field("type"),
                field("status"),
                field("reason"),
                field("message"),
                condition["observedGeneration"]
            )
        })
        .collect();
    format!(
        "generation {}: {}",
        chain["metadata"]["generation"],
        lines.join("; ")
    )
}

async fn restricted_namespace(client: &Client, process: &str) -> anyhow::Result<String> {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {
            "generateName": "shop-",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted", PROCESS_LABEL: process},
        },
    }))?;
    let created = Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    created.metadata.name.context("a created namespace has a name")
}

/// A NodePort of the cluster that no Service has and no other test of this process is about to use.
#[derive(Debug)]
struct NodePort(u16);

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl NodePort {
    async fn take(cluster: &Cluster, client: &Client) -> anyhow::Result<Self> {
        let services = Api::<Service>::all(client.clone());
        await_seen("a free NodePort", NODE_PORT_WITHIN, async || {
            let services = services
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            let used: BTreeSet<i32> = services
                .items
                .into_iter()
                .flat_map(|service| service.spec.unwrap_or_default().ports.unwrap_or_default())
                .filter_map(|port| port.node_port)
                .collect();
            let mut taken = TAKEN.lock().map_err(|error| error.to_string())?;
            let free = cluster
                .node_ports
                .keys()
                .find(|port| !used.contains(&i32::from(**port)) && !taken.contains(port));
            let free = *free.ok_or("all are in use")?;
            taken.insert(free);
            Ok::<_, String>(Self(free))
        })
        .await
    }
}

impl Drop for NodePort {
    fn drop(&mut self) {
        // A poisoned lock means that a test panicked while it held it: the others need no port any more.
        if let Ok(mut taken) = TAKEN.lock() {
            taken.remove(&self.0);
        }
    }
}
