//! examples/shop.yaml as its objects, committed, so that a change of what is built is seen in a diff.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::workshop::{built, objects, shop};

const HEADER: &str = "# What examples/shop.yaml becomes; secrets are left out. Written by\n\
    # `UPDATE_RENDERED=1 cargo test -p servicechain-operator --test build the_example`.\n";

#[test]
fn the_example_becomes_what_is_committed() {
    let mut text = HEADER.to_owned();
    for (_, _, mut object) in objects(built(&shop())) {
        leave_out_secrets(&mut object);
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object).unwrap());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rendered/shop.yaml");
    if std::env::var_os("UPDATE_RENDERED").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let first = text
        .lines()
        .zip(committed.lines())
        .find(|(now, then)| now != then);
    assert!(
        committed == text,
        "tests/rendered/shop.yaml differs from what is built, first at {first:?}; see its first lines"
    );
}

#[test]
fn the_same_chain_becomes_the_same_bytes() {
    assert_eq!(objects(built(&shop())), objects(built(&shop())));
}

#[test]
fn what_others_need_is_applied_first_and_the_gateway_last() {
    let kinds: Vec<String> = objects(built(&shop()))
        .into_iter()
        .map(|(kind, ..)| kind)
        .collect();
    let mut seen = kinds.clone();
    seen.dedup();
    assert_eq!(
        seen,
        [
            "ServiceAccount",
            "ConfigMap",
            "Secret",
            "PersistentVolumeClaim",
            "Service",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "StatefulSet",
            "Deployment"
        ]
    );
    let deployments = built(&shop())
        .deployments
        .into_iter()
        .map(|object| object.metadata.name.unwrap());
    assert_eq!(
        deployments.collect::<Vec<_>>(),
        [
            "shop-issuer-platform",
            "shop-c",
            "shop-b",
            "shop-a",
            "shop-gateway"
        ]
    );
}

#[test]
fn nothing_is_built_that_the_api_server_would_not_store() {
    for (kind, name, object) in objects(built(&shop())) {
        assert_stored(&object, &format!("{kind} {name}"));
    }
}

/// What is null or empty is dropped by the API server, so it would be a difference for ever.
fn assert_stored(value: &Value, path: &str) {
    match value {
        Value::Null => panic!("{path} is null"),
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} is an empty list");
            for (index, item) in items.iter().enumerate() {
                assert_stored(item, &format!("{path}[{index}]"));
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                assert_stored(field, &format!("{path}.{name}"));
            }
        }
        Value::String(text) => assert!(!text.is_empty(), "{path} is an empty string"),
        Value::Bool(_) | Value::Number(_) => {}
    }
}

fn leave_out_secrets(object: &mut Value) {
    if object["kind"] == "Secret" {
        for value in object["data"].as_object_mut().unwrap().values_mut() {
            *value = "".into();
        }
    }
}
