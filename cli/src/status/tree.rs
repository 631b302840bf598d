//! A chain as a tree of its parts, for people. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::issuers::ManagedIssuerSpec;
use servicechain_crds::service_chain::status::{IssuerStatus, KeysStatus, ServiceStatus, StoreStatus};

use crate::paint::{Paint, tame, tame_lines};
use crate::standing::{self, Standing};
use crate::wording::{COLUMNS, roughly, seconds_between, spoken, wrapped};

/// Longest line of the operator that is shown.
const LONGEST_LINE: usize = 1024;
/// What a store that the operator runs is, said once.
const MANAGED_IS: &str = "(single instance, no backup)";
/// The operator's reason where nothing but clear text is wrong with the gateway.
const TOKENS_IN_CLEAR: &str = "TokensInClear";

/// The lines, each ended.
pub(crate) fn tree(chain: &ServiceChain, now: Timestamp, paint: Paint) -> String {
    let mut text = format!("{}\n", heading(chain, now, paint));
    let parts = parts(chain, now, paint);
    let width = parts
        .iter()
        .map(|part| part.name.chars().count())
        .max()
        .unwrap_or_default();
    for (index, part) in parts.iter().enumerate() {
        let (branch, stem) = if index + 1 == parts.len() {
            ("└─", "  ")
        } else {
            ("├─", "│ ")
        };
        let row = format!("{branch} {:width$}  {}", part.name, part.says.join("  "));
        let _ = writeln!(text, "{}", row.trim_end());
        let indent = format!("{stem} {:width$}  ", "");
        write_trouble(&mut text, &indent, &part.message, paint);
    }
    if let Some(keys) = chain.status.as_ref().and_then(|status| status.keys.as_ref()) {
        write_keys(&mut text, keys, now, paint);
    }
    for sentence in rest(chain, &parts) {
        write_trouble(&mut text, "", &sentence, paint);
    }
    text
}

/// A part of the chain: a row, and what is in its way.
struct Part {
    name: String,
    says: Vec<String>,
    message: String,
}

fn heading(chain: &ServiceChain, now: Timestamp, paint: Paint) -> String {
    let metadata = &chain.metadata;
    let generation = metadata.generation.unwrap_or_default();
    let seen = chain
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    let word = match standing::of(chain, "Ready") {
        Standing::Holds if is_degraded(chain) => paint.yellow("Ready, degraded"),
        Standing::Holds => paint.green("Ready"),
        Standing::Not(_) => paint.red("Not ready"),
    };
    let generation = match seen {
        Some(seen) if seen < generation => format!("generation {generation} (the operator has seen {seen})"),
        _ => format!("generation {generation}"),
    };
    let age = metadata
        .creation_timestamp
        .as_ref()
        .map(|created| roughly(seconds_between(created.0, now)));
    let url = chain
        .status
        .as_ref()
        .and_then(|status| status.gateway.as_ref())
        .and_then(|gateway| gateway.url.clone());
    let paused = chain
        .spec
        .paused
        .then(|| paint.yellow("paused: nothing but keys and status changes"));
    let name = paint.bold(metadata.name.as_deref().unwrap_or_default());
    [Some(name), Some(word), age, Some(generation), paused, url]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("  ")
}

fn is_degraded(chain: &ServiceChain) -> bool {
    standing::troubles(chain)
        .iter()
        .any(|condition| condition.type_ == "Degraded")
}

fn parts(chain: &ServiceChain, now: Timestamp, paint: Paint) -> Vec<Part> {
    let Some(status) = &chain.status else {
        return Vec::new();
    };
    let mut parts: Vec<Part> = status
        .issuers
        .iter()
        .map(|issuer| self::issuer(chain, issuer, now, paint))
        .collect();
    if let Some(gateway) = &status.gateway {
        let is_in_clear =
            |condition: &Condition| condition.type_ == "GatewayReady" && condition.reason == TOKENS_IN_CLEAR;
        let in_clear = standing::conditions(chain)
            .iter()
            .any(is_in_clear)
            .then(|| paint.dim("(tokens arrive in clear text)"));
        parts.push(Part {
            name: "gateway".to_owned(),
            says: [
                Some(count(gateway.ready, gateway.desired, gateway.updated, paint)),
                in_clear,
            ]
            .into_iter()
            .flatten()
            .collect(),
            message: String::new(),
        });
    }
    let mut is_explained = false;
    for service in &status.services {
        parts.push(self::service(service, &mut is_explained, paint));
    }
    parts
}

