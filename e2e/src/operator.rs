//! The operator's passes against a real API server, without pods: started and crashed at will, each of its writes seen in
//! the audit log. What must be true of them is in `tests/reconcile_*`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use servicechain_crds::{ServiceChain, schema};
use servicechain_fixtures::api_server::ApiServer;
use servicechain_operator::config::{Images, Settings};
use servicechain_operator::controller::{self, Context};
use servicechain_operator::events::Events;
use servicechain_operator::health::Health;
use servicechain_operator::key_controller::external::FetchRules;
use servicechain_operator::key_controller::{KeyChains, Missing, OperatorRoots};
use servicechain_operator::metrics::Metrics;
use servicechain_operator::streams::Watches;
use servicechain_operator::{api_client, clock};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::await_seen;

/// How long anything may take that the operator brings about on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_mins(1);
const CHAIN_LABEL: &str = "servicechain.dev/chain";

/// An API server that knows chains.
#[derive(Debug)]
pub struct World {
    pub server: ApiServer,
}

impl World {
    pub async fn start() -> anyhow::Result<Self> {
        Self::of(ApiServer::start()?).await
    }

    pub async fn start_with_garbage_collector() -> anyhow::Result<Self> {
        Self::of(ApiServer::start_with_garbage_collector()?).await
    }

    async fn of(server: ApiServer) -> anyhow::Result<Self> {
        let this = Self { server };
        let client = this.client().await?;
        let api = Api::<CustomResourceDefinition>::all(client);
        for crd in [schema::service_chain_crd(), schema::revocation_crd()] {
            let crd: CustomResourceDefinition = serde_json::from_value(crd.clone())?;
            let name = crd.metadata.name.clone().context("a CRD has a name")?;
            api.create(&PostParams::default(), &crd).await?;
            await_seen("the CRD to be served", DEADLINE, async || {
                let crd = api.get(&name).await.map_err(|error| error.to_string())?;
                let conditions = crd
                    .status
                    .and_then(|status| status.conditions)
                    .unwrap_or_default();
                let is_established = conditions
                    .iter()
                    .any(|condition| condition.type_ == "Established" && condition.status == "True");
                is_established
                    .then_some(())
                    .ok_or_else(|| format!("{conditions:?}"))
            })
            .await?;
        }
        Ok(this)
    }

    /// For the test itself.
    pub async fn client(&self) -> anyhow::Result<Client> {
        crate::cluster::client(self.server.kubeconfig()).await
    }

