//! What could not be written, whose name is taken, and which Secrets of users are missing or another's.

use serde_json::json;
use servicechain_operator::controller::observed::{NameTaken, Refusal, WriteFailure};

use crate::world::World;

fn with_given_secret() -> World {
    World::of(json!({"issuers": [{
        "name": "platform",
        "managed": {"clients": [{"id": "demo", "secretRef": {"name": "shop-demo"}}]},
    }]}))
}

#[test]
fn a_clients_secret_that_is_not_there_is_named_with_the_keys_it_needs() {
    let mut world = with_given_secret();
    let judged = world.judged();
    judged.names(
        "IssuersReady",
        "MissingSecret",
        "the Secret shop-demo of client demo does not exist; create it with the keys clientID and clientSecret, or mend spec.issuers[platform].managed.clients[demo].secretRef",
    );
    assert_eq!(judged.0.issuers[0].state, "MissingSecret");

    world
        .observed
        .secrets
        .insert("shop-demo".to_owned(), ["clientID".to_owned()].into());
    let judged = world.judged();
    assert!(
        judged
            .says("IssuersReady")
            .2
            .starts_with("the Secret shop-demo of client demo lacks clientSecret; ")
    );

    let keys = ["clientID", "clientSecret"].map(str::to_owned);
    world.observed.secrets.insert("shop-demo".to_owned(), keys.into());
    world
        .observed
        .client_ids
        .insert("shop-demo".to_owned(), "demo".to_owned());
    assert_eq!(world.judged().says("IssuersReady"), ("True", "AllReady", ""));

    world
        .observed
        .client_ids
        .insert("shop-demo".to_owned(), "other".to_owned());
    world.judged().names(
        "IssuersReady",
        "MissingSecret",
        "the Secret shop-demo of client demo is of another, its clientID is not demo; let its clientID be demo, or mend spec.issuers[platform].managed.clients[demo].secretRef",
    );
}

#[test]
fn a_name_that_is_somebody_elses_is_named_with_its_owner() {
    let mut world = World::ready();
    world
        .observed
        .deployments
        .retain(|one| one.metadata.name.as_deref() != Some("shop-b"));
    world.observed.name_taken.push(NameTaken {
        kind: "Deployment",
        name: "shop-b".to_owned(),
        owner: Some("Application other".to_owned()),
    });
    let judged = world.judged();
    judged.names(
        "ServicesReady",
        "NameTaken",
        "Deployment shop-b is not touched, since it belongs to Application other; rename or delete it, or give the chain or its part another name",
    );
    assert!(judged.service("b").message.contains("Application other"));
    assert!(judged.service("a").message.is_empty());

    // A chain that was deleted and made again at once.
    world.observed.name_taken[0].owner = Some("ServiceChain shop".to_owned());
    world.judged().names(
        "ServicesReady",
        "NameTaken",
        "Deployment shop-b is still that of an earlier chain of this name; wait until Kubernetes has removed it with that chain",
    );
}

#[test]
fn what_keeps_every_part_from_being_made_is_why_the_chain_is_not_ready() {
    let mut world = World::ready();
    world.observed.deployments.clear();
    world.observed.write_failures.push(WriteFailure {
        kind: "ConfigMap",
        name: "shop-accepted".to_owned(),
        refusal: Refusal::Quota,
        message: "exceeded quota: narrow".to_owned(),
    });
    let judged = world.judged();
    let (status, reason, message) = judged.says("Ready");
    assert_eq!((status, reason), ("False", "QuotaExceeded"));
    assert!(
        message.starts_with("ConfigMap shop-accepted is not written (exceeded quota: narrow); "),
        "{message}"
    );
}

#[test]
fn refused_writes_are_told_apart() {
    for (refusal, message, reason) in [
        (Refusal::Quota, "exceeded quota: storage", "QuotaExceeded"),
        (
            Refusal::Admission,
            "admission webhook \"x\" denied the request",
            "AdmissionDenied",
        ),
        (
            Refusal::Forbidden,
            "User \"x\" cannot patch resource",
            "Forbidden",
        ),
        (
            Refusal::Invalid,
            "spec.ports[0].nodePort: provided port is already allocated",
            "WriteRefused",
        ),
        (
            Refusal::NamespaceEnds,
            "because it is being terminated",
            "NamespaceEnding",
        ),
        (Refusal::Unavailable, "etcdserver: leader changed", "WriteFailed"),
    ] {
        let mut world = World::ready();
        let service = ("Service", "shop-a-postgres".to_owned());
        world.observed.standing.insert(service.clone());
        world.observed.write_failures.push(WriteFailure {
            kind: "Service",
            name: "shop-a-postgres".to_owned(),
            refusal,
            message: message.to_owned(),
        });
        let judged = world.judged();
        let (status, said, sentence) = judged.says("Degraded");
        assert_eq!((status, said), ("True", reason), "{sentence}");
        assert!(
            sentence.starts_with(&format!("Service shop-a-postgres is not written ({message}); ")),
            "{sentence}"
        );
        assert_eq!(
            judged.says("Ready"),
            ("True", "StillServing", ""),
            "what stands goes on"
        );
        world.observed.standing.remove(&service);
        assert_eq!(
            world.judged().says("StoresReady").1,
            reason,
            "what was never made does not"
        );
    }
}
