//! The verbs of `servicechain` that are about a cluster: the real program against a real API server. The operator's
//! part, the status of a chain and the objects around it, is played by the test.
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use servicechain_auth::specimen::{ISSUER, Specimen};
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster::{self, client, fresh_namespace};
use servicechain_fixtures::api_server::ApiServer;
use servicechain_fixtures::await_condition;
use servicechain_keys::{ChainId, Generation};
use servicechain_runtime::clock::Clock;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
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
    let crd: CustomResourceDefinition =
        serde_json::from_value(servicechain_crds::schema::service_chain_crd().clone()).unwrap();
    // Another test of this process may have been first.
    let _ = crds.create(&PostParams::default(), &crd).await;
    let chains = Api::<ServiceChain>::all(client.clone());
    await_condition("the CRD to be served", DONE_WITHIN, async || {
        chains
            .list(&ListParams::default())
            .await
            .map(drop)
            .map_err(|error| error.to_string())
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

#[tokio::test(flavor = "multi_thread")]
async fn status_draws_what_the_operator_says() {
    let shop = Shop::new().await.with_chain().await;
    let before = shop.ends("status -n NS shop").await;
    assert_eq!(before.code, Some(0), "{before:?}");
    assert!(
        before.stdout.contains("! the operator has not looked at it yet"),
        "{before:?}"
    );

    shop.says(ready(1)).await;
    let drawn = shop.ends("status -n NS shop").await;
    assert_eq!((drawn.code, drawn.stderr.as_str()), (Some(0), ""));
    for line in [
        "├─ gateway  2/2",
        "└─ a        2/2  postgres 17 (single instance, no backup)",
        "keys  2/3 @ 7",
    ] {
        assert!(
            drawn.stdout.contains(line),
            "{line:?} is not in\n{}",
            drawn.stdout
        );
    }
    assert!(drawn.stdout.starts_with("shop  Ready  "), "{}", drawn.stdout);
    assert!(!drawn.stdout.contains('\x1b'), "colours in a pipe");

    let line = shop.ends("status shop -n NS -o json").await;
    let said: Value = serde_json::from_str(&line.stdout).unwrap();
    assert_eq!(
        (&said["ready"], &said["status"]["keys"]["generation"]),
        (&json!(true), &json!(7))
    );

    let watched = shop.ends("status -n NS shop --watch").await;
    assert_eq!(watched.code, Some(2), "a pipe cannot be redrawn");
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

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_when_the_newest_generation_is_ready_and_not_before() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    let edit = json!({"spec": {"paused": true}});
    let chains = shop.api::<ServiceChain>();
    chains
        .patch("shop", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();

    let mut wait = Talking::start(shop.run("wait -n NS shop --timeout 60s"));
    wait.says("to be Ready").await;
    wait.says("the operator has seen generation 1 of it, not yet 2")
        .await;
    let mut status = ready(2);
    status["conditions"] = json!([condition("Ready", "False", 2, "pod shop-a-1 starts")]);
    shop.says(status).await;
    wait.says("Because: pod shop-a-1 starts").await;
    shop.says(ready(2)).await;
    let end = wait.ends().await;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{end:?}");
    assert!(end.stdout.starts_with("shop is Ready after "), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_in_vain_names_what_is_in_the_way_and_ends_with_3() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(json!({"observedGeneration": 1, "conditions": [
        condition("Ready", "False", 1, "stores are not ready"),
        condition("StoresReady", "False", 1, "the volume shop-a-postgres does not bind"),
    ]}))
    .await;
    let end = shop.ends("wait -n NS shop --timeout 1s").await;
    assert_eq!(end.code, Some(3), "{end:?}");
    assert_eq!(
        end.stderr,
        "error: chain shop is not Ready after 1 s\n  \
         StoresReady is False (Because): the volume shop-a-postgres does not bind\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_not_there_or_goes_ends_with_4() {
    let shop = Shop::new().await.with_chain().await;
    for verb in ["status", "wait", "keys", "token"] {
        let end = shop.ends(&format!("{verb} -n NS shp")).await;
        let says = format!(
            "error: there is no chain \"shp\" in namespace {}; there is shop\n",
            shop.namespace
        );
        assert_eq!((end.code, end.stderr), (Some(4), says), "{verb}");
    }
    let elsewhere = shop.ends("status shop").await;
    assert_eq!(elsewhere.code, Some(4));
    assert!(elsewhere.stderr.contains("add -n "), "{elsewhere:?}");

    let mut wait = Talking::start(shop.run("wait -n NS shop --timeout 60s"));
    wait.says("the operator has not looked at it yet").await;
    let chains = shop.api::<ServiceChain>();
    chains.delete("shop", &DeleteParams::default()).await.unwrap();
    let end = wait.ends().await;
    assert_eq!(end.code, Some(4), "{end:?}");
    assert!(
        end.stderr.contains("was deleted while it was waited for"),
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_a_right_is_told_which() {
    let shop = Shop::new().await.with_chain().await;
    let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(&shop.kubeconfig).unwrap()).unwrap();
    kubeconfig["users"][0]["user"]["as"] = json!("jane");
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(shop.namespace);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();

    let end = ended(servicechain(&file, "status shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert_eq!(
        end.stderr,
        format!(
            "error: user \"jane\" may not get servicechains.servicechain.dev in namespace {}: ask for a role with the \
             verb \"get\" on \"servicechains.servicechain.dev\"\n",
            shop.namespace
        )
    );
    let unknown = ended(servicechain(&file, "status shop --context nowhere")).await;
    assert_eq!(unknown.code, Some(2));
    assert_eq!(
        unknown.stderr,
        "error: the kubeconfig has no context \"nowhere\"; there is fixture\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_crd_or_without_an_answer_is_told_from_a_missing_chain() {
    let server = tokio::task::spawn_blocking(|| ApiServer::start().unwrap());
    let mut server = server.await.unwrap();
    let kubeconfig = server.kubeconfig();
    let end = ended(servicechain(&kubeconfig, "wait shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr.contains("ServiceChain is not installed") && end.stderr.contains("`helm install "),
        "{end:?}"
    );

    server.stop().unwrap();
    let end = ended(servicechain(&kubeconfig, "status shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("does not answer: "), "{end:?}");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_lists_each_key_and_which_pod_holds_them() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    let pods = shop.api::<Pod>();
    for (name, component) in [
        ("shop-gateway-1", "gateway"),
        ("shop-b-1", "b"),
        ("shop-a-postgres-0", "a-postgres"),
    ] {
        create(
            &pods,
            json!({
                "metadata": {"name": name, "labels": {
                    "servicechain.dev/chain": "shop", "servicechain.dev/component": component}},
                "spec": {"containers": [{"name": "x", "image": "x"}]},
            }),
        )
        .await;
        let status = json!({"status": {"containerStatuses": [{
            "name": "x", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
    let end = shop.ends("keys -n NS shop").await;
    assert_eq!(end.code, Some(0), "{end:?}");
    let rows: Vec<Vec<&str>> = end
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[2][..3], ["platform", "k7f2…", "Active"]);
    assert_eq!(rows[4], ["shop-gateway-1", "gateway", "7", "current"]);
    assert_eq!(rows[5][..4], ["shop-b-1", "b", "6", "laggard"]);
    assert_eq!(rows[6], ["!", "Unreachable", "for", rows[6][3], "d"]);
    assert_eq!(rows.len(), 7, "a database verifies nothing: {rows:?}");

    let line = shop.ends("keys -n NS shop -o json").await;
    let said: Value = serde_json::from_str(&line.stdout).unwrap();
    assert_eq!(
        (&said["pods"][1]["state"], &said["pods"][1]["generation"]),
        (&json!("laggard"), &json!(6))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_judges_by_the_bundle_that_the_chains_pods_would_believe() {
    let shop = Shop::new().await.with_chain().await;
    let specimen = Specimen::new();
    let uid = shop
        .api::<ServiceChain>()
        .get("shop")
        .await
        .unwrap()
        .uid()
        .unwrap();
    let mut bundle = specimen.bundle();
    bundle.chain = ChainId::new(uid).unwrap();
    bundle.generation = Generation::new(2);
    let bytes = specimen.sign(&bundle).bytes().to_vec();
    let bundle = String::from_utf8(bytes).unwrap();

    let now = Clock::system()
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut claims = specimen.claims();
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now + 600));
    let token = specimen.token_with(&claims);

    let no_gateway = explained(&shop, &token, "").await;
    assert_eq!(no_gateway.code, Some(1));
    assert!(
        no_gateway
            .stderr
            .contains("chain shop has no gateway yet; see `servicechain status"),
        "{no_gateway:?}"
    );

    gateway(&shop, specimen.trust_key.anchor().to_string()).await;
    create::<ConfigMap>(
        &shop.api(),
        json!({"metadata": {"name": "shop-keys"}, "data": {"bundle.jws": bundle}}),
    )
    .await;
    let passes = explained(&shop, &token, "").await;
    assert_eq!(passes.code, Some(0), "{passes:?}");
    for line in ["gateway  ✓ key ", "a        ✓ key ", "b        ✓ key "] {
        assert!(passes.stdout.contains(line), "{passes:?}");
    }
    assert!(!passes.stdout.contains(&token), "a token is never printed");
    let refused = explained(&shop, &token, "--method PUT").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.contains("a        ✗ nobody may PUT /items/1"),
        "{refused:?}"
    );

    let another = servicechain_keys::TrustKey::from_seed(&[8; 32]).unwrap();
    let deployments = shop.api::<Deployment>();
    deployments
        .delete("shop-gateway", &DeleteParams::default())
        .await
        .unwrap();
    gateway(&shop, another.anchor().to_string()).await;
    let forged = explained(&shop, &token, "").await;
    assert_eq!(forged.code, Some(1));
    assert!(forged.stderr.contains("is not authentic"), "{forged:?}");
}

/// The gateway's Deployment, as far as it says whose bundles are believed.
async fn gateway(shop: &Shop, anchor: String) {
    let labels = json!({"app": "x"});
    let container =
        json!({"name": "gateway", "image": "x", "env": [{"name": "TRUST_ANCHORS", "value": anchor}]});
    let deployment = json!({
        "metadata": {"name": "shop-gateway"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    });
    create::<Deployment>(&shop.api(), deployment).await;
}

async fn explained(shop: &Shop, token: &str, more: &str) -> Ended {
    let mut command = shop.run(&format!("explain -n NS shop {more}"));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .await
        .unwrap();
    let output = tokio::time::timeout(DONE_WITHIN, child.wait_with_output()).await;
    output.expect("it ends").unwrap().into()
}