    /// For an operator, which the audit log knows by the name of its pod.
    pub async fn operator_config(&self, pod: &str) -> anyhow::Result<Config> {
        let kubeconfig = Kubeconfig::read_from(self.server.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(api_client::configure(config, pod))
    }

    pub async fn operator_client(&self, pod: &str) -> anyhow::Result<Client> {
        Ok(api_client::bounded(self.operator_config(pod).await?)?)
    }

    /// What operators wrote, but their leases.
    pub fn writes(&self) -> anyhow::Result<Vec<Write>> {
        writes(&self.server.audit_log())
    }
}

/// A write of an operator, as the audit log has it.
#[derive(Clone, Debug)]
pub struct Write {
    /// Name of the operator's pod.
    pub pod: String,
    pub verb: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
    /// Nothing for Secrets.
    pub sent: Value,
    /// RFC 3339, when it was answered.
    pub at: String,
}

fn writes(log: &Path) -> anyhow::Result<Vec<Write>> {
    let text = std::fs::read_to_string(log)?;
    let events = text.lines().map(serde_json::from_str::<Value>);
    let mut writes = Vec::new();
    for event in events {
        let event = event?;
        let agent = event["userAgent"].as_str().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let Some(pod) = agent
            .strip_prefix("servicechain-operator/")
            .and_then(|rest| rest.split_once('('))
            .map(|(_, pod)| pod.trim_end_matches(')').to_owned())
            .filter(|_| object["resource"] != "leases")
        else {
            continue;
        };
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}"));
        writes.push(Write {
            pod,
            verb: word(&event["verb"]),
            resource: word(&object["resource"]) + &subresource.unwrap_or_default(),
            namespace: word(&object["namespace"]),
            name: word(&object["name"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            sent: event["requestObject"].clone(),
            at: word(&event["stageTimestamp"]),
        });
    }
    Ok(writes)
}

/// A leader's work in this process, for one namespace, in which its roots of trust are too.
#[derive(Debug)]
pub struct Operator {
    pub keys: KeyChains,
    pub metrics: Metrics,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Operator {
    pub async fn start(client: Client, namespace: &str) -> anyhow::Result<Self> {
        Self::start_with(client, namespace, settings(namespace)).await
    }

    pub async fn start_with(client: Client, namespace: &str, settings: Settings) -> anyhow::Result<Self> {
        let roots = OperatorRoots::ensure(&client, namespace, Missing::MadeOnce(Some(namespace))).await?;
        let (health, metrics) = (Health::default(), Metrics::default());
        let keys = KeyChains::new(
            client.clone(),
            roots,
            clock::system(),
            health.clone(),
            settings.fetch_rules.clone(),
            metrics.keys(),
        );
        let context = Context {
            settings,
            keys: keys.clone(),
            events: Events::new(client.clone(), "in-process"),
            clock: clock::system(),
            watches: Watches {
                client: client.clone(),
                namespace: Some(namespace.to_owned()),
                health,
                metrics: metrics.clone(),
            },
            client,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(controller::run(Arc::new(context), shutdown.clone()));
        Ok(Self {
            keys,
            metrics,
            task,
            shutdown,
        })
    }

    /// Ends as a process that is told to.
    pub async fn end(self) {
        self.shutdown.cancel();
        let _ = self.task.await;
        self.keys.end().await;
    }

    /// Ends as a process that is killed: nothing that had begun is finished.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits until a pass has begun and ended from now on that knows of the chain's bundle.
    pub async fn await_pass(&self, client: &Client, chain: &ServiceChain) -> anyhow::Result<()> {
        let uid = chain.metadata.uid.as_deref().unwrap_or_default();
        await_seen("the operator to find the bundle", DEADLINE, async || {
            self.keys.bundle_exists(uid).then_some(()).ok_or("it has not")
        })
        .await?;
        // The first of the two may have begun before.
        for touch in 0..2 {
            let before = self.metrics.passes();
            poke(client, chain, touch).await?;
            await_seen("another pass", DEADLINE, async || {
                let now = self.metrics.passes();
                (now > before)
                    .then_some(())
                    .ok_or_else(|| format!("{now} passes"))
            })
            .await?;
        }
        Ok(())
    }
}

/// Changes nothing that anybody acts on.
async fn poke(client: &Client, chain: &ServiceChain, touch: u32) -> anyhow::Result<()> {
    let namespace = chain.metadata.namespace.as_deref().unwrap_or_default();
    let name = chain.metadata.name.as_deref().unwrap_or_default();
    let api = Api::<ServiceChain>::namespaced(client.clone(), namespace);
    let now = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
    let patch = json!({"metadata": {"annotations": {"test/poke": format!("{now}-{touch}")}}});
    api.patch(
        name,
        &kube::api::PatchParams::default(),
        &kube::api::Patch::Merge(&patch),
    )
    .await?;
    Ok(())
}

/// What the objects are built with; no image is ever pulled.
#[must_use]
pub fn settings(namespace: &str) -> Settings {
    Settings {
        images: Images {
            gateway: "gateway:test".to_owned(),
            item_service: "item-service:test".to_owned(),
            token_issuer: "token-issuer:test".to_owned(),
            postgres: [("17".to_owned(), "postgres:test".to_owned())].into(),
            redis: "redis:test".to_owned(),
        },
        default_postgres_major: "17".to_owned(),
        knock_url: format!("http://servicechain-operator.{namespace}.svc:9091"),
        cluster_domain: "cluster.local".to_owned(),
        operator_namespace: namespace.to_owned(),
        node_port_urls: std::collections::BTreeMap::new(),
        fetch_rules: FetchRules::default(),
    }
}

/// Kind and name of every object of a chain, Secrets too, but pods and what makes them.
pub async fn objects(
    client: &Client,
    namespace: &str,
    chain: &str,
) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for resource in kinds() {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let params = ListParams::default().labels(&format!("{CHAIN_LABEL}={chain}"));
        for object in api.list(&params).await? {
            found.insert((resource.kind.clone(), object.metadata.name.unwrap_or_default()));
        }
    }
    Ok(found)
}

fn kinds() -> Vec<ApiResource> {
    use k8s_openapi::api::{
        apps::v1 as apps, core::v1 as core, networking::v1 as networking, policy::v1 as policy,
    };
    vec![
        ApiResource::erase::<core::ServiceAccount>(&()),
        ApiResource::erase::<core::ConfigMap>(&()),
        ApiResource::erase::<core::Secret>(&()),
        ApiResource::erase::<core::PersistentVolumeClaim>(&()),
        ApiResource::erase::<core::Service>(&()),
        ApiResource::erase::<networking::NetworkPolicy>(&()),
        ApiResource::erase::<policy::PodDisruptionBudget>(&()),
        ApiResource::erase::<apps::StatefulSet>(&()),
        ApiResource::erase::<apps::Deployment>(&()),
    ]
}

/// A chain of these services, each with a database, the first one reached through a gateway without a node port.
pub fn chain(namespace: &str, services: &[&str]) -> anyhow::Result<ServiceChain> {
    let services: Vec<Value> = services
        .iter()
        .map(|name| json!({"name": name, "database": {"managed": {}}, "cache": {"managed": {}}}))
        .collect();
    let first = services.first().map(|service| service["name"].clone());
    let chain = json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "audiences": ["shop"],
            "issuers": [{"name": "platform", "managed": {"clients": [{"id": "demo", "scopes": ["items:read"]}]}}],
            "gateway": {"service": {"type": "ClusterIP"}, "routes": [{"name": "items", "service": first}]},
            "services": services,
        },
    });
    Ok(serde_json::from_value(chain)?)
}

pub async fn create(client: &Client, chain: &ServiceChain) -> anyhow::Result<ServiceChain> {
    let namespace = chain.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<ServiceChain>::namespaced(client.clone(), namespace);
    Ok(api.create(&PostParams::default(), chain).await?)
}

/// Waits until the chain has all of `expected` and nothing else.
pub async fn await_objects(
    client: &Client,
    namespace: &str,
    expected: &BTreeSet<(String, String)>,
) -> anyhow::Result<()> {
    await_seen("all objects of the chain", DEADLINE, async || {
        let found = objects(client, namespace, "shop")
            .await
            .map_err(|error| format!("{error:#}"))?;
        if found == *expected {
            return Ok(());
        }
        let missing: Vec<_> = expected.difference(&found).collect();
        let more: Vec<_> = found.difference(expected).collect();
        Err(format!("missing {missing:?}, and beside them {more:?}"))
    })
    .await
}
