//! Whether an object that was built is written over the one that was found. Pure.

use serde_json::Value;

use crate::object_names::CHAIN_LABEL;

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Leave,
    Create,
    Apply {
        uid: Value,
    },
    WaitForItsEnd,
    /// Somebody made it immutable, so that only another one can be as it was built.
    MakeAnew,
    /// It is immutable, and its finalizers would keep it.
    Stuck,
    /// By this object, or by nobody.
    Taken {
        owner: Option<String>,
    },
}

/// `built` has its digest. What was created once is left however it looks.
pub(super) fn decide(
    built: &Value,
    found: Option<&Value>,
    owner: &str,
    chain: &str,
    is_created_once: bool,
) -> Decision {
    let Some(found) = found else {
        return Decision::Create;
    };
    match controller(found) {
        Some(controller) if controller["uid"] != owner => {
            let word = |name: &str| controller[name].as_str().unwrap_or_default();
            return Decision::Taken {
                owner: Some(format!("{} {}", word("kind"), word("name"))),
            };
        }
        None if !is_created_once && found["metadata"]["labels"][CHAIN_LABEL] != chain => {
            return Decision::Taken { owner: None };
        }
        _ => {}
    }
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Decision::WaitForItsEnd;
    }
    if is_created_once || contains(found, built) {
        return Decision::Leave;
    }
    if found["immutable"] == true {
        let finalizers = found["metadata"]["finalizers"].as_array();
        return if finalizers.is_none_or(Vec::is_empty) {
            Decision::MakeAnew
        } else {
            Decision::Stuck
        };
    }
    Decision::Apply {
        uid: found["metadata"]["uid"].clone(),
    }
}

pub(super) fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Whether everything that was built is still so. What others added stays theirs, as in server-side apply: fields, and
/// items of lists whose items have names. Other lists are compared whole.
fn contains(found: &Value, built: &Value) -> bool {
    match (found, built) {
        (Value::Object(found), Value::Object(built)) => {
            built.iter().all(|(name, built)| match found.get(name) {
                Some(found) => contains(found, built),
                None => is_empty(built),
            })
        }
        (Value::Array(found), Value::Array(built)) if built.iter().all(|item| item["name"].is_string()) => {
            built.iter().all(|built| {
                let same = found.iter().find(|found| found["name"] == built["name"]);
                same.is_some_and(|found| contains(found, built))
            }) && (!built.is_empty() || found.is_empty())
        }
        (Value::Array(found), Value::Array(built)) => {
            let mut pairs = found.iter().zip(built);
            found.len() == built.len() && pairs.all(|(found, built)| contains(found, built))
        }
        _ => found == built,
    }
}

/// The API server does not store what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object_names::BUILT_ANNOTATION;

    fn owned(uid: &str) -> Value {
        json!({"metadata": {
            "name": "shop-a", "uid": "7", "labels": {CHAIN_LABEL: "shop"},
            "ownerReferences": [{"kind": "ServiceChain", "name": "shop", "uid": uid, "controller": true}],
        }})
    }

    fn with(mut object: Value, path: &str, value: Value) -> Value {
        if let Some(place) = object.pointer_mut(path) {
            *place = value;
            return object;
        }
        let (parent, name) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name] = value;
        object
    }

    fn of(built: &Value, found: Option<&Value>) -> Decision {
        decide(built, found, "1", "shop", false)
    }

    #[test]
    fn an_object_is_written_only_where_it_differs_from_what_was_built() {
        let built = with(owned("1"), "/spec", json!({"replicas": 2}));
        let stored = with(built.clone(), "/spec/paused", json!(false));
        assert_eq!(of(&built, None), Decision::Create);
        assert_eq!(of(&built, Some(&stored)), Decision::Leave);
        let drifted = with(stored.clone(), "/spec/replicas", json!(3));
        assert_eq!(of(&built, Some(&drifted)), Decision::Apply { uid: json!("7") });
        // A field that is no longer built changes the digest.
        let digested = |digest: &str| {
            with(
                built.clone(),
                "/metadata/annotations",
                json!({BUILT_ANNOTATION: digest}),
            )
        };
        assert!(matches!(
            of(&digested("new"), Some(&digested("old"))),
            Decision::Apply { .. }
        ));
    }

    #[test]
    fn what_somebody_else_controls_is_never_touched() {
        let built = owned("1");
        assert_eq!(
            of(&built, Some(&owned("2"))),
            Decision::Taken {
                owner: Some("ServiceChain shop".to_owned())
            }
        );
        let unowned = with(owned("1"), "/metadata/ownerReferences", json!([]));
        assert!(
            matches!(of(&built, Some(&unowned)), Decision::Apply { .. }),
            "its owner was taken off"
        );
        let foreign = with(unowned, "/metadata/labels", json!({}));
        assert_eq!(of(&built, Some(&foreign)), Decision::Taken { owner: None });
        assert_eq!(decide(&built, Some(&foreign), "1", "shop", true), Decision::Leave);
        let ending = with(owned("1"), "/metadata/deletionTimestamp", json!("now"));
        assert_eq!(of(&built, Some(&ending)), Decision::WaitForItsEnd);
    }

    #[test]
    fn what_is_immutable_is_made_anew_once_it_must_change_and_nothing_holds_it() {
        let built = with(owned("1"), "/data", json!({"a": "1"}));
        let immutable = with(built.clone(), "/immutable", json!(true));
        assert_eq!(of(&built, Some(&immutable)), Decision::Leave);
        let changed = with(built, "/data", json!({"a": "2"}));
        assert_eq!(of(&changed, Some(&immutable)), Decision::MakeAnew);
        let held = with(immutable, "/metadata/finalizers", json!(["somebody/else"]));
        assert_eq!(of(&changed, Some(&held)), Decision::Stuck);
    }

    #[test]
    fn what_others_added_is_theirs_and_what_was_built_must_be_there() {
        let cases = [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
            (json!({}), json!({"a": {}, "b": [], "c": null}), true),
            (json!({"a": ["x", "y"]}), json!({"a": ["x"]}), false),
            (json!({"a": ["x"]}), json!({"a": []}), false),
            (
                json!([{"name": "istio"}, {"name": "app", "image": "1", "tty": false}]),
                json!([{"name": "app", "image": "1"}]),
                true,
            ),
            (
                json!([{"name": "app", "image": "2"}]),
                json!([{"name": "app", "image": "1"}]),
                false,
            ),
            (
                json!([{"port": 80, "protocol": "TCP"}]),
                json!([{"port": 80}]),
                true,
            ),
        ];
        for (found, built, expected) in cases {
            assert_eq!(contains(&found, &built), expected, "{found} {built}");
        }
    }
}
