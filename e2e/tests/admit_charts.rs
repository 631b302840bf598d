//! The Helm charts: rendered as committed, bad values refused in words, every object accepted by a real API server in a
//! namespace of Pod Security `restricted`, and the operator granted what it needs and no more.
#![cfg(test)]

use std::path::Path;
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_e2e::charts::{NAMESPACE, cases, chart, crds_are_served, helm, render};
use servicechain_e2e::cluster::client;
use servicechain_fixtures::api_server::ApiServer;
use servicechain_fixtures::program;
use servicechain_operator::config::Args;

const OPERATOR: &str = "system:serviceaccount:servicechain-system:servicechain-operator";

struct Cluster {
    server: ApiServer,
    client: Client,
}

impl Cluster {
    /// With the namespaces `servicechain-system` and `shop`, both restricted.
    async fn start() -> Self {
        let server = ApiServer::start().unwrap();
        let client = client(server.kubeconfig()).await.unwrap();
        let cluster = Self { server, client };
        for namespace in [NAMESPACE, "shop"] {
            cluster.kubectl(&["create", "namespace", namespace]);
            let restricted =
                ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
            cluster.kubectl(&["label", "namespace", namespace, &restricted[0], &restricted[1]]);
        }
        cluster
    }

    /// What it prints. It must succeed, and warn of nothing.
    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.run("kubectl", arguments)
    }

    #[track_caller]
    fn helm(&self, arguments: &[&str]) -> String {
        self.run("helm", &[&["--namespace", NAMESPACE], arguments].concat())
    }

    #[track_caller]
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program(name).unwrap());
        command
            .env("KUBECONFIG", self.server.kubeconfig())
            // What another server knew at the same port is not asked.
            .env(
                "KUBECACHEDIR",
                self.server.kubeconfig().with_file_name("discovery"),
            )
            .args(arguments);
        let output = command.output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(complaint, "", "{name} {arguments:?}");
        assert!(output.status.success(), "{name} {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn may(&self, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let (group, resource) = resource.split_once('/').unwrap();
        let (resource, subresource) = resource.split_once(':').unwrap_or((resource, ""));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(OPERATOR.to_owned()),
                resource_attributes: Some(ResourceAttributes {
                    verb: given(verb),
                    group: given(group),
                    resource: given(resource),
                    subresource: given(subresource),
                    namespace: given(namespace),
                    name: given(name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await.unwrap();
        review.status.unwrap().allowed
    }

    /// Each line is `verbs group/resources namespace [name]`.
    async fn assert_may(&self, expected: bool, lines: &[&str]) {
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (verbs, resources, namespace) = (words[0], words[1], words[2].trim_matches('*'));
            let name = words.get(3).copied().unwrap_or_default();
            for verb in verbs.split(',') {
                for resource in resources.split(',') {
                    let may = self.may(verb, resource, namespace, name).await;
                    assert_eq!(may, expected, "{verb} {resource} in {:?} {name:?}", words[2]);
                }
            }
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn charts_pass_helms_own_linter() {
    let crds = chart("servicechain-crds");
    helm(["lint", "--strict", "--quiet", text(&crds)]).unwrap();
    let operator = chart("servicechain");
    for (values, _) in cases().unwrap() {
        helm([
            "lint",
            "--strict",
            "--quiet",
            text(&operator),
            "--values",
            text(&values),
        ])
        .unwrap();
    }
}

#[test]
fn charts_have_the_version_of_the_programs() {
    for name in ["servicechain-crds", "servicechain"] {
        let text = std::fs::read_to_string(chart(name).join("Chart.yaml")).unwrap();
        let about: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(about["version"], env!("CARGO_PKG_VERSION"), "{name}");
        assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"), "{name}");
    }
}

#[test]
fn rendered_objects_are_those_committed() {
    let cases = cases().unwrap();
    assert_eq!(cases.len(), 4, "values files");
    for (values, committed) in cases {
        let rendered = render(&values).unwrap();
        assert!(
            rendered == std::fs::read_to_string(&committed).unwrap_or_default(),
            "{} is stale: run `cargo run -p servicechain-e2e --features apiserver --example render_charts`",
            committed.display()
        );
    }
}

#[test]
fn the_operator_understands_what_the_chart_tells_it() {
    for (values, _) in cases().unwrap() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&render(&values).unwrap()).unwrap();
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment")
            .unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let command = Args::command();
        let mut flags = vec!["servicechain-operator".to_owned()];
        for variable in container["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let flag = command
                .get_arguments()
                .find(|flag| flag.get_env().is_some_and(|variable| variable == name))
                .unwrap_or_else(|| panic!("the operator knows no {name}"));
            // Of the downward API, an address is the hardest to please.
            let value = variable["value"].as_str().unwrap_or("10.0.0.7");
            let flag_name = flag.get_long().unwrap();
            flags.push(if flag.get_action().takes_values() {
                format!("--{flag_name}={value}")
            } else {
                assert_eq!(value, "true", "{name} is on or absent");
                format!("--{flag_name}")
            });
        }
        let args =
            Args::try_parse_from(flags).unwrap_or_else(|error| panic!("{}: {error}", values.display()));
        let major = args.settings().unwrap().default_postgres_major;
        assert_eq!(
            major,
            if text(&values).contains("one-namespace") {
                "18"
            } else {
                "17"
            }
        );
        assert_eq!(
            container["ports"],
            json!([{"name": "admin", "containerPort": args.admin_port}, {"name": "knock", "containerPort": args.knock_port}])
        );
    }
}

#[test]
fn bad_values_are_refused_by_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    for (values, says) in [
        (
            json!({"replica": 2}),
            "additional properties 'replica' not allowed",
        ),
        (json!({"replicas": 0}), "at '/replicas': minimum: got 0, want 1"),
        (
            json!({"watchNamespace": "Shop"}),
            "at '/watchNamespace': 'Shop' does not match pattern",
        ),
        (
            json!({"images": {"redis": {"tag": 7}}}),
            "at '/images/redis/tag': got number, want string",
        ),
        (
            json!({"images": {"redis": {"tag": ""}}}),
            "images.redis needs a tag or a digest",
        ),
        (
            json!({"images": {"gateway": {"digest": "sha256:1"}}}),
            "at '/images/gateway/digest'",
        ),
        (
            json!({"images": {"gateway": {"repository": "a b"}}}),
            "at '/images/gateway/repository'",
        ),
        (
            json!({"images": {"postgres": {"latest": {"repository": "postgres"}}}}),
            "at '/images/postgres': additional properties 'latest' not allowed",
        ),
        (
            json!({"defaultPostgresMajor": "14"}),
            "defaultPostgresMajor: \"14\" has no image in images.postgres, which has 15, 16, 17",
        ),
        (
            json!({"nodePortURLs": {"30080": "127.0.0.1:8080"}}),
            "at '/nodePortURLs/30080'",
        ),
        (
            json!({"log": {"format": "text"}}),
            "at '/log/format': value must be one of 'json', 'human'",
        ),
        (
            json!({"networkPolicy": false}),
            "at '/networkPolicy': got boolean, want object",
        ),
    ] {
        std::fs::write(&file, values.to_string()).unwrap();
        let refused = render(&file).unwrap_err().to_string();
        assert!(refused.contains(says), "{values}: {refused}");
    }
}

#[tokio::test]
async fn every_rendered_object_is_accepted_where_pod_security_is_restricted() {
    let cluster = Cluster::start().await;
    for (values, rendered) in cases().unwrap() {
        let dry = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--filename",
        ];
        cluster.kubectl(&[&dry[..], &[text(&rendered)]].concat());
        // A Deployment is only warned about; its pod would be refused.
        let objects: Vec<Value> = serde_saphyr::from_multiple(&render(&values).unwrap()).unwrap();
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment")
            .unwrap();
        let mut pod = deployment["spec"]["template"].clone();
        pod["metadata"]["name"] = json!("operator");
        pod["spec"]["priorityClassName"] = Value::Null;
        let pod = serde_json::from_value(pod).unwrap();
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(cluster.client.clone(), NAMESPACE);
        pods.create(&dry, &pod).await.unwrap();
    }
}

