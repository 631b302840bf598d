//! Keys and their holders as two tables, for people. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::holders::{Held, Holder, HolderState};
use crate::paint::{Paint, short_key, tame};
use crate::wording::{roughly, seconds_between};

/// Longest reason that is shown of a pod.
const LONGEST_REASON: usize = 64;
/// Longest name of a pod that is shown whole, so that a row ends in time.
const LONGEST_POD: usize = 33;
/// Most pods that are shown; the rest is counted, and in the JSON. Those of which there is something to say come first.
const MOST_PODS: usize = 200;
/// What tells pods of one component apart, at the end of their names: `-7d9f5c6b8d-x2k4p`.
const ENDING: usize = 17;

/// The lines, each ended.
pub(crate) fn render(held: &Held, now: Timestamp, paint: Paint) -> String {
    let Some(keys) = &held.keys else {
        return format!(
            "chain {} has no keys yet: the operator has not published any; see `servicechain status -n {} {}`\n",
            held.chain, held.namespace, held.chain
        );
    };
    let ago = |since: Timestamp| roughly(seconds_between(since, now));
    let signed_by = keys.signed_by.as_deref().map(short_key);
    let signed_by = signed_by
        .map(|kid| format!(" · signed by {kid}"))
        .unwrap_or_default();
    let mut text = format!(
        "generation {} · acknowledged by {}/{}{signed_by}\n",
        keys.generation, keys.acknowledged, keys.verifiers
    );
    let mut rows = vec![row(["ISSUER", "KEY", "STATE", "SINCE"])];
    for (issuer, keys) in held.entries() {
        for key in keys {
            let cells = [
                issuer.to_owned(),
                short_key(&key.kid),
                tame(&key.state, 32),
                ago(key.since.0),
            ];
            rows.push(cells.map(Cell::plain).into());
        }
    }
    if let Some(all) = keys.entry_count {
        let more = all.saturating_sub(i32::try_from(keys.entries.len()).unwrap_or(i32::MAX));
        rows.push(vec![Cell::plain(format!("and {more} more"))]);
    }
    write_table(&mut text, &rows, paint);
    let mut rows = vec![row(["POD", "HOP", "GENERATION", "STATE", "ANCHOR", "CLOCK"])];
    let mut pods: Vec<&Holder> = held.pods.iter().collect();
    if pods.len() > MOST_PODS {
        pods.sort_by_key(|holder| is_plain(holder));
    }
    for holder in pods.iter().take(MOST_PODS) {
        let (state, generation) = match holder.state {
            HolderState::Current if holder.unconfirmed => (Cell::yellow("unconfirmed".to_owned()), "-"),
            HolderState::Current => (Cell::plain("current".to_owned()), "-"),
            HolderState::Laggard => (Cell::yellow("laggard".to_owned()), "-"),
            // More lag than the status names, and this may be one of them.
            HolderState::Unknown => (Cell::yellow("unknown".to_owned()), "?"),
            HolderState::NotRunning => (Cell::yellow("not running".to_owned()), "-"),
        };
        let generation = holder
            .generation
            .map_or(generation.to_owned(), |held| held.to_string());
        rows.push(vec![
            Cell::plain(short_pod(&holder.pod)),
            Cell::plain(holder.hop.clone()),
            Cell::plain(generation),
            state,
            anchors(holder, keys.signed_by.as_deref()),
            clock(holder),
        ]);
        rows.extend(why(holder, &ago).into_iter().map(|why| vec![why]));
    }
    let more = pods.iter().skip(MOST_PODS);
    let (plain, others): (Vec<&Holder>, Vec<&Holder>) = more.partition(|holder| is_plain(holder));
    if !plain.is_empty() || !others.is_empty() {
        let others = match others.len() {
            0 => String::new(),
            count => format!(" and {count} others"),
        };
        let more = format!("and {} more that are current{others}; see -o json", plain.len());
        rows.push(vec![Cell::plain(more)]);
    }
    write_table(&mut text, &rows, paint);
    text
}

