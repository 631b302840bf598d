//! The CRDs as they are installed: kube's derived ones, bounded to the last string of the embedded core/v1
//! types and with descriptions on one line each.

use std::sync::LazyLock;

use kube::{CustomResourceExt, Resource};
use serde_json::{Map, Value, json};

use crate::{Revocation, ServiceChain};

/// Number of this schema, which both CRDs carry as an annotation. It grows with every field, so that an operator
/// never writes to a cluster whose CRDs would silently drop what it writes.
pub const SCHEMA: u32 = 1;
/// The annotation of the CRDs that holds [`SCHEMA`].
pub const SCHEMA_ANNOTATION: &str = "servicechain.dev/schema";

/// What an embedded Kubernetes type may hold where it does not say so itself.
const MOST_CHARACTERS: u64 = 4096;
const MOST_ITEMS: u64 = 64;

/// Fields whose types are those of Kubernetes.
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

static SERVICE_CHAIN: LazyLock<Value> = LazyLock::new(definition::<ServiceChain>);
static REVOCATION: LazyLock<Value> = LazyLock::new(definition::<Revocation>);
static SERVICE_CHAIN_DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&SERVICE_CHAIN));
static REVOCATION_DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&REVOCATION));

/// The CRD of `ServiceChain`, as JSON.
#[must_use]
pub fn service_chain_crd() -> &'static Value {
    &SERVICE_CHAIN
}

/// The CRD of `Revocation`, as JSON.
#[must_use]
pub fn revocation_crd() -> &'static Value {
    &REVOCATION
}

/// The OpenAPI schema of a whole `ServiceChain` document, with the fields that the API server adds to every one.
pub(crate) fn service_chain_document() -> &'static Value {
    &SERVICE_CHAIN_DOCUMENT
}

/// The OpenAPI schema of a whole `Revocation` document.
pub(crate) fn revocation_document() -> &'static Value {
    &REVOCATION_DOCUMENT
}

fn document(crd: &Value) -> Value {
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    schema["required"] = json!(["metadata", "spec"]);
    let strings = json!({"type": "object", "additionalProperties": {"type": "string"}});
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "description": "Name and namespace of the object.",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": strings,
            "annotations": strings,
        },
    });
    schema
}

fn definition<K: CustomResourceExt + Resource<DynamicType = ()>>() -> Value {
    let mut crd = serde_json::to_value(K::crd()).unwrap_or_default();
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy(schema, false, false);
    }
    crd["metadata"]["annotations"] = json!({SCHEMA_ANNOTATION: SCHEMA.to_string()});
    crd
}

/// Makes every schema say its bounds, and none say `nullable`: an absent field is absent, never null.
/// Of Kubernetes' own descriptions only the first sentence is kept; whole, they are most of a CRD. `foreign`
/// says whether the schema's own description is one, `foreign_inside` those of what it holds.
fn tidy(schema: &mut Value, foreign: bool, foreign_inside: bool) {
    let Value::Object(schema) = schema else { return };
    schema.remove("nullable");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        let words = description.split_whitespace().collect::<Vec<_>>().join(" ");
        let first = words
            .split_inclusive(". ")
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned();
        *description = if foreign { first } else { words };
    }
    bound(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, property) in properties {
            tidy(
                property,
                foreign_inside,
                foreign_inside || OF_KUBERNETES.contains(&name.as_str()),
            );
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = schema.get_mut(nested) {
            tidy(nested, foreign_inside, foreign_inside);
        }
    }
}

fn bound(schema: &mut Map<String, Value>) {
    let default = |schema: &mut Map<String, Value>, name: &str, value: Value| {
        schema.entry(name).or_insert(value);
    };
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !schema.contains_key("enum") && !schema.contains_key("format") => {
            default(schema, "maxLength", json!(MOST_CHARACTERS));
        }
        Some("array") => {
            default(schema, "maxItems", json!(MOST_ITEMS));
            default(schema, "x-kubernetes-list-type", json!("atomic"));
        }
        Some("object") if schema.contains_key("additionalProperties") => {
            default(schema, "maxProperties", json!(MOST_ITEMS));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with the path and the object of every schema of a CRD.
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
        let Value::Object(object) = schema else { return };
        visit(path, object);
        if let Some(Value::Object(properties)) = object.get("properties") {
            for (name, property) in properties {
                walk(&format!("{path}.{name}"), property, visit);
            }
        }
        for nested in ["items", "additionalProperties"] {
            if let Some(nested) = object.get(nested) {
                walk(&format!("{path}[]"), nested, visit);
            }
        }
    }

    /// Whether a path leads into a type of Kubernetes.
    fn is_of_kubernetes(path: &str) -> bool {
        let mut names = path.split('.').map(|name| name.trim_end_matches("[]"));
        names.next_back();
        names.any(|name| OF_KUBERNETES.contains(&name))
    }

    fn walk_both(mut visit: impl FnMut(&str, &Map<String, Value>)) {
        for crd in [service_chain_crd(), revocation_crd()] {
            walk(
                "",
                &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                &mut visit,
            );
        }
    }

    #[test]
    fn every_list_string_map_and_number_is_bounded() {
        walk_both(|path, schema| {
            let has = |name| schema.contains_key(name);
            match schema.get("type").and_then(Value::as_str) {
                Some("string") => assert!(has("maxLength") || has("enum") || has("format"), "{path}"),
                Some("array") => assert!(has("maxItems") && has("x-kubernetes-list-type"), "{path}"),
                Some("integer") if path.starts_with(".spec") && !is_of_kubernetes(path) => {
                    assert!(has("minimum") && has("maximum"), "{path}");
                }
                Some("object") if has("additionalProperties") => assert!(has("maxProperties"), "{path}"),
                _ => {}
            }
        });
    }

    #[test]
    fn every_field_of_ours_has_a_description() {
        walk_both(|path, schema| {
            let is_field = path.starts_with(".spec") || path.starts_with(".status");
            if is_field && !is_of_kubernetes(path) && !path.ends_with("[]") {
                assert!(schema.contains_key("description"), "{path} has no description");
            }
        });
    }

    #[test]
    fn the_schema_is_structural_and_without_unsigned_formats() {
        walk_both(|path, schema| {
            for word in ["$ref", "oneOf", "anyOf", "allOf", "not", "nullable"] {
                assert!(!schema.contains_key(word), "{path} has {word}");
            }
            let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
            assert!(!format.starts_with("uint"), "{path} is {format}");
            let typed = schema.contains_key("type") || schema.contains_key("x-kubernetes-int-or-string");
            assert!(typed, "{path} has no type");
        });
    }

    #[test]
    fn every_rule_has_a_sentence() {
        walk_both(|path, schema| {
            for rule in schema
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(
                    rule["message"].as_str().is_some_and(|says| !says.is_empty()),
                    "{path}: {rule}"
                );
            }
        });
    }

    #[test]
    fn a_crd_is_small_enough_for_kubectl_apply() {
        for crd in [service_chain_crd(), revocation_crd()] {
            let size = serde_json::to_vec(crd).unwrap().len();
            assert!(size < 200 * 1024, "{size} bytes");
        }
    }
}
