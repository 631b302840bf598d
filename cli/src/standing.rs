//! What a chain's conditions say of its present specification. A condition of an older generation says nothing of
//! the newest. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use servicechain_crds::ServiceChain;

use crate::paint::tame_lines;

/// Every condition of a chain, in the order in which one leads to the next.
pub(crate) const CONDITIONS: [&str; 10] = [
    "Accepted",
    "StoresReady",
    "IssuersReady",
    "ServicesReady",
    "GatewayReady",
    "KeysInSync",
    "ClocksInSync",
    "Progressing",
    "Degraded",
    "Ready",
];

/// Longest line of the operator that is printed; the API allows 32 KiB.
const LONGEST_LINE: usize = 1024;

/// How one condition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// True, of the chain's newest generation.
    Holds,
    /// With the reason why, a sentence.
    Not(String),
}

pub(crate) fn of(chain: &ServiceChain, wanted: &str) -> Standing {
    let generation = chain.metadata.generation.unwrap_or_default();
    if chain.metadata.deletion_timestamp.is_some() {
        return Standing::Not("it is being deleted".to_owned());
    }
    let Some(status) = &chain.status else {
        return Standing::Not("the operator has not looked at it yet; is it running?".to_owned());
    };
    let find = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let is_of_newest = |condition: &&Condition| condition.observed_generation >= Some(generation);
    if let Some(condition) = find(wanted).filter(is_of_newest) {
        return if condition.status == "True" {
            Standing::Holds
        } else {
            Standing::Not(format!("{}: {}", condition.reason, message(condition)))
        };
    }
    // What runs is of an older generation while the newest is refused.
    let refusal = find("Accepted")
        .filter(is_of_newest)
        .filter(|accepted| accepted.status != "True");
    let seen = status.observed_generation.unwrap_or_default();
    Standing::Not(match refusal {
        Some(accepted) => sentence(accepted),
        None if seen < generation => {
            format!("the operator has seen generation {seen} of it, not yet {generation}")
        }
        None => format!("the operator does not say whether it is {wanted}"),
    })
}

/// What is wrong or not there yet, condition by condition. Ready and Progressing are left out: others say why.
pub(crate) fn troubles(chain: &ServiceChain) -> Vec<&Condition> {
    let is_bad = |condition: &&Condition| match condition.type_.as_str() {
        "Ready" | "Progressing" => false,
        "Degraded" => condition.status == "True",
        // Unknown until every pod was heard.
        "ClocksInSync" => condition.status == "False",
        _ => condition.status != "True",
    };
    let find = |kind| conditions(chain).iter().find(|condition| condition.type_ == kind);
    CONDITIONS.into_iter().filter_map(find).filter(is_bad).collect()
}

/// The conditions that keep a chain from being `wanted`: those that Ready is made of where that is wanted, else the
/// condition alone.
pub(crate) fn in_the_way<'a>(chain: &'a ServiceChain, wanted: &str) -> Vec<&'a Condition> {
    let mut parts = troubles(chain);
    parts.retain(|condition| {
        !matches!(
            condition.type_.as_str(),
            "KeysInSync" | "ClocksInSync" | "Degraded"
        )
    });
    if wanted == "Ready" && !parts.is_empty() {
        return parts;
    }
    let is_it = |condition: &&Condition| condition.type_ == wanted && condition.status != "True";
    conditions(chain).iter().filter(is_it).collect()
}

pub(crate) fn conditions(chain: &ServiceChain) -> &[Condition] {
    let status = chain.status.as_ref();
    status
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

/// A condition as a sentence, or several, a line each.
pub(crate) fn sentence(condition: &Condition) -> String {
    format!("{}: {}", heading(condition), message(condition))
}

/// What a condition is, without what it says.
pub(crate) fn heading(condition: &Condition) -> String {
    format!(
        "{} is {} ({})",
        condition.type_, condition.status, condition.reason
    )
}

/// What a condition says, safe to print.
pub(crate) fn message(condition: &Condition) -> String {
    tame_lines(&condition.message, LONGEST_LINE)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chain(generation: i64, conditions: &Value) -> ServiceChain {
        let mut chain: Value = serde_saphyr::from_str(include_str!("../../examples/shop.yaml")).unwrap();
        chain["metadata"]["generation"] = generation.into();
        chain["status"] = json!({"observedGeneration": 2, "conditions": conditions});
        serde_json::from_value(chain).unwrap()
    }

    fn condition(kind: &str, status: &str, seen: i64) -> Value {
        json!({"type": kind, "status": status, "reason": "Because", "message": "pod x waits",
               "observedGeneration": seen, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn a_condition_of_an_older_generation_does_not_hold() {
        let ready = json!([condition("Ready", "True", 2)]);
        assert_eq!(of(&chain(2, &ready), "Ready"), Standing::Holds);
        assert_eq!(
            of(&chain(3, &ready), "Ready"),
            Standing::Not("the operator has seen generation 2 of it, not yet 3".to_owned())
        );
    }

    #[test]
    fn what_does_not_hold_says_why() {
        let said = |chain: &ServiceChain, wanted: &str| match of(chain, wanted) {
            Standing::Holds => "holds".to_owned(),
            Standing::Not(why) => why,
        };
        let conditions = json!([condition("Ready", "False", 2)]);
        assert_eq!(said(&chain(2, &conditions), "Ready"), "Because: pod x waits");
        assert_eq!(
            said(&chain(2, &conditions), "KeysInSync"),
            "the operator does not say whether it is KeysInSync"
        );
        let mut unseen = chain(1, &conditions);
        unseen.status = None;
        assert_eq!(
            said(&unseen, "Ready"),
            "the operator has not looked at it yet; is it running?"
        );
    }

    #[test]
    fn a_refused_edit_is_what_keeps_the_newest_generation_from_being_ready() {
        let conditions = json!([condition("Ready", "True", 2), condition("Accepted", "False", 3)]);
        assert_eq!(
            of(&chain(3, &conditions), "Ready"),
            Standing::Not("Accepted is False (Because): pod x waits".to_owned())
        );
    }

    #[test]
    fn what_is_in_the_way_of_ready_are_its_parts() {
        let conditions = json!([
            condition("Ready", "False", 2),
            condition("StoresReady", "False", 2),
            condition("Accepted", "True", 2),
            condition("Degraded", "False", 2),
            condition("Progressing", "True", 2),
        ]);
        let chain = chain(2, &conditions);
        let kinds = |wanted| -> Vec<String> {
            in_the_way(&chain, wanted)
                .iter()
                .map(|condition| condition.type_.clone())
                .collect()
        };
        assert_eq!(kinds("Ready"), ["StoresReady"]);
        assert_eq!(kinds("Accepted"), [""; 0]);
        assert_eq!(
            sentence(in_the_way(&chain, "StoresReady")[0]),
            "StoresReady is False (Because): pod x waits"
        );
    }
}
