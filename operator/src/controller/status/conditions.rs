//! Conditions from the standing of the parts: which serve, what is wrong with them, what is awaited. A condition's time is
//! kept while its status is, so that nothing moves by itself. It must not know Kubernetes' objects.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::keys::whole_seconds;
use super::reason::{Reason, Trouble};
use super::words::bounded;

/// Lines of a message; the rest is counted.
const MAX_LINES: usize = 5;
/// The schema's bound of the messages that it bounds; more is nothing to read.
pub(crate) const MAX_MESSAGE: usize = 1024;
/// Room for `and 123 more`.
const MORE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub truth: Truth,
    pub reason: Reason,
    pub message: String,
}

/// A part of the chain, as far as conditions ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub serves: bool,
    pub is_full: bool,
    pub is_rolling: bool,
    pub troubles: Vec<Trouble>,
    /// What is awaited where nothing is wrong.
    pub awaited: Option<(Reason, String)>,
}

impl Verdict {
    pub(crate) fn new(truth: Truth, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            truth,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        self.truth == Truth::True
    }
}

impl Part {
    /// What is to be said about it; empty where all is well.
    pub(crate) fn message(&self) -> String {
        let awaited = self.awaited.iter().map(|(_, sentence)| sentence.as_str());
        if self.troubles.is_empty() {
            lines(awaited)
        } else {
            lines(sentences(&self.troubles))
        }
    }
}

/// Whether all of some parts serve. `good` is the reason where all is well, and what is to be said even then.
pub(crate) fn of_parts<'a>(parts: impl Iterator<Item = &'a Part> + Clone, good: (Reason, &str)) -> Verdict {
    let (reason, note) = good;
    let down = parts.clone().filter(|part| !part.serves);
    if let Some((reason, message)) = first_of(down.clone()) {
        return Verdict::new(Truth::False, reason, message);
    }
    if down.count() > 0 {
        return Verdict::new(Truth::False, Reason::PodsStarting, "");
    }
    let impaired = parts.filter(|part| !part.is_full || !part.troubles.is_empty());
    match first_of(impaired) {
        Some((_, message)) => Verdict::new(Truth::True, Reason::StillServing, joined(&[&message, note])),
        None => Verdict::new(Truth::True, reason, note),
    }
}

/// The first reason, and what is to be said about all: troubles if there are any, else what is awaited.
fn first_of<'a>(parts: impl Iterator<Item = &'a Part>) -> Option<(Reason, String)> {
    let parts: Vec<&Part> = parts.collect();
    let mut troubles: Vec<&Trouble> = parts.iter().flat_map(|part| &part.troubles).collect();
    troubles.sort_unstable();
    if let Some(first) = troubles.first() {
        return Some((
            first.reason,
            lines(troubles.iter().map(|trouble| trouble.sentence.as_str())),
        ));
    }
    let awaited: Vec<&(Reason, String)> = parts.iter().filter_map(|part| part.awaited.as_ref()).collect();
    let reason = awaited.iter().map(|(reason, _)| *reason).min()?;
    Some((
        reason,
        lines(awaited.iter().map(|(_, sentence)| sentence.as_str())),
    ))
}

pub(crate) fn sentences(troubles: &[Trouble]) -> impl Iterator<Item = &str> {
    troubles.iter().map(|trouble| trouble.sentence.as_str())
}

/// A sentence a line, within the bounds of a message.
pub(crate) fn lines<'a>(sentences: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for sentence in sentences.flat_map(str::lines) {
        if !all.contains(&sentence) {
            all.push(sentence);
        }
    }
    let text = all.iter().take(MAX_LINES).copied().collect::<Vec<_>>().join("\n");
    match all.len().saturating_sub(MAX_LINES) {
        0 => bounded(&text, MAX_MESSAGE),
        more => format!("{}\nand {more} more", bounded(&text, MAX_MESSAGE - MORE)),
    }
}

/// Messages one after the other.
pub(crate) fn joined(messages: &[&str]) -> String {
    let said: Vec<&str> = messages
        .iter()
        .copied()
        .filter(|message| !message.is_empty())
        .collect();
    bounded(&said.join("\n"), MAX_MESSAGE)
}

/// As the API has it. `before` are the conditions that stand.
pub(crate) fn condition(
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = match verdict.truth {
        Truth::True => "True",
        Truth::False => "False",
        Truth::Unknown => "Unknown",
    };
    let stood = before
        .iter()
        .find(|known| known.type_ == kind && known.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: bounded(&verdict.message, MAX_MESSAGE),
        observed_generation: generation,
        last_transition_time: stood.map_or_else(
            || Time(whole_seconds(now)),
            |known| known.last_transition_time.clone(),
        ),
    }
}
