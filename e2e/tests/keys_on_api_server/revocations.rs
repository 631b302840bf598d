//! What a `Revocation` says of itself, on the way to every verifier and where nobody is told of it.

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;
use serde_json::json;
use servicechain_crds::Revocation;
use servicechain_e2e::cluster::await_seen;
use servicechain_operator::clock;
use servicechain_operator::controller::revocations::look;

use crate::Shop;
use crate::leader::DEADLINE;
use crate::pods::SERVICE;

impl Shop {
    /// The object once its condition has this reason, and the condition's status and message.
    async fn await_reason(&self, name: &str, reason: &str) -> (Revocation, String, String) {
        let seen = await_seen("the reason of a Revocation", DEADLINE, async || {
            let object = self.cluster.api::<Revocation>().get(name).await.unwrap();
            let status = object.status.clone().unwrap_or_default();
            match status.conditions.first() {
                Some(said) if said.reason == reason => {
                    Ok((object, said.status.clone(), said.message.clone()))
                }
                said => Err(format!("{said:?}")),
            }
        });
        seen.await.unwrap()
    }
}

#[tokio::test]
async fn a_revocation_says_when_every_verifier_holds_it_and_then_nothing_more() {
    let shop = Shop::start().await;
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let (enforced, truth, _) = shop.await_reason("mallory", "Enforced").await;
    let status = enforced.status.clone().unwrap();
    assert_eq!(
        (truth.as_str(), status.acknowledged, status.verifiers),
        ("True", 4, 4)
    );
    assert_eq!(status.observed_generation, Some(1));
    for pod in &shop.pods {
        let held = pod.verifier.held().unwrap().generation().number();
        assert!(Some(i64::try_from(held).unwrap()) >= status.bundle_generation);
    }

    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    drop(shop.cluster.schedule("a-silent", SERVICE, &services).await);
    shop.cluster.say_running("a-silent").await;
    shop.revoke("eve", json!({"subject": "eve"})).await;
    let (_, truth, message) = shop.await_reason("eve", "Laggards").await;
    assert_eq!(truth, "False");
    assert!(
        message.starts_with("4 of 5 verifiers refuse what it names; not yet: a-silent (does not answer); "),
        "{message}"
    );
    shop.revoke("corp", json!({"issuer": "corp", "subject": "eve"}))
        .await;
    let (_, truth, message) = shop.await_reason("corp", "NoSuchIssuer").await;
    assert_eq!(truth, "False");
    assert!(
        message.starts_with("chain shop has no issuer corp; "),
        "{message}"
    );
    // Who came later takes it before being ready, so what was said stands.
    let later = shop.cluster.api::<Revocation>().get("mallory").await.unwrap();
    assert_eq!(later.resource_version(), enforced.resource_version());
}

#[tokio::test]
async fn a_revocation_of_a_chain_that_is_not_there_says_so() {
    let shop = Shop::start().await;
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let (enforced, ..) = shop.await_reason("mallory", "Enforced").await;
    shop.revoke(
        "lost",
        json!({"chainRef": {"name": "shpo"}, "subject": "mallory"}),
    )
    .await;
    let look = async || {
        let client = &shop.cluster.client;
        let namespace = Some(shop.cluster.namespace.as_str());
        look(client, namespace, &shop.leader.keys, &clock::system())
            .await
            .unwrap();
    };
    look().await;
    let (lost, truth, message) = shop.await_reason("lost", "NoSuchChain").await;
    assert_eq!(truth, "False");
    assert!(
        message.starts_with("there is no chain shpo in its namespace; "),
        "{message}"
    );
    look().await;
    let revocations = shop.cluster.api::<Revocation>();
    for object in [lost, enforced] {
        let again = revocations.get(&object.name_any()).await.unwrap();
        assert_eq!(again.resource_version(), object.resource_version());
    }
}