fn issuer(chain: &ServiceChain, issuer: &IssuerStatus, now: Timestamp, paint: Paint) -> Part {
    let spec = chain.spec.issuers.iter().find(|spec| spec.name == issuer.name);
    let managed = spec.and_then(|spec| spec.managed.as_ref());
    let state = spoken(&tame(&issuer.state, 64));
    let is_well = matches!(issuer.state.as_str(), "Signing" | "Fetched" | "Given");
    let mut says = Vec::new();
    if let (Some(ready), Some(desired)) = (issuer.ready, issuer.desired) {
        says.push(count(ready, desired, desired, paint));
    }
    says.push(if is_well { state } else { paint.yellow(&state) });
    if let Some(managed) = managed {
        let rotates = rotates_in(chain, &issuer.name, managed, now)
            .map(|seconds| format!(", rotates in {}", roughly(seconds)));
        says.push(format!("{:?}{}", managed.algorithm, rotates.unwrap_or_default()));
    }
    Part {
        name: format!("issuer {}", issuer.name),
        says,
        message: issuer.message.clone(),
    }
}

/// Seconds until the first of an issuer's active keys has signed for its whole period.
fn rotates_in(chain: &ServiceChain, issuer: &str, spec: &ManagedIssuerSpec, now: Timestamp) -> Option<u64> {
    let period = spec.rotation_period.parse().ok()?;
    let keys = chain.status.as_ref()?.keys.as_ref()?;
    let active = keys
        .entries
        .iter()
        .filter(|key| key.issuer == issuer && key.state == "Active");
    let oldest = active.map(|key| key.since.0).min()?;
    period.as_secs().checked_sub(seconds_between(oldest, now))
}

fn service(service: &ServiceStatus, is_explained: &mut bool, paint: Paint) -> Part {
    let mut says = vec![count(service.ready, service.desired, service.updated, paint)];
    if let Some(database) = &service.database {
        let mut said = store("postgres", database, paint);
        if database.kind == "Managed" && !*is_explained {
            *is_explained = true;
            said = format!("{said} {}", paint.dim(MANAGED_IS));
        }
        says.push(said);
    }
    says.extend(service.cache.as_ref().map(|cache| store("redis", cache, paint)));
    Part {
        name: service.name.clone(),
        says,
        message: service.message.clone(),
    }
}

fn store(what: &str, store: &StoreStatus, paint: Paint) -> String {
    let mut said = what.to_owned();
    if let Some(version) = &store.version {
        let _ = write!(said, " {}", tame(version, 32));
    }
    if store.kind != "Managed" {
        let _ = write!(said, " ({})", tame(&store.kind, 32));
    }
    if store.ready {
        said
    } else {
        paint.yellow(&format!("{said} not ready"))
    }
}

fn count(ready: i32, desired: i32, updated: i32, paint: Paint) -> String {
    let count = format!("{ready}/{desired}");
    let count = if ready >= desired {
        paint.green(&count)
    } else {
        paint.yellow(&count)
    };
    if updated < desired {
        format!(
            "{count}  {}",
            paint.yellow(&format!("{updated}/{desired} updated"))
        )
    } else {
        count
    }
}

fn write_keys(text: &mut String, keys: &KeysStatus, now: Timestamp, paint: Paint) {
    let count = format!("{}/{}", keys.acknowledged, keys.verifiers);
    let count = if keys.acknowledged >= keys.verifiers {
        paint.green(&count)
    } else {
        paint.yellow(&count)
    };
    let changed = keys
        .entries
        .iter()
        .map(|key| key.since.0)
        .max()
        .map(|last| format!(" · last change {} ago", roughly(seconds_between(last, now))));
    let _ = writeln!(
        text,
        "keys  {count} @ {}{}",
        keys.generation,
        changed.unwrap_or_default()
    );
    for laggard in &keys.laggards {
        let holds = laggard
            .generation
            .map_or("holds no keys".to_owned(), |held| format!("holds {held}"));
        let since = roughly(seconds_between(laggard.since.0, now));
        let says = format!("{} {holds} for {since} ({})", laggard.pod, laggard.reason);
        write_trouble(text, "      ", &says, paint);
    }
    let named = i32::try_from(keys.laggards.len()).unwrap_or(i32::MAX);
    if keys.laggard_count > named {
        let more = format!("and {} more", keys.laggard_count - named);
        write_trouble(text, "      ", &more, paint);
    }
}

