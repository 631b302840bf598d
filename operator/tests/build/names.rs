//! Names within Kubernetes' limits, and of which no two are the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;
use servicechain_crds::ValidatedChain;
use servicechain_operator::object_names::{accepted_config_map, bundle_config_map, components, selector};

use crate::workshop::{built, chain, objects, shop};

/// Names out of few letters and of the words that objects are called by, so that they come close to colliding.
fn name() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a", "b", "gateway", "issuer", "client", "postgres", "redis", "keys", "accepted", "config", "ack",
    ]);
    prop::collection::vec(word, 1..4)
        .prop_map(|words| words.join("-").chars().take(15).collect::<String>())
        .prop_map(|name| name.trim_end_matches('-').to_owned())
}

/// A chain that is accepted, of names that are.
fn accepted_chain() -> impl Strategy<Value = ValidatedChain> {
    let names = |most| prop::collection::btree_set(name(), 1..most);
    let parts = (names(4), names(6), names(4), "[a-z][-a-z]{0,18}[a-z]");
    parts.prop_filter_map("such a chain is refused", |(issuers, services, clients, name)| {
        let clients: Vec<_> = clients.iter().map(|id| json!({"id": id})).collect();
        let issuers: Vec<_> = issuers
            .iter()
            .map(|name| json!({"name": name, "managed": {"clients": clients}}))
            .collect();
        let first = services.first().cloned();
        let services: Vec<_> = services
            .iter()
            .map(|name| json!({"name": name, "database": {"managed": {}}, "cache": {"managed": {}}}))
            .collect();
        let chain = json!({
            "apiVersion": "servicechain.dev/v1alpha1", "kind": "ServiceChain",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "audiences": ["shop"], "issuers": issuers, "services": services,
                "gateway": {"routes": [{"name": "all", "service": first}]},
            },
        });
        servicechain_crds::read(&chain.to_string()).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_global_rejects: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_objects_of_a_chain_have_the_same_name(chain in accepted_chain()) {
        let mut names = BTreeSet::from([
            ("ConfigMap".to_owned(), bundle_config_map(&chain.name)),
            ("ConfigMap".to_owned(), accepted_config_map(&chain.name)),
        ]);
        for (kind, name, _) in objects(built(&chain)) {
            prop_assert!(name.len() <= if kind == "Secret" { 253 } else { 63 }, "{kind} {name} is too long");
            // The name of a StatefulSet becomes, with a hash, the value of a label of its pods.
            prop_assert!(kind != "StatefulSet" || name.len() <= 52, "{name} is too long");
            prop_assert!(names.insert((kind.clone(), name.clone())), "two {kind} are called {name}");
        }
        let selectors: BTreeSet<_> =
            components(&chain).into_iter().map(|component| selector(&chain.name, component)).collect();
        prop_assert_eq!(selectors.len(), components(&chain).len());
    }
}

#[test]
fn the_longest_names_that_are_allowed_fit() {
    let longest = |letter: &str| letter.repeat(15);
    let chain = chain(&json!({
        "apiVersion": "servicechain.dev/v1alpha1", "kind": "ServiceChain",
        "metadata": {"name": "s".repeat(20), "namespace": "n".repeat(63)},
        "spec": {
            "audiences": ["shop"],
            "issuers": [{"name": longest("i"), "managed": {"clients": [{"id": "c".repeat(63)}]}}],
            "services": [{"name": longest("a"), "database": {"managed": {}}, "cache": {"managed": {}}}],
            "gateway": {"routes": [{"name": "all", "service": longest("a")}]},
        },
    }));
    for (kind, name, object) in objects(built(&chain)) {
        assert!(
            name.len() <= if kind == "Secret" { 253 } else { 52 },
            "{kind} {name}"
        );
        for value in object["metadata"]["labels"].as_object().unwrap().values() {
            assert!(
                value.as_str().unwrap().len() <= 63,
                "{kind} {name}: label {value}"
            );
        }
    }
}

#[test]
fn selectors_are_chain_and_component_and_nothing_else() {
    let names = ["servicechain.dev/chain", "servicechain.dev/component"];
    let expected = |labels: &serde_json::Value| {
        labels
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            == names
    };
    let mut selectors = 0;
    for (kind, name, object) in objects(built(&shop())) {
        let selector = match kind.as_str() {
            "Service" => &object["spec"]["selector"],
            "Deployment" | "StatefulSet" | "PodDisruptionBudget" => {
                &object["spec"]["selector"]["matchLabels"]
            }
            "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
            _ => continue,
        };
        assert!(expected(selector), "{kind} {name}: {selector}");
        selectors += 1;
    }
    assert_eq!(
        selectors,
        11 + 11 + 5 + 11,
        "Services, what runs, budgets, policies"
    );
}

#[test]
fn every_object_says_whose_it_is() {
    for (kind, name, object) in objects(built(&shop())) {
        let metadata = &object["metadata"];
        assert_eq!(metadata["namespace"], "shop", "{kind} {name}");
        assert_eq!(
            metadata["labels"]["servicechain.dev/chain"], "shop",
            "{kind} {name}"
        );
        assert!(
            metadata["labels"]["servicechain.dev/component"].is_string(),
            "{kind} {name}"
        );
        let is_kept = kind == "PersistentVolumeClaim" || (kind == "Secret" && name.ends_with("-postgres"));
        let owner = &metadata["ownerReferences"][0]["uid"];
        assert_eq!(owner.is_null(), is_kept, "{kind} {name}");
    }
}