/// Nothing is to be said of it.
fn is_plain(holder: &Holder) -> bool {
    holder.state == HolderState::Current
        && !holder.unconfirmed
        && holder.refused.is_empty()
        && holder.falsehood.is_none()
        && matches!(holder.clock_offset_seconds, None | Some(0))
}

/// Lines beneath a pod's row.
fn why(holder: &Holder, ago: &impl Fn(Timestamp) -> String) -> Vec<Cell> {
    let since = holder.since.map(|since| format!(" for {}", ago(since)));
    let reason = holder.reason.as_ref();
    let lags = reason.map(|reason| format!("{}{}", tame(reason, LONGEST_REASON), since.unwrap_or_default()));
    let refused = match holder.refused.as_slice() {
        [] => None,
        words => Some(format!(
            "has refused key bundles: {}",
            tame(&words.join(", "), LONGEST_REASON)
        )),
    };
    let unconfirmed = holder.unconfirmed.then(|| {
        "has not heard the operator since it started; may accept what was revoked just before".to_owned()
    });
    let falsehood = holder.falsehood.as_ref();
    let falsehood = falsehood.map(|word| format!("is not believed: {}", tame(word, LONGEST_REASON)));
    let all = [lags, falsehood, refused, unconfirmed].into_iter().flatten();
    all.map(|why| Cell::yellow(format!("  ! {why}"))).collect()
}

fn anchors(holder: &Holder, signed_by: Option<&str>) -> Cell {
    let is_known = holder
        .anchors
        .iter()
        .any(|anchor| Some(anchor.as_str()) == signed_by);
    match holder.anchors.first() {
        None => Cell::plain("?".to_owned()),
        Some(_) if is_known => Cell::plain(signed_by.map(short_key).unwrap_or_default()),
        Some(other) => Cell::yellow(short_key(other)),
    }
}

/// At most seven characters.
fn clock(holder: &Holder) -> Cell {
    match holder.clock_offset_seconds {
        None => Cell::plain("?".to_owned()),
        Some(0) => Cell::plain("in step".to_owned()),
        Some(offset) => {
            let sign = if offset > 0 { '+' } else { '-' };
            Cell::yellow(format!("{sign}{}", roughly(offset.unsigned_abs())))
        }
    }
}

/// A name that ends in time, without losing what tells it from others.
fn short_pod(name: &str) -> String {
    let length = name.chars().count();
    if length <= LONGEST_POD {
        return tame(name, LONGEST_POD);
    }
    let start: String = name.chars().take(LONGEST_POD - ENDING - 1).collect();
    let end: String = name.chars().skip(length - ENDING).collect();
    format!("{}…{}", tame(&start, LONGEST_POD), tame(&end, ENDING))
}

/// A cell is padded by what is seen of it, and painted afterwards.
struct Cell {
    text: String,
    is_yellow: bool,
}

impl Cell {
    fn plain(text: String) -> Self {
        Self {
            text,
            is_yellow: false,
        }
    }

    fn yellow(text: String) -> Self {
        Self {
            text,
            is_yellow: true,
        }
    }
}

fn row<const N: usize>(headings: [&str; N]) -> Vec<Cell> {
    headings.map(|heading| Cell::plain(heading.to_owned())).into()
}