/// What is wrong and is not said of a part already, a condition each.
fn rest(chain: &ServiceChain, parts: &[Part]) -> Vec<String> {
    let mut said: Vec<String> = parts
        .iter()
        .flat_map(|part| part.message.lines().map(str::to_owned))
        .collect();
    let mut rest = Vec::new();
    for condition in standing::troubles(chain) {
        let message = standing::message(condition);
        let news: Vec<&str> = message
            .lines()
            .filter(|line| !said.iter().any(|known| known == line))
            .collect();
        if !news.is_empty() || message.is_empty() {
            rest.push(format!("{}: {}", standing::heading(condition), news.join("\n")));
        }
        let news: Vec<String> = news.into_iter().map(str::to_owned).collect();
        said.extend(news);
    }
    match standing::of(chain, "Ready") {
        Standing::Not(why) if said.is_empty() => vec![why],
        Standing::Not(why) if is_unseen(chain) => [vec![why], rest].concat(),
        _ => rest,
    }
}

/// Whether what the operator says is of an older generation.
fn is_unseen(chain: &ServiceChain) -> bool {
    let seen = chain
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen < chain.metadata.generation
}

/// `! ` and the text, in as many lines as it takes.
fn write_trouble(text: &mut String, indent: &str, message: &str, paint: Paint) {
    let width = COLUMNS.saturating_sub(indent.chars().count() + 2);
    for (index, line) in wrapped(&tame_lines(message, LONGEST_LINE), width)
        .iter()
        .enumerate()
    {
        let mark = if index == 0 {
            paint.yellow("!")
        } else {
            " ".to_owned()
        };
        let _ = writeln!(text, "{indent}{mark} {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-01-01T00:12:30Z";

    fn drawn(recorded: &str) -> String {
        let chain: ServiceChain = serde_saphyr::from_str(recorded).unwrap();
        tree(&chain, AT.parse().unwrap(), Paint::Plain)
    }

    #[track_caller]
    fn assert_drawn(recorded: &str, golden: &str) {
        let drawn = drawn(recorded);
        assert_eq!(drawn, golden, "\n{drawn}");
        let longest = drawn.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(COLUMNS), "{longest:?} columns");
    }

    #[test]
    fn a_ready_chain_is_a_tree_of_what_it_is_made_of() {
        assert_drawn(
            include_str!("../../fixtures/ready.yaml"),
            include_str!("../../fixtures/ready.tree.txt"),
        );
    }

    #[test]
    fn what_is_in_the_way_stands_beneath_its_part() {
        assert_drawn(
            include_str!("../../fixtures/broken.yaml"),
            include_str!("../../fixtures/broken.tree.txt"),
        );
    }

    #[test]
    fn a_chain_nobody_has_looked_at_says_so() {
        assert_drawn(
            include_str!("../../../examples/shop.yaml"),
            "shop  Not ready  generation 0\n! the operator has not looked at it yet; is it running?\n",
        );
    }

    #[test]
    fn an_edit_the_operator_has_not_seen_is_not_ready() {
        let recorded =
            include_str!("../../fixtures/ready.yaml").replacen("generation: 3", "generation: 4", 1);
        let drawn = drawn(&recorded);
        assert!(
            drawn.starts_with("shop  Not ready  12 m  generation 4 (the operator has seen 3)"),
            "{drawn}"
        );
        assert!(
            drawn.ends_with("! the operator has seen generation 3 of it, not yet 4\n"),
            "{drawn}"
        );
    }

    #[test]
    fn text_of_strangers_cannot_move_the_cursor() {
        let recorded =
            include_str!("../../fixtures/broken.yaml").replace("does not pull", "does\\e[2Jnot pull");
        assert!(!drawn(&recorded).contains('\u{1b}'));
    }
}
