//! `revoke`: what it makes, what it waits for, and what it ends.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use servicechain_crds::Revocation;
use servicechain_fixtures::await_condition;

use crate::{DONE_WITHIN, Ended, Shop, condition, create, ended, ready, servicechain};

/// What the operator says of a revocation that some do not hold.
const BEHIND: &str = "2 of 3 verifiers refuse what it names; not yet: shop-b-1 (does not answer)";
const DOCUMENT: &str = include_str!("../../../docs/revocations.md");

impl Shop {
    async fn revocations(&self) -> Vec<Revocation> {
        let all = self.api::<Revocation>().list(&ListParams::default()).await;
        all.unwrap().items
    }

    async fn await_revocation(&self) -> Revocation {
        let made = await_condition("a Revocation", DONE_WITHIN, async || {
            self.revocations().await.pop().ok_or("there is none")
        });
        made.await.unwrap()
    }

    /// What the operator would say of it.
    async fn says_of(&self, revocation: &Revocation, enforced: Value, acknowledged: i32) {
        let status = json!({"status": {"observedGeneration": 1, "bundleGeneration": 7, "acknowledged": acknowledged,
            "verifiers": 3, "conditions": [enforced]}});
        self.api::<Revocation>()
            .patch_status(
                &revocation.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await
            .unwrap();
    }

    /// A verifier's pod on a node.
    async fn verifier(&self, name: &str, component: &str) -> Pod {
        create(
            &self.api(),
            json!({
                "metadata": {"name": name, "labels": {
                    "servicechain.dev/chain": "shop", "servicechain.dev/component": component}},
                "spec": {"nodeName": "worker-2", "containers": [{"name": "x", "image": "x"}]},
            }),
        )
        .await
    }

    /// As a Service's controller writes it of these pods.
    async fn sends_to(&self, pods: &[&Pod]) {
        let endpoint =
            |pod: &&Pod| json!({"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "uid": pod.uid()}});
        let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
        let _: EndpointSlice = create(
            &self.api(),
            json!({"metadata": {"name": "shop-b"}, "addressType": "IPv4", "endpoints": endpoints, "ports": []}),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_said_and_nothing_is_made() {
    let shop = Shop::new().await.with_chain().await;
    for (line, code, says) in [
        (
            "shp --issuer platform --subject m",
            4,
            "there is no chain \"shp\"",
        ),
        (
            "shop --issuer corp --subject m",
            2,
            "chain shop has no issuer \"corp\"; it has platform",
        ),
        (
            "shop --issuer platform",
            2,
            "required arguments were not provided",
        ),
        ("shop --subject m", 2, "--issuer <NAME>"),
        (
            "shop --issuer platform --subject m --client c",
            2,
            "cannot be used with",
        ),
        (
            "shop --issuer platform --key k --issued-before 2026-01-31T12:00:00Z",
            2,
            "cannot be used with",
        ),
        (
            "shop --issuer platform --client c --issued-before noon",
            2,
            "2026-01-31T12:00:00Z",
        ),
    ] {
        let end = shop.ends(&format!("revoke -n NS {line}")).await;
        assert_eq!(end.code, Some(code), "{line}: {end:?}");
        assert!(end.stderr.contains(says), "{line}: {end:?}");
    }
    assert_eq!(shop.revocations().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_when_the_operator_says_so_of_the_object_that_was_made() {
    let shop = Shop::new().await.with_chain().await;
    let command =
        shop.run("revoke -n NS shop --issuer platform --client demo --issued-before 2027-01-31T00:00:00Z");
    let (end, ()) = tokio::join!(ended(command), async {
        let made = shop.await_revocation().await;
        assert_eq!(
            serde_json::to_value(&made.spec).unwrap(),
            json!({"chainRef": {"name": "shop"}, "issuer": "platform", "clientID": "demo",
                   "issuedBefore": "2027-01-31T00:00:00Z"})
        );
        shop.says_of(&made, condition("Enforced", "True", 1, ""), 3).await;
    });
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{end:?}");
    assert!(
        end.stdout
            .starts_with("client demo of platform is refused after ")
            && end.stdout.ends_with(" s, 3/3 verifiers, generation 7\n"),
        "{end:?}"
    );
    // The same order is the same object, and has been carried out.
    let again = shop
        .ends(
            "revoke -n NS shop --issuer platform --client demo --issued-before 2027-01-31T00:00:00Z -o json",
        )
        .await;
    let said: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (
            &said["chain"],
            &said["acknowledged"],
            &said["verifiers"],
            &said["generation"],
            &said["isolated"]
        ),
        (&json!("shop"), &json!(3), &json!(3), &json!(7), &Value::Null)
    );
    assert_eq!(shop.revocations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_refuse_it_in_time_is_named_and_the_revocation_stays() {
    let shop = Shop::new().await.with_chain().await;
    let nobody = shop
        .ends("revoke -n NS shop --issuer platform --subject eve --timeout 1s")
        .await;
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
    assert!(
        nobody
            .stderr
            .contains("the operator has said nothing about it yet; is it running?"),
        "{nobody:?}"
    );
    let eve = shop.await_revocation().await;
    shop.api::<Revocation>()
        .delete(&eve.name_any(), &DeleteParams::default())
        .await
        .unwrap();

    let command = shop.run("revoke -n NS shop --issuer platform --subject mallory --timeout 4s");
    let (end, name) = tokio::join!(ended(command), async {
        let made = shop.await_revocation().await;
        shop.says_of(&made, condition("Enforced", "False", 1, BEHIND), 2)
            .await;
        made.name_any()
    });
    assert_eq!(end.code, Some(3), "{end:?}");
    assert_eq!(
        end.stderr,
        format!(
            "error: mallory of platform is not refused everywhere after 4 s\n  {BEHIND}\n  Revocation {name} stays, and \
             the operator goes on with it\n"
        )
    );
    assert_eq!(shop.revocations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_taken_back_meanwhile_is_no_success() {
    let shop = Shop::new().await.with_chain().await;
    let command = shop.run("revoke -n NS shop --issuer platform --subject mallory --timeout 60s");
    let (end, ()) = tokio::join!(ended(command), async {
        let made = shop.await_revocation().await;
        let api = shop.api::<Revocation>();
        api.delete(&made.name_any(), &DeleteParams::default())
            .await
            .unwrap();
    });
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr
            .contains("was deleted while it was waited for: mallory of platform may pass"),
        "{end:?}"
    );
}

/// The rules of the role in the documentation.
fn documented_rules() -> Value {
    let (_, rest) = DOCUMENT.split_once("```yaml\n").unwrap();
    let (role, _) = rest.split_once("```").unwrap();
    let role: Value = serde_saphyr::from_str(role).unwrap();
    role["rules"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_before_anything_is_done() {
    let shop = Shop::new().await.with_chain().await;
    let (_folder, file) = shop.kubeconfig_of("jane");
    let ends = async |more: &str| -> Ended {
        ended(servicechain(
            &file,
            &format!("revoke shop --issuer platform --subject mallory --timeout 1s {more}"),
        ))
        .await
    };
    let ours = |resource: &str, verbs: &[&str]| json!([{"apiGroups": ["servicechain.dev"], "resources": [resource], "verbs": verbs}]);
    shop.grant("jane", "view", ours("servicechains", &["get", "list", "watch"]))
        .await;
    let end = ends("").await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr
            .contains("user \"jane\" may not create revocations.servicechain.dev in namespace "),
        "{end:?}"
    );
    shop.grant(
        "jane",
        "revoke",
        ours(
            "revocations",
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
    )
    .await;
    let end = ends("--isolate").await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr.contains("you may not get pods in namespace ")
            && end
                .stderr
                .contains("ask for a role with the verb \"get\" on \"pods\""),
        "{end:?}"
    );
    assert_eq!(shop.revocations().await.len(), 0);
    shop.grant("jane", "isolate", documented_rules()).await;
    let end = ends("--isolate").await;
    assert_eq!(end.code, Some(3), "nobody plays the operator: {end:?}");
    assert_eq!(shop.revocations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_isolated_loses_its_services_and_ends_and_nobody_else_does() {
    let shop = Shop::new().await.with_chain().await;
    let (current, behind) = (
        shop.verifier("shop-a-1", "a").await,
        shop.verifier("shop-b-1", "b").await,
    );
    shop.sends_to(&[&current, &behind]).await;
    shop.says(ready(1)).await;
    let (_folder, file) = shop.kubeconfig_of("jane");
    for (role, rules) in [
        (
            "chains",
            json!([{"apiGroups": ["servicechain.dev"], "resources": ["servicechains", "revocations"],
                           "verbs": ["get", "create"]}]),
        ),
        ("isolate", documented_rules()),
    ] {
        shop.grant("jane", role, rules).await;
    }
    let command = servicechain(
        &file,
        "revoke shop --issuer platform --subject mallory --timeout 5s --isolate",
    );
    let (end, later) = tokio::join!(ended(command), async {
        let made = shop.await_revocation().await;
        // Named as behind too, but it came after the revocation: it takes it before it is ready. Creation is told in seconds.
        let later = loop {
            let later = shop.verifier("shop-b-2", "b").await;
            if later.creation_timestamp() > made.creation_timestamp() {
                break later;
            }
            let at_once = DeleteParams::default().grace_period(0);
            shop.api::<Pod>().delete("shop-b-2", &at_once).await.unwrap();
        };
        let mut status = ready(1);
        let since = "2026-01-01T00:00:00Z";
        status["keys"]["laggards"] = json!([
            {"pod": "shop-b-1", "generation": 6, "reason": "Unreachable", "since": since},
            {"pod": "shop-b-2", "reason": "Behind", "since": since},
        ]);
        shop.says(status).await;
        shop.says_of(&made, condition("Enforced", "False", 1, BEHIND), 2)
            .await;
        later
    });
    assert_eq!(end.code, Some(3), "its node never says that it ended: {end:?}");
    let said = end.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains(
            "mallory of platform is not refused everywhere after 10 s 2 of 3 verifiers refuse what it names; not yet: \
             shop-b-1 (does not answer) shop-b-1 (Unreachable) was told to end, and Services still send to it; its node \
             worker-2 has not said that it did, so it may still run there."
        ),
        "{said}"
    );
    let pods = shop.api::<Pod>();
    let isolated = pods.get("shop-b-1").await.unwrap();
    assert!(isolated.metadata.deletion_timestamp.is_some());
    let labels = isolated.labels();
    assert_eq!(labels.get("servicechain.dev/component"), None);
    assert_eq!(labels["servicechain.dev/isolated"], "b");
    assert_eq!(
        labels["servicechain.dev/chain"], "shop",
        "the operator goes on counting it"
    );
    for untouched in [&current, &later] {
        let now = pods.get(&untouched.name_any()).await.unwrap();
        assert_eq!(
            now.resource_version(),
            untouched.resource_version(),
            "{}",
            now.name_any()
        );
    }
}