fn write_table(text: &mut String, rows: &[Vec<Cell>], paint: Paint) {
    let width = |column: usize| {
        // A line of one cell stands by itself.
        let cells = rows
            .iter()
            .filter(|row| row.len() > 1)
            .filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or_default()
    };
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let shown = if cell.is_yellow {
                paint.yellow(&cell.text)
            } else {
                cell.text.clone()
            };
            let end = if column == last {
                "\n".to_owned()
            } else {
                " ".repeat(width(column) - cell.text.chars().count() + 2)
            };
            let _ = write!(text, "{shown}{end}");
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use servicechain_crds::ServiceChain;

    use super::super::holders::held;
    use super::*;
    use crate::wording::COLUMNS;

    fn pod(name: &str, component: &str, state: &str) -> Pod {
        let state = match state {
            "running" => json!({"running": {}}),
            reason => json!({"waiting": {"reason": reason}}),
        };
        let pod = json!({
            "metadata": {"name": name, "labels": {"servicechain.dev/component": component}},
            "status": {"containerStatuses": [
                {"name": "x", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn rendered(recorded: &str, pods: &[Pod]) -> String {
        let chain: ServiceChain = serde_saphyr::from_str(recorded).unwrap();
        render(
            &held(&chain, pods),
            "2026-01-01T00:12:30Z".parse().unwrap(),
            Paint::Plain,
        )
    }

    #[test]
    fn keys_and_their_holders_are_two_tables() {
        let pods = [
            pod("shop-gateway-5c4d6f7b9d-a1b2c", "gateway", "running"),
            pod("shop-b-7d9f5c6b8d-x2k4p", "b", "ContainerCreating"),
            pod("shop-a-7d9f5c6b8d-q7r8s", "a", "running"),
        ];
        assert_eq!(
            rendered(include_str!("../../fixtures/ready.yaml"), &pods),
            "\
generation 7 · acknowledged by 10/10 · signed by t5Zx…
ISSUER    KEY    STATE   SINCE
platform  k1c9…  Active  3 m
platform  k7f2…  Active  12 m
platform  s9d3…  Staged  2 m
POD                            HOP      GENERATION  STATE        ANCHOR  CLOCK
shop-gateway-5c4d6f7b9d-a1b2c  gateway  7           current      t5Zx…   in step
shop-a-7d9f5c6b8d-q7r8s        a        7           unconfirmed  t5Zx…   +12 s
  ! has refused key bundles: lower, chain
  ! has not heard the operator since it started; may accept what was revoked just before
shop-b-7d9f5c6b8d-x2k4p        b        -           not running  ?       ?
  ! ContainerCreating
"
        );
    }

    #[test]
    fn laggards_say_since_when_and_why_in_a_hundred_columns() {
        let long = format!("a-very-long-chain-name-{}-7d9f5c6b8d-aaaaa", "x".repeat(40));
        let pods = [
            pod("shop-b-7d9f5c6b8d-x2k4p", "b", "running"),
            pod(&long, "gateway", "running"),
        ];
        let text = rendered(include_str!("../../fixtures/broken.yaml"), &pods);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[3].contains("…-7d9f5c6b8d-aaaaa  gateway  ?           unknown  ?       ?"),
            "{text}"
        );
        assert!(
            lines[4].starts_with("shop-b-7d9f5c6b8d-x2k4p ")
                && lines[4].ends_with(" 6           laggard  ?       ?"),
            "{text}"
        );
        assert_eq!(lines[5], "  ! Unreachable for 4 s");
        let longest = lines.iter().map(|line| line.chars().count()).max();
        assert!(longest <= Some(COLUMNS), "{longest:?} columns\n{text}");
    }

    #[test]
    fn of_very_many_pods_those_come_first_of_which_there_is_something_to_say() {
        let mut pods: Vec<Pod> = (0..1000)
            .map(|number| pod(&format!("shop-b-7d9f5c6b8d-{number:05}"), "b", "running"))
            .collect();
        pods.push(pod("shop-c-7d9f5c6b8d-x2k4p", "c", "CrashLoopBackOff"));
        let text = rendered(include_str!("../../fixtures/ready.yaml"), &pods);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[6].starts_with("shop-c-7d9f5c6b8d-x2k4p "), "{}", lines[6]);
        assert_eq!(lines.last(), Some(&"and 801 more that are current; see -o json"));
    }

    #[test]
    fn a_chain_without_keys_says_so() {
        let text = rendered(include_str!("../../../examples/shop.yaml"), &[]);
        assert!(text.starts_with("chain shop has no keys yet: "), "{text}");
    }
}
