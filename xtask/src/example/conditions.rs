//! A chain's conditions, read as a person reads them: is it Ready, and if not, what is in the way. Pure.

use serde_json::Value;

/// Conditions that only sum up others.
const SUMMARIES: [&str; 3] = ["Ready", "Progressing", "Degraded"];

/// Ready, and said of the spec as it is now.
pub(super) fn is_ready(chain: &Value) -> bool {
    current(chain, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// Why the spec is refused, if it is. Waiting does not help then.
pub(super) fn never_accepted(chain: &Value) -> Option<String> {
    let accepted = current(chain, "Accepted")?;
    (accepted["status"] == "False").then(|| sentences(accepted).join("; "))
}

/// What is not as it should be: a line for each sentence of each condition.
pub(super) fn in_the_way(chain: &Value) -> Vec<String> {
    let all = || chain["status"]["conditions"].as_array().into_iter().flatten();
    let (summaries, others): (Vec<&Value>, Vec<&Value>) = all()
        .filter(|condition| condition["status"] != "True")
        .partition(|condition| SUMMARIES.iter().any(|name| condition["type"] == *name));
    let mut lines: Vec<String> = others.into_iter().flat_map(sentences).collect();
    if lines.is_empty() {
        let ready = summaries.into_iter().filter(|summary| summary["type"] == "Ready");
        lines.extend(ready.flat_map(sentences));
    }
    if lines.is_empty() {
        lines.push("the operator has not looked at it yet".to_owned());
    }
    lines
}

fn current<'a>(chain: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = chain["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| {
        condition["type"] == name && condition["observedGeneration"] == chain["metadata"]["generation"]
    })
}

fn sentences(condition: &Value) -> Vec<String> {
    let field = |name: &str| condition[name].as_str().unwrap_or("?");
    let (kind, reason) = (field("type"), field("reason"));
    let lines = field("message").lines().filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(|line| format!("{kind}: {line}")).collect();
    if lines.is_empty() {
        return vec![format!("{kind}: {reason}")];
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(conditions: &[(&str, &str, u64)]) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(name, status, generation)| {
                json!({"type": name, "status": status, "observedGeneration": generation, "reason": "R", "message": "m\nn"})
            })
            .collect();
        json!({"metadata": {"generation": 2}, "status": {"conditions": conditions}})
    }

    #[test]
    fn what_is_said_of_an_older_spec_does_not_count() {
        assert!(is_ready(&chain(&[("Ready", "True", 2)])));
        assert!(!is_ready(&chain(&[("Ready", "True", 1)])));
        assert!(never_accepted(&chain(&[("Accepted", "False", 2)])).is_some());
        assert!(never_accepted(&chain(&[("Accepted", "False", 1)])).is_none());
    }

    #[test]
    fn summaries_are_told_only_where_nothing_else_is() {
        let both = chain(&[
            ("Ready", "False", 2),
            ("StoresReady", "False", 2),
            ("Accepted", "True", 2),
        ]);
        assert_eq!(in_the_way(&both), ["StoresReady: m", "StoresReady: n"]);
        assert_eq!(
            in_the_way(&chain(&[("Ready", "False", 2)])),
            ["Ready: m", "Ready: n"]
        );
        assert_eq!(in_the_way(&json!({})), ["the operator has not looked at it yet"]);
    }
}