#[tokio::test]
async fn charts_install_upgrade_and_leave_what_must_stay() {
    let cluster = Cluster::start().await;
    let (crds, operator) = (chart("servicechain-crds"), chart("servicechain"));
    let notes = cluster.helm(&["install", "servicechain", text(&operator)]);
    assert!(
        notes.contains("The cluster does not know ServiceChains yet"),
        "{notes}"
    );
    let notes = cluster.helm(&["install", "servicechain-crds", text(&crds)]);
    assert!(notes.contains("helm upgrade --install servicechain"), "{notes}");
    crds_are_served(&cluster.client).await.unwrap();
    let notes = cluster.helm(&["upgrade", "servicechain", text(&operator), "--set", "replicas=3"]);
    assert!(!notes.contains("does not know ServiceChains"), "{notes}");
    for left in [
        "servicechain-trust-key",
        "servicechain-root-secret",
        "volumes",
        "deletionPolicy",
    ] {
        assert!(notes.contains(left), "{left}: {notes}");
    }
    let path = "jsonpath={.metadata.annotations.servicechain\\.dev/schema}";
    let schema = cluster.kubectl(&["get", "crd", "servicechains.servicechain.dev", "--output", path]);
    assert_eq!(schema, servicechain_crds::schema::SCHEMA.to_string());
    cluster.kubectl(&[
        "apply",
        "--namespace",
        "shop",
        "--filename",
        text(&chart("../examples/shop.yaml")),
    ]);

    cluster.helm(&["uninstall", "servicechain"]);
    cluster.helm(&["uninstall", "servicechain-crds"]);
    let left = cluster.kubectl(&["get", "chain", "--namespace", "shop", "--output", "name"]);
    assert_eq!(left, "servicechain.servicechain.dev/shop\n");
    // And what stayed is taken over again.
    cluster.helm(&["install", "servicechain-crds", text(&crds)]);
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_and_no_more() {
    let cluster = Cluster::start().await;
    cluster.helm(&["install", "servicechain", text(&chart("servicechain"))]);
    let crds = "apiextensions.k8s.io/customresourcedefinitions";
    cluster
        .assert_may(
            true,
            &[
                "get,list,watch servicechain.dev/servicechains **",
                "list,watch servicechain.dev/revocations **",
                "patch servicechain.dev/servicechains:status,servicechain.dev/revocations:status shop",
                "get,create,patch,delete /secrets shop",
                "get,list,watch,create,update,patch,delete /configmaps shop",
                "get,list,watch,create,patch,delete /services,/serviceaccounts,apps/deployments shop",
                "get,list,watch,create,patch,delete apps/statefulsets,networking.k8s.io/networkpolicies shop",
                "get,list,watch,create,patch,delete policy/poddisruptionbudgets shop",
                "get,list,watch,create,patch /persistentvolumeclaims shop",
                "list,watch /pods **",
                "list apps/replicasets,/events **",
                "create,patch events.k8s.io/events shop",
                "create coordination.k8s.io/leases servicechain-system",
                "get,update coordination.k8s.io/leases servicechain-system servicechain-operator",
                "get,update /secrets servicechain-system servicechain-trust-key",
                "get /secrets servicechain-system servicechain-root-secret",
                "get apiextensions.k8s.io/customresourcedefinitions ** servicechains.servicechain.dev",
            ],
        )
        .await;
    cluster
        .assert_may(
            false,
            &[
                "list,watch,update,deletecollection /secrets **",
                "list,watch /secrets servicechain-system",
                "update /secrets servicechain-system servicechain-root-secret",
                "create,update,patch,delete servicechain.dev/servicechains shop",
                "create,update,patch,delete servicechain.dev/revocations shop",
                "delete,update /persistentvolumeclaims shop",
                "get,create,delete,patch /pods shop",
                "create /pods:exec shop",
                "create /serviceaccounts:token shop",
                "get,create,update coordination.k8s.io/leases shop servicechain-operator",
                "update coordination.k8s.io/leases servicechain-system other",
                "create,bind,escalate rbac.authorization.k8s.io/roles,rbac.authorization.k8s.io/clusterroles shop",
                "impersonate /users **",
                "get,list /nodes **",
            ],
        )
        .await;
    for verb in ["list", "watch", "create", "patch", "delete"] {
        assert!(!cluster.may(verb, crds, "", "").await, "{verb} {crds}");
    }
    assert!(!cluster.may("get", crds, "", "others.example.com").await);
}

#[tokio::test]
async fn an_operator_of_one_namespace_may_nothing_in_others() {
    let cluster = Cluster::start().await;
    cluster.helm(&[
        "install",
        "servicechain",
        text(&chart("servicechain")),
        "--set",
        "watchNamespace=shop",
    ]);
    cluster
        .assert_may(
            true,
            &[
                "get,list,watch servicechain.dev/servicechains shop",
                "get,create,patch,delete /secrets shop",
                "get /secrets servicechain-system servicechain-root-secret",
                "create /secrets servicechain-system",
                "get apiextensions.k8s.io/customresourcedefinitions ** servicechains.servicechain.dev",
            ],
        )
        .await;
    cluster
        .assert_may(
            false,
            &[
                "get,list,watch servicechain.dev/servicechains **",
                "get,list,watch servicechain.dev/servicechains default",
                "get,create,patch /secrets,/configmaps,apps/deployments default",
                "get /secrets servicechain-system other",
                "list,watch /pods **",
            ],
        )
        .await;
}
