//! The CRDs on a real API server: installed without a warning, each rule judged as its file in `crds/admit` says, every
//! field kept, and shown as people see it.
#![cfg(test)]

#[path = "../../crds/admit/cases.rs"]
mod cases;

use std::path::{Path, PathBuf};
use std::process::Command;

use cases::{Case, cases};
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_crds::{Revocation, RevocationSpec, ServiceChain, ServiceChainSpec};
use servicechain_e2e::charts::crds_are_served;
use servicechain_e2e::cluster::{client, fresh_namespace};
use servicechain_fixtures::api_server::ApiServer;
use servicechain_fixtures::program;

struct Cluster {
    server: ApiServer,
    client: Client,
    namespace: String,
}

impl Cluster {
    /// With both CRDs, and a namespace of the test's own.
    async fn start() -> Self {
        let server = ApiServer::start().unwrap();
        let client = client(server.kubeconfig()).await.unwrap();
        let namespace = fresh_namespace(&client).await.unwrap();
        let cluster = Self {
            server,
            client,
            namespace,
        };
        cluster.install_crds();
        crds_are_served(&cluster.client).await.unwrap();
        cluster
    }

    fn install_crds(&self) {
        let folder = repository("crds");
        let folder = folder.to_str().unwrap();
        assert_eq!(self.kubectl(&["apply", "--filename", folder]).1, "");
    }

    /// What kubectl prints, and what it complains of.
    fn kubectl(&self, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new(program("kubectl").unwrap());
        command
            .env("KUBECONFIG", self.server.kubeconfig())
            // What another server knew at the same port is not asked.
            .env(
                "KUBECACHEDIR",
                self.server.kubeconfig().with_file_name("discovery"),
            )
            .args(["--namespace", &self.namespace])
            .args(arguments);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let resource = match object["kind"].as_str().unwrap() {
            "ServiceChain" => ApiResource::erase::<ServiceChain>(&()),
            _ => ApiResource::erase::<Revocation>(&()),
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Why the API server refuses a case: the message of each cause.
    async fn refusal(&self, case: &Case) -> Vec<String> {
        let api = self.api(&case.object);
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let mut object: DynamicObject = serde_json::from_value(case.object.clone()).unwrap();
        let outcome = match &case.before {
            None => api.create(&dry, &object).await,
            Some(before) => {
                let before = serde_json::from_value(before.clone()).unwrap();
                let before = api.create(&PostParams::default(), &before).await.unwrap();
                object.metadata.resource_version = before.metadata.resource_version;
                let name = before.metadata.name.unwrap();
                let outcome = api.replace(&name, &dry, &object).await;
                api.delete(&name, &DeleteParams::default()).await.unwrap();
                outcome
            }
        };
        match outcome {
            Ok(_) => Vec::new(),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                causes.into_iter().map(|cause| cause.message).collect()
            }
            Err(error) => panic!("{}: {error}", case.name),
        }
    }

    /// Creates an object and its status, and reads both back.
    async fn stored(&self, written: &Value) -> Value {
        let api = self.api(written);
        let mut object: DynamicObject = serde_json::from_value(written.clone()).unwrap();
        object.metadata.namespace = None;
        let created = api.create(&PostParams::default(), &object).await.unwrap();
        let mut stored = serde_json::to_value(created).unwrap();
        if !written["status"].is_null() {
            stored["status"] = written["status"].clone();
            let name = written["metadata"]["name"].as_str().unwrap();
            let object = serde_json::from_value(stored).unwrap();
            let written = api
                .replace_status(name, &PostParams::default(), &object)
                .await
                .unwrap();
            stored = serde_json::to_value(written).unwrap();
        }
        stored
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn fixture() -> Vec<Value> {
    serde_saphyr::from_multiple(include_str!("../../crds/fixtures/v1alpha1.yaml")).unwrap()
}

#[tokio::test]
async fn every_rule_refuses_what_its_file_says_with_its_sentence_alone() {
    let cluster = Cluster::start().await;
    for case in cases() {
        let causes = cluster.refusal(&case).await;
        if case.is_refused {
            let is_said = |cause: &String| cause.ends_with(&case.says);
            assert!(
                !causes.is_empty() && causes.iter().all(is_said),
                "{}: {causes:#?}",
                case.name
            );
        } else {
            assert_eq!(causes, [""; 0], "{}", case.name);
        }
    }
}

#[tokio::test]
async fn crds_are_applied_again_without_a_warning() {
    let cluster = Cluster::start().await;
    cluster.install_crds();
    let chart = repository("charts/servicechain-crds/templates");
    for crd in ["servicechains.yaml", "revocations.yaml"] {
        let file = chart.join(crd);
        let server_side = ["apply", "--server-side", "--force-conflicts", "--filename"];
        let arguments = [&server_side[..], &[file.to_str().unwrap()]].concat();
        assert_eq!(cluster.kubectl(&arguments).1, "", "{crd}");
    }
}

#[tokio::test]
async fn every_field_is_kept_and_defaults_are_those_of_the_types() {
    let cluster = Cluster::start().await;
    let mut objects = fixture();
    objects.push(serde_saphyr::from_str(include_str!("../../crds/admit/chain.yaml")).unwrap());
    objects.last_mut().unwrap()["metadata"]["name"] = json!("small");
    for written in objects {
        let name = &written["metadata"]["name"];
        let stored = cluster.stored(&written).await;
        if written["kind"] == "ServiceChain" {
            let of = |value: &Value| serde_json::from_value::<ServiceChain>(value.clone()).unwrap();
            let specs: [ServiceChainSpec; 2] = [of(&stored).spec, of(&written).spec];
            assert_eq!(specs[0], specs[1], "{name}");
            assert_eq!(of(&stored).status, of(&written).status, "{name}");
            // What the types fill in, the API server filled in before.
            assert_eq!(stored["spec"], serde_json::to_value(&specs[0]).unwrap(), "{name}");
        } else {
            let of = |value: &Value| serde_json::from_value::<Revocation>(value.clone()).unwrap();
            let specs: [RevocationSpec; 2] = [of(&stored).spec, of(&written).spec];
            assert_eq!(specs[0], specs[1], "{name}");
            assert_eq!(of(&stored).status, of(&written).status, "{name}");
        }
    }
}

#[tokio::test]
async fn chains_and_revocations_are_shown_in_one_line() {
    let cluster = Cluster::start().await;
    let objects = fixture();
    cluster.stored(&objects[0]).await;
    let revocation = objects.iter().find(|object| object["kind"] == "Revocation");
    cluster.stored(revocation.unwrap()).await;
    let words = |kind: &str| -> Vec<Vec<String>> {
        let (table, complaint) = cluster.kubectl(&["get", kind]);
        assert_eq!(complaint, "");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        table.lines().map(words).collect()
    };
    let chain = words("chain");
    assert_eq!(chain[0], ["NAME", "READY", "SERVICES", "KEYS", "AGE"]);
    assert_eq!(chain[1][..4], ["shop", "True", "3/3", "10/10@7"]);
    let revocation = words("revocation");
    assert_eq!(revocation[0], ["NAME", "CHAIN", "ISSUER", "ENFORCED", "AGE"]);
    assert_eq!(revocation[1][..3], ["mallory-2026-01-01", "shop", "platform"]);
}
