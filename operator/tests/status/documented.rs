//! docs/conditions.md explains every reason, and none that there is not.

use std::collections::BTreeSet;

use servicechain_operator::controller::status::reason::Reason;

const DOCUMENT: &str = include_str!("../../../docs/conditions.md");

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
