//! The files beside this one: what each rule of the CRDs refuses, with its sentence, and what it lets pass. Tests
//! include this module, so that kube's CEL, a real API server and `validated` judge the same.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

/// An object, and what must be said about it.
#[derive(Debug)]
pub(crate) struct Case {
    /// `admit_one_database.yaml refused[1]`.
    pub name: String,
    /// The rule's sentence.
    pub says: String,
    pub is_refused: bool,
    /// For rules about updates: what is there already.
    pub before: Option<Value>,
    pub object: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    kind: Kind,
    says: String,
    refused: Vec<Value>,
    accepted: Vec<Value>,
}

#[derive(Default, Deserialize)]
enum Kind {
    #[default]
    ServiceChain,
    Revocation,
}

/// All cases, in the order of their files' names.
pub(crate) fn cases() -> Vec<Case> {
    // The including crates are neighbours of this one.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/admit");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("admit_"))
        .collect();
    names.sort();
    let chain: Value = serde_saphyr::from_str(&read("chain.yaml")).unwrap();
    let revocation: Value = serde_saphyr::from_str(&read("revocation.yaml")).unwrap();
    let mut cases = Vec::new();
    for file in names {
        let rules: Vec<Rule> =
            serde_saphyr::from_multiple(&read(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for rule in rules {
            let base = match rule.kind {
                Kind::ServiceChain => &chain,
                Kind::Revocation => &revocation,
            };
            for (word, is_refused, changes) in [
                ("refused", true, &rule.refused),
                ("accepted", false, &rule.accepted),
            ] {
                assert!(!changes.is_empty(), "{file}: nothing is {word}");
                for (index, change) in changes.iter().enumerate() {
                    let (before, after) = match change.get("after") {
                        Some(after) => (change.get("before"), after),
                        None => (None, change),
                    };
                    cases.push(Case {
                        name: format!("{file} {word}[{index}]"),
                        says: rule.says.clone(),
                        is_refused,
                        before: before.map(|before| changed(base, before)),
                        object: changed(base, after),
                    });
                }
            }
        }
    }
    cases
}

/// The base with a merge patch (RFC 7396), in which no case takes anything away.
fn changed(base: &Value, change: &Value) -> Value {
    let mut changed = base.clone();
    merge(&mut changed, change);
    changed
}

fn merge(base: &mut Value, change: &Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (name, value) in change {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, change) => *base = change.clone(),
    }
}
