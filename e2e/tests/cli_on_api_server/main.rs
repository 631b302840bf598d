//! The verbs of `servicechain` that are about a cluster: the real program against a real API server. The operator's
//! part, the status of a chain and the objects around it, is played by the test.
#![cfg(test)]

mod explain;
mod keys;
mod revoke;
mod rotate;
mod status;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_auth::specimen::ISSUER;
use servicechain_crds::{Revocation, ServiceChain};
use servicechain_e2e::cluster::{self, client, fresh_namespace};
use servicechain_fixtures::api_server::ApiServer;
use servicechain_fixtures::await_condition;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A debug build on a busy machine.
const DONE_WITHIN: Duration = Duration::from_mins(1);

/// One server for all tests that need the CRD; it ends with their process.
static SERVER: LazyLock<ApiServer> = LazyLock::new(|| ApiServer::start().unwrap());

/// A namespace of a server that knows what a `ServiceChain` is.
struct Shop {
    client: Client,
    namespace: String,
    kubeconfig: PathBuf,
}

impl Shop {
    async fn new() -> Self {
        let kubeconfig = tokio::task::spawn_blocking(|| SERVER.kubeconfig()).await.unwrap();
        let client = client(kubeconfig.clone()).await.unwrap();
        install(&client).await;
        Self {
            namespace: fresh_namespace(&client).await.unwrap(),
            client,
            kubeconfig,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn with_chain(self) -> Self {
        create::<ServiceChain>(&self.api(), chain("shop")).await;
        self
    }

    /// What the operator would say.
    async fn says(&self, status: Value) {
        self.api::<ServiceChain>()
            .patch_status(
                "shop",
                &PatchParams::default(),
                &Patch::Merge(json!({"status": status})),
            )
            .await
            .unwrap();
    }

    /// The kubeconfig of a user, as long as the folder is there.
    fn kubeconfig_of(&self, user: &str) -> (TempDir, PathBuf) {
        let mut kubeconfig: Value =
            serde_json::from_slice(&std::fs::read(&self.kubeconfig).unwrap()).unwrap();
        kubeconfig["users"][0]["user"]["as"] = json!(user);
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(self.namespace);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        (folder, file)
    }

    /// Gives a user these rights in the namespace.
    async fn grant(&self, user: &str, role: &str, rules: Value) {
        let _: Role = create(&self.api(), json!({"metadata": {"name": role}, "rules": rules})).await;
        let _: RoleBinding = create(
            &self.api(),
            json!({
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            }),
        )
        .await;
    }

    fn run(&self, arguments: &str) -> Command {
        let arguments = arguments.replace("NS", &self.namespace);
        servicechain(&self.kubeconfig, &arguments)
    }

    async fn ends(&self, arguments: &str) -> Ended {
        ended(self.run(arguments)).await
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn servicechain(kubeconfig: &Path, arguments: &str) -> Command {
    let mut command = Command::new(cluster::servicechain().unwrap());
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(DONE_WITHIN, command.output()).await;
    output.expect("it ends").unwrap().into()
}

async fn install(client: &Client) {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in [
        servicechain_crds::schema::service_chain_crd(),
        servicechain_crds::schema::revocation_crd(),
    ] {
        let crd: CustomResourceDefinition = serde_json::from_value(crd.clone()).unwrap();
        // Another test of this process may have been first.
        let _ = crds.create(&PostParams::default(), &crd).await;
    }
    let one = ListParams::default().limit(1);
    let (chains, revocations) = (
        Api::<ServiceChain>::all(client.clone()),
        Api::<Revocation>::all(client.clone()),
    );
    await_condition("the CRDs to be served", DONE_WITHIN, async || {
        let served = tokio::try_join!(chains.list(&one), revocations.list(&one));
        served.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}

fn chain(name: &str) -> Value {
    json!({
        "apiVersion": "servicechain.dev/v1alpha1", "kind": "ServiceChain", "metadata": {"name": name},
        "spec": {
            "audiences": ["shop"],
            "issuers": [{"name": "platform", "managed": {
                "url": ISSUER,
                "clients": [{"id": "demo", "scopes": ["items:read"]}],
            }}],
            "gateway": {"routes": [{"name": "items", "service": "a"}]},
            "services": [
                {"name": "a", "database": {"managed": {}}, "cache": {"managed": {}},
                 "authorization": [{"methods": ["GET"], "scopes": ["items:read"]}]},
                {"name": "b", "database": {"managed": {}}},
            ],
        },
    })
}

fn condition(kind: &str, status: &str, generation: i64, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Because", "message": message,
           "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn ready(generation: i64) -> Value {
    json!({
        "observedGeneration": generation,
        "conditions": [condition("Ready", "True", generation, "")],
        "gateway": {"url": "http://127.0.0.1:8080", "ready": 2, "updated": 2, "desired": 2},
        "services": [{"name": "a", "ready": 2, "updated": 2, "desired": 2,
                      "database": {"kind": "Managed", "version": "17", "ready": true}}],
        "keys": {"generation": 7, "digest": "", "acknowledged": 2, "verifiers": 3, "laggardCount": 1,
                 "laggards": [{"pod": "shop-b-1", "generation": 6, "reason": "Unreachable",
                               "since": "2026-01-01T00:00:00Z"}],
                 "entries": [{"issuer": "platform", "kid": "k7f2abcd", "state": "Active",
                              "since": "2026-01-01T00:00:00Z"}]},
    })
}

/// A command whose lines are read while it runs.
struct Talking {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Talking {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn says(&mut self, words: &str) {
        let mut said = Vec::new();
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let is_it = line.contains(words);
                said.push(line);
                if is_it {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(DONE_WITHIN, found).await;
        assert_eq!(found, Ok(true), "{words:?} was not said: {said:?}");
    }

    async fn ends(mut self) -> Ended {
        let mut rest = String::new();
        let output = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                rest = format!("{rest}{line}\n");
            }
            let mut stderr = String::new();
            self.child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut stderr)
                .await
                .unwrap();
            (self.child.wait().await.unwrap().code(), stderr)
        };
        let (code, stderr) = tokio::time::timeout(DONE_WITHIN, output).await.expect("it ends");
        Ended {
            code,
            stdout: rest,
            stderr,
        }
    }
}
