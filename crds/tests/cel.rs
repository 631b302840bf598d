//! The CEL rules of the CRDs, run as the API server runs them: each accepts what is right and says its sentence
//! about what is wrong.
#![cfg(test)]

use kube_cel::Validator;
use serde_json::{Value, json};
use servicechain_crds::{Revocation, ServiceChain, rules, schema};

/// The objects of the fixture, with the defaults that the API server would fill in.
fn fixture(kind: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../fixtures/v1alpha1.yaml")).unwrap();
    documents
        .into_iter()
        .filter(|document| document["kind"] == kind)
        .map(|document| defaulted(&document))
        .collect()
}

fn defaulted(document: &Value) -> Value {
    match document["kind"].as_str() {
        Some("ServiceChain") => {
            serde_json::to_value(serde_json::from_value::<ServiceChain>(document.clone()).unwrap()).unwrap()
        }
        _ => serde_json::to_value(serde_json::from_value::<Revocation>(document.clone()).unwrap()).unwrap(),
    }
}

fn said(object: &Value, old: Option<&Value>) -> Vec<String> {
    let crd = if object["kind"] == "ServiceChain" {
        schema::service_chain_crd()
    } else {
        schema::revocation_crd()
    };
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    match Validator::new().validate(schema, object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

#[test]
fn what_is_right_passes_every_rule_created_and_unchanged() {
    for object in fixture("ServiceChain").iter().chain(&fixture("Revocation")) {
        let name = &object["metadata"]["name"];
        assert_eq!(said(object, None), [""; 0], "{name} created");
        assert_eq!(said(object, Some(object)), [""; 0], "{name} unchanged");
    }
}

/// The first document with `value` at `pointer`; null takes the field away.
fn changed(object: &Value, pointer: &str, value: &Value) -> Value {
    let mut object = object.clone();
    let (holder, field) = pointer.rsplit_once('/').unwrap();
    let holder = object
        .pointer_mut(holder)
        .unwrap_or_else(|| panic!("no {holder}"));
    if value.is_null() {
        holder.as_object_mut().unwrap().remove(field);
    } else {
        holder[field] = value.clone();
    }
    defaulted(&object)
}

/// Every change of the first chain breaks a rule, which says its sentence.
#[track_caller]
fn assert_each_says(broken: &[(&str, Value, &str)]) {
    let chain = &fixture("ServiceChain")[0];
    for (pointer, value, sentence) in broken {
        let said = said(&changed(chain, pointer, value), None);
        // Another name also breaks what refers to it.
        assert!(
            said.iter().any(|said| said == sentence),
            "{pointer} = {value}: {said:?}"
        );
    }
}

#[test]
fn rules_of_names_and_issuers_say_their_sentences() {
    assert_each_says(&[
        ("/metadata/name", json!("Shop"), rules::CHAIN_NAME_SAYS),
        (
            "/metadata/name",
            json!("a-name-of-21-characte"),
            rules::CHAIN_NAME_SAYS,
        ),
        (
            "/spec/issuers/0/managed",
            Value::Null,
            rules::ONE_ISSUER_KIND_SAYS,
        ),
        ("/spec/issuers/1/managed", json!({}), rules::ONE_ISSUER_KIND_SAYS),
        (
            "/spec/issuers/2/static/url",
            json!("https://idp.example.com/realms/corp"),
            rules::ISSUER_URLS_UNIQUE_SAYS,
        ),
        ("/spec/issuers/0/name", json!("a"), rules::NAMES_DIFFER_SAYS),
        (
            "/spec/issuers/0/managed/rotationPeriod",
            json!("29m"),
            rules::ROTATION_PERIOD_SAYS,
        ),
        (
            "/spec/issuers/0/managed/database",
            Value::Null,
            rules::REFRESH_NEEDS_DATABASE_SAYS,
        ),
        (
            "/spec/issuers/0/managed/tokenLifetime",
            json!("30s"),
            "must be between 1m and 24h",
        ),
    ]);
}

#[test]
fn rules_of_the_gateway_say_their_sentences() {
    assert_each_says(&[
        (
            "/spec/gateway/replicas",
            json!(2),
            rules::REPLICAS_OR_AUTOSCALING_SAYS,
        ),
        (
            "/spec/gateway/autoscaling/minReplicas",
            json!(11),
            rules::MIN_ABOVE_MAX_SAYS,
        ),
        (
            "/spec/gateway/service/type",
            json!("ClusterIP"),
            rules::NODE_PORT_SAYS,
        ),
        (
            "/spec/gateway/limits/requestBytes",
            json!("2Gi"),
            rules::REQUEST_BYTES_SAYS,
        ),
        (
            "/spec/gateway/limits/headerBytes",
            json!("1Ki"),
            rules::HEADER_BYTES_SAYS,
        ),
        (
            "/spec/gateway/routes/0/issuer",
            json!("platform"),
            rules::ONE_ROUTE_TARGET_SAYS,
        ),
        (
            "/spec/gateway/routes/0/service",
            json!("z"),
            rules::ROUTE_TARGETS_EXIST_SAYS,
        ),
        (
            "/spec/gateway/routes/1/issuer",
            json!("corp"),
            rules::ROUTE_TARGETS_EXIST_SAYS,
        ),
        (
            "/spec/gateway/routes/0/issuers",
            json!(["z"]),
            rules::ISSUER_NAMES_EXIST_SAYS,
        ),
        (
            "/spec/gateway/routes/0/authentication",
            json!("None"),
            rules::ISSUERS_NEED_TOKEN_SAYS,
        ),
        (
            "/spec/gateway/routes/1/scopes",
            json!(["x"]),
            rules::SCOPES_NEED_TOKEN_SAYS,
        ),
    ]);
}

#[test]
fn rules_of_services_say_their_sentences() {
    assert_each_says(&[
        ("/spec/services/0/next", json!(["z"]), rules::NEXT_EXISTS_SAYS),
        ("/spec/services/0/next", json!(["a"]), rules::NEXT_EXISTS_SAYS),
        (
            "/spec/services/0/issuers",
            json!(["z"]),
            rules::ISSUER_NAMES_EXIST_SAYS,
        ),
        (
            "/spec/services/0/replicas",
            json!(2),
            rules::REPLICAS_OR_AUTOSCALING_SAYS,
        ),
        ("/spec/services/0/name", json!("redis"), rules::SERVICE_NAME_SAYS),
        (
            "/spec/services/0/name",
            json!("b-postgres"),
            rules::SERVICE_NAME_SAYS,
        ),
        (
            "/spec/services/0/database/external",
            json!({"secretName": "x"}),
            rules::ONE_DATABASE_SAYS,
        ),
        (
            "/spec/services/0/cache/external",
            json!({"secretName": "x"}),
            rules::ONE_CACHE_SAYS,
        ),
        (
            "/spec/services/0/cache/managed/maxMemory",
            json!("1k"),
            rules::MAX_MEMORY_SAYS,
        ),
    ]);
}

#[test]
fn what_cannot_be_changed_says_so() {
    let chain = &fixture("ServiceChain")[0];
    for (pointer, value, sentence) in [
        (
            "/spec/issuers/0/managed/url",
            json!("http://other"),
            rules::URL_KEPT_SAYS,
        ),
        ("/spec/issuers/0/managed/url", Value::Null, rules::URL_KEPT_SAYS),
        (
            "/spec/issuers/1/external/url",
            json!("https://other.example.com"),
            rules::URL_KEPT_SAYS,
        ),
        (
            "/spec/issuers/2/static/url",
            json!("https://other.example.com"),
            rules::URL_KEPT_SAYS,
        ),
        (
            "/spec/services/0/database/managed/version",
            json!("18"),
            rules::VERSION_KEPT_SAYS,
        ),
        (
            "/spec/services/0/database/managed/version",
            Value::Null,
            rules::VERSION_KEPT_SAYS,
        ),
        (
            "/spec/services/0/database/managed/storage/size",
            json!("1Gi"),
            rules::SIZE_GROWS_SAYS,
        ),
        (
            "/spec/services/0/database/managed/storage/className",
            json!("slow"),
            rules::CLASS_KEPT_SAYS,
        ),
    ] {
        assert_eq!(
            said(&changed(chain, pointer, &value), Some(chain)),
            [sentence],
            "{pointer} = {value}"
        );
    }
    let grown = changed(
        chain,
        "/spec/services/0/database/managed/storage/size",
        &json!("3Gi"),
    );
    assert_eq!(said(&grown, Some(chain)), [""; 0], "a volume may grow");
}

#[test]
fn a_revocation_is_about_one_thing_and_never_changes() {
    let revocations = fixture("Revocation");
    let (subject, key) = (&revocations[0], &revocations[1]);
    let without = changed(key, "/spec/key", &Value::Null);
    assert_eq!(said(&without, None), [rules::ONE_REVOCATION_KIND_SAYS]);
    let everything = changed(&without, "/spec/issuedBefore", &json!("2026-01-01T00:00:00Z"));
    assert_eq!(said(&everything, None), [""; 0]);
    let two = changed(key, "/spec/tokenID", &json!("t"));
    assert_eq!(said(&two, None), [rules::ONE_REVOCATION_KIND_SAYS]);
    let key_before = changed(key, "/spec/issuedBefore", &json!("2026-01-01T00:00:00Z"));
    assert_eq!(said(&key_before, None), [rules::ONE_REVOCATION_KIND_SAYS]);
    let other = changed(subject, "/spec/subject", &json!("eve"));
    assert_eq!(said(&other, Some(subject)), [rules::REVOCATION_KEPT_SAYS]);
}
