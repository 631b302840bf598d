//! docs/conditions.md explains every reason, docs/metrics.md every metric of the operator, and none that there is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use servicechain_operator::controller::status::reason::Reason;
use servicechain_operator::metrics::Metrics;

use crate::world::World;

const DOCUMENT: &str = include_str!("../../../docs/conditions.md");
const METRICS: &str = include_str!("../../../docs/metrics.md");

/// What stands under each heading of a reason.
fn explained() -> Vec<(&'static str, &'static str)> {
    let sections = DOCUMENT.split("\n### `").skip(1);
    sections.filter_map(|section| section.split_once("`\n")).collect()
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let known: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let explained: Vec<&str> = explained().into_iter().map(|(name, _)| name).collect();
    assert_eq!(explained.iter().copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(explained.len(), known.len(), "a reason is explained once");
}

#[test]
fn every_trouble_has_a_cause_and_a_command() {
    let troubles = DOCUMENT.split_once("\n## Where something is wrong").unwrap().1;
    let troubles = troubles.split("\n## ").next().unwrap();
    let sections: Vec<&str> = troubles.split("\n### `").skip(1).collect();
    assert!(sections.len() > 20, "{}", sections.len());
    for section in sections {
        let name = section.lines().next().unwrap();
        assert!(section.contains("\n**Cause.** "), "{name}");
        let (_, remedy) = section
            .split_once("\n**Remedy.** ")
            .unwrap_or_else(|| panic!("{name} has no remedy"));
        assert!(
            ["`kubectl ", "`helm ", "`servicechain "]
                .iter()
                .any(|command| remedy.contains(command)),
            "{name}"
        );
    }
}

#[test]
fn every_metric_of_the_operator_is_documented_and_nothing_else_is() {
    let metrics = Metrics::default();
    // One that was never counted is not shown.
    metrics.reconciled("done", Duration::ZERO);
    metrics.wrote("Pod", "create", "done");
    metrics.watch_restarted("Pod", "failed");
    let mut chain = metrics.keys().of_chain("shop".to_owned(), "shop".to_owned());
    chain.show(&Arc::new(World::ready().keys.unwrap()), [].into(), false);
    chain.refused("offer", "proof");
    let page = metrics.encode().unwrap();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: BTreeSet<String> = types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    let rows = METRICS
        .lines()
        .filter_map(|line| line.strip_prefix("| `servicechain_operator_"));
    let documented: BTreeSet<String> = rows
        .map(|row| format!("servicechain_operator_{}", row.split_once("` |").unwrap().0))
        .collect();
    assert_eq!(documented, shown);
}
