//! The fixture that later versions must still read: it uses every field, and none of it is lost.
#![cfg(test)]

use serde_json::Value;
use servicechain_crds::{Revocation, ServiceChain, schema};

fn documents(kind: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../fixtures/v1alpha1.yaml")).unwrap();
    documents
        .into_iter()
        .filter(|document| document["kind"] == kind)
        .collect()
}

/// Everything in `written` is in `read`, which may say more (defaults).
fn assert_kept(path: &str, written: &Value, read: &Value) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, value) in written {
                let path = format!("{path}.{name}");
                match read.get(name) {
                    Some(read) => assert_kept(&path, value, read),
                    None => assert!(is_empty(value), "{path} is lost"),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            assert_eq!(written.len(), read.len(), "{path}");
            written
                .iter()
                .zip(read)
                .for_each(|(written, read)| assert_kept(path, written, read));
        }
        _ => assert_eq!(written, read, "{path}"),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

#[test]
fn what_was_written_for_v1alpha1_still_reads_and_nothing_is_lost() {
    for document in documents("ServiceChain") {
        let chain: ServiceChain = serde_json::from_value(document.clone()).unwrap();
        assert_kept("", &document, &serde_json::to_value(chain).unwrap());
    }
    for document in documents("Revocation") {
        let revocation: Revocation = serde_json::from_value(document.clone()).unwrap();
        assert_kept("", &document, &serde_json::to_value(revocation).unwrap());
    }
}

/// Names the fields of a schema that no document uses. Types of Kubernetes are left to Kubernetes.
fn unused(path: &str, schema: &Value, values: &[&Value], found: &mut Vec<String>) {
    const OF_KUBERNETES: [&str; 12] = [
        "conditions",
        "egress",
        "env",
        "envFrom",
        "imagePullSecrets",
        "liveness",
        "metricsFrom",
        "readiness",
        "resources",
        "startup",
        "tolerations",
        "topologySpreadConstraints",
    ];
    if let Some(items) = schema.get("items") {
        let items_of: Vec<&Value> = values
            .iter()
            .filter_map(|value| value.as_array())
            .flatten()
            .collect();
        return unused(path, items, &items_of, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        // PodSettings and DatabaseSpec stand in several places; one is enough.
        if (name == "pod" || path.contains(".managed.database.")) && !path.starts_with(".spec.podDefaults") {
            continue;
        }
        let inside: Vec<&Value> = values.iter().filter_map(|value| value.get(name)).collect();
        if inside.is_empty() {
            found.push(path);
        } else if !OF_KUBERNETES.contains(&name.as_str()) {
            unused(&path, field, &inside, found);
        }
    }
}

#[test]
fn the_fixture_uses_every_field() {
    let mut found = Vec::new();
    for (kind, crd) in [
        ("ServiceChain", schema::service_chain_crd()),
        ("Revocation", schema::revocation_crd()),
    ] {
        let documents = documents(kind);
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        unused("", schema, &documents.iter().collect::<Vec<_>>(), &mut found);
    }
    assert!(found.is_empty(), "not in the fixture: {found:#?}");
}
