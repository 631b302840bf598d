//! The CEL rules of the CRDs, run as the API server runs them, and `validated`: both refuse what `crds/admit` says they
//! refuse, with the same sentence, and nothing else of it.
#![cfg(test)]

#[path = "../admit/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use cases::{Case, cases};
use kube_cel::Validator;
use serde_json::Value;
use servicechain_crds::{
    Revocation, ServiceChain,
    mistakes::{Mistakes, Reason},
    schema, validated, validated_revocation,
};

/// The object with the defaults that the API server would fill in.
fn defaulted(object: &Value) -> Value {
    if object["kind"] == "ServiceChain" {
        serde_json::to_value(serde_json::from_value::<ServiceChain>(object.clone()).unwrap()).unwrap()
    } else {
        serde_json::to_value(serde_json::from_value::<Revocation>(object.clone()).unwrap()).unwrap()
    }
}

/// The sentences of the rules that an object breaks, which replaces `before`.
fn cel_says(object: &Value, before: Option<&Value>) -> Vec<String> {
    let crd = if object["kind"] == "ServiceChain" {
        schema::service_chain_crd()
    } else {
        schema::revocation_crd()
    };
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut after = defaulted(object);
    let mut before = before.map(defaulted);
    if let Some(before) = &mut before {
        correlate(before, &mut after);
    }
    match Validator::new().validate(schema, &after, before.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// Brings items with the same name to the same place: the API server compares those, kube's CEL those at one place.
fn correlate(before: &mut Value, after: &mut Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, before) in before {
                if let Some(after) = after.get_mut(name) {
                    correlate(before, after);
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.iter().all(|item| item["name"].is_string()) => {
            let place = |items: &[Value], item: &Value| {
                items
                    .iter()
                    .position(|other| other["name"] == item["name"])
                    .unwrap_or(usize::MAX)
            };
            before.retain(|item| place(after, item) != usize::MAX);
            after.sort_by_key(|item| place(before, item));
            before
                .iter_mut()
                .zip(after)
                .for_each(|(before, after)| correlate(before, after));
        }
        _ => {}
    }
}

/// What `validated` says that can never be right; what it cannot do yet is right.
fn validated_says(object: &Value) -> Vec<String> {
    let mistakes = if object["kind"] == "ServiceChain" {
        let chain: ServiceChain = serde_json::from_value(object.clone()).unwrap();
        validated(&chain).err()
    } else {
        let revocation: Revocation = serde_json::from_value(object.clone()).unwrap();
        validated_revocation(&revocation).err()
    };
    mistakes
        .unwrap_or_else(Mistakes::new)
        .into_iter()
        .filter(|mistake| mistake.reason == Reason::Invalid)
        .map(|mistake| mistake.to_string())
        .collect()
}

#[test]
fn cel_refuses_each_case_with_its_sentence_alone() {
    for case in cases() {
        if let Some(before) = &case.before {
            assert_eq!(cel_says(before, None), [""; 0], "{} before", case.name);
        }
        let said: BTreeSet<String> = cel_says(&case.object, case.before.as_ref()).into_iter().collect();
        let expected: BTreeSet<String> = case.is_refused.then(|| case.says.clone()).into_iter().collect();
        assert_eq!(said, expected, "{}", case.name);
    }
}

#[test]
fn validated_refuses_each_case_with_the_same_sentence() {
    for Case {
        name,
        says,
        is_refused,
        before,
        object,
    } in cases()
    {
        let said = validated_says(&object);
        if is_refused && before.is_none() {
            let says = says.trim_start_matches("metadata.name ");
            // Of a name that leads nowhere, the names there are say more than the rule.
            let is_said = |said: &String| said.contains(says) || said.contains(": there is no ");
            assert!(!said.is_empty() && said.iter().all(is_said), "{name}: {said:#?}");
        } else {
            assert_eq!(said, [""; 0], "{name}");
        }
    }
}

#[test]
fn every_rule_of_the_crds_has_its_file_and_every_file_a_rule() {
    let mut rules = BTreeSet::new();
    for crd in [schema::service_chain_crd(), schema::revocation_crd()] {
        collect(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            &mut rules,
        );
    }
    let judged: BTreeSet<String> = cases().into_iter().map(|case| case.says).collect();
    assert_eq!(judged, rules);
}

/// The sentences of all rules of a schema.
fn collect(schema: &Value, rules: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        rules.insert(rule["message"].as_str().unwrap().to_owned());
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let nested = ["items", "additionalProperties"].map(|name| &schema[name]);
    for schema in properties
        .map(|(_, schema)| schema)
        .chain(nested)
        .filter(|schema| schema.is_object())
    {
        collect(schema, rules);
    }
}

#[test]
fn the_fixture_passes_every_rule_created_and_unchanged() {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../fixtures/v1alpha1.yaml")).unwrap();
    for object in documents {
        let name = &object["metadata"]["name"];
        assert_eq!(cel_says(&object, None), [""; 0], "{name} created");
        assert_eq!(cel_says(&object, Some(&object)), [""; 0], "{name} unchanged");
    }
}
