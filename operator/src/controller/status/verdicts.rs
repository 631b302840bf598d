//! What each condition says, from where the parts stand. It must not know Kubernetes' objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use servicechain_crds::mistakes;
use servicechain_crds::{Mistakes, ServiceChain};

use super::conditions::{Part, Truth, Verdict, joined, lines, of_parts, sentences};
use super::keys::{Keys, KeysStanding};
use super::parts::Parts;
use super::reason::{Reason, Trouble};
use super::remarks::ClocksStanding;
use super::{Kind, Pass};
use crate::controller::accepted::Accepted;
use crate::object_names::Component;

const TOKENS_IN_CLEAR: &str = "clients' tokens reach the gateway in clear text; put TLS in front of it";
const SINGLE_INSTANCE: &str =
    "managed databases are single instances, no HA, no backup; back up what you cannot lose";

/// What every condition but Accepted says of a chain that was accepted.
pub(crate) fn verdicts(
    chain: &ServiceChain,
    pass: &Pass<'_>,
    parts: &Parts<'_>,
    keys: &Keys,
    before: &[Condition],
) -> BTreeMap<Kind, Verdict> {
    let gateway = of_parts(
        parts.of(|one| one == Component::Gateway),
        (Reason::TokensInClear, TOKENS_IN_CLEAR),
    );
    let issuers = of_parts(
        parts.of(|one| matches!(one, Component::Issuer(_))),
        (Reason::AllReady, ""),
    );
    let services = of_parts(
        parts.of(|one| matches!(one, Component::Service(_))),
        (Reason::AllReady, ""),
    );
    let stores = of_stores(parts);
    let of_keys = of_keys(keys, before);
    let ready = of_all([&gateway, &issuers, &services, &stores], parts, &of_keys, before);
    BTreeMap::from([
        (Kind::GatewayReady, gateway),
        (Kind::IssuersReady, issuers),
        (Kind::ServicesReady, services),
        (Kind::StoresReady, stores),
        (Kind::KeysInSync, of_keys),
        (Kind::ClocksInSync, of_clocks(keys, before)),
        (Kind::Progressing, of_progress(chain, pass, parts)),
        (Kind::Degraded, of_troubles(parts, keys)),
        (Kind::Ready, ready),
    ])
}

/// Where no spec was ever accepted.
pub(crate) fn unjudged(acceptance: &Verdict) -> BTreeMap<Kind, Verdict> {
    let unknown = Verdict::new(
        Truth::Unknown,
        Reason::NotAccepted,
        "nothing is made before spec is accepted",
    );
    let others = [
        Kind::GatewayReady,
        Kind::IssuersReady,
        Kind::ServicesReady,
        Kind::StoresReady,
        Kind::KeysInSync,
        Kind::ClocksInSync,
        Kind::Progressing,
        Kind::Degraded,
    ];
    let ready = Verdict::new(Truth::False, Reason::NotAccepted, &acceptance.message);
    let others = others.into_iter().map(|kind| (kind, unknown.clone()));
    others.chain([(Kind::Ready, ready)]).collect()
}

fn of_stores(parts: &Parts<'_>) -> Verdict {
    let is_database = |one| matches!(one, Component::Database { .. });
    let is_store = move |one| is_database(one) || matches!(one, Component::Cache { .. });
    if parts.of(is_store).next().is_none() {
        return Verdict::new(Truth::True, Reason::NoStores, "");
    }
    let good = if parts.of(is_database).next().is_some() {
        (Reason::SingleInstance, SINGLE_INSTANCE)
    } else {
        (Reason::AllReady, "")
    };
    of_parts(parts.of(is_store), good)
}

/// Ready: every part serves. It becomes so only with the newest keys in place, so that who waited for it finds them there;
/// it does not end for newer ones, which come and go while all parts serve.
fn of_all(groups: [&Verdict; 4], parts: &Parts<'_>, keys: &Verdict, before: &[Condition]) -> Verdict {
    let down = groups.iter().filter(|group| !group.is_true());
    let down = down.map(|group| (group.reason, group.message.as_str()));
    if down.clone().next().is_some() {
        // What is wrong with no part alone may keep all of them from being made.
        let elsewhere = parts.elsewhere.iter();
        let elsewhere = elsewhere.map(|trouble| (trouble.reason, trouble.sentence.as_str()));
        let mut all: Vec<(Reason, &str)> = elsewhere.chain(down).collect();
        all.sort_by_key(|(reason, _)| *reason);
        let messages: Vec<&str> = all.iter().map(|(_, message)| *message).collect();
        return Verdict::new(Truth::False, all[0].0, joined(&messages));
    }
    let was_ready = before
        .iter()
        .any(|known| known.type_ == Kind::Ready.as_str() && known.status == "True");
    if groups.iter().any(|group| group.reason == Reason::StillServing) {
        Verdict::new(Truth::True, Reason::StillServing, "")
    } else if !was_ready && keys.reason == Reason::Distributing {
        Verdict::new(Truth::False, Reason::Distributing, &keys.message)
    } else {
        Verdict::new(Truth::True, Reason::AllReady, "")
    }
}

fn of_keys(keys: &Keys, before: &[Condition]) -> Verdict {
    match &keys.standing {
        KeysStanding::InSync => Verdict::new(Truth::True, Reason::InSync, ""),
        KeysStanding::Distributing(sentence) => Verdict::new(Truth::False, Reason::Distributing, sentence),
        KeysStanding::Trouble(trouble) => Verdict::new(Truth::False, trouble.reason, &trouble.sentence),
        KeysStanding::Unheard => said_before(keys, before),
    }
}

/// A leader that knows nothing yet says what was said.
fn said_before(keys: &Keys, before: &[Condition]) -> Verdict {
    let said = before
        .iter()
        .find(|known| known.type_ == Kind::KeysInSync.as_str());
    let reasons = [
        Reason::InSync,
        Reason::Distributing,
        Reason::Laggards,
        Reason::KeysStuck,
    ];
    let reason = said.and_then(|said| reasons.into_iter().find(|reason| reason.as_str() == said.reason));
    match (said, reason, &keys.status) {
        (Some(said), Some(reason), Some(_)) => {
            let truth = if said.status == "True" {
                Truth::True
            } else {
                Truth::False
            };
            Verdict::new(truth, reason, &said.message)
        }
        (_, _, Some(_)) => Verdict::new(Truth::Unknown, Reason::Distributing, "verifiers are being asked"),
        (_, _, None) => Verdict::new(
            Truth::False,
            Reason::NoBundleYet,
            "the chain's first key bundle is not written yet",
        ),
    }
}

fn of_clocks(keys: &Keys, before: &[Condition]) -> Verdict {
    match &keys.clocks {
        ClocksStanding::InStep => Verdict::new(Truth::True, Reason::InStep, ""),
        ClocksStanding::Trouble(trouble) => Verdict::new(Truth::False, trouble.reason, &trouble.sentence),
        ClocksStanding::Unheard => {
            let said = before
                .iter()
                .find(|known| known.type_ == Kind::ClocksInSync.as_str());
            match said.map(|said| (said.reason.as_str(), &said.message)) {
                Some(("InStep", message)) => Verdict::new(Truth::True, Reason::InStep, message),
                Some(("ClockOff", message)) => Verdict::new(Truth::False, Reason::ClockOff, message),
                _ => Verdict::new(
                    Truth::Unknown,
                    Reason::ClocksNotHeard,
                    "not every verifier has told its time yet",
                ),
            }
        }
    }
}

fn of_progress(chain: &ServiceChain, pass: &Pass<'_>, parts: &Parts<'_>) -> Verdict {
    if chain.spec.paused {
        let message = "spec.paused is true: no object is changed, status, keys and revocations go on";
        return Verdict::new(Truth::False, Reason::Paused, message);
    }
    let troubles = parts.troubles();
    let stuck: Vec<Trouble> = troubles
        .into_iter()
        .filter(|trouble| trouble.reason == Reason::ProgressDeadlineExceeded)
        .collect();
    if !stuck.is_empty() {
        return Verdict::new(
            Truth::False,
            Reason::ProgressDeadlineExceeded,
            lines(sentences(&stuck)),
        );
    }
    let rolling: Vec<&Part> = parts.all().filter(|part| part.is_rolling).collect();
    let awaited = |parts: &[&Part]| -> Vec<String> {
        let awaited = parts.iter().filter_map(|part| part.awaited.as_ref());
        awaited.map(|(_, sentence)| sentence.clone()).collect()
    };
    if !rolling.is_empty() || !pass.held.is_empty() {
        let held = pass.held.iter().map(ToString::to_string);
        let message: Vec<String> = awaited(&rolling).into_iter().chain(held).collect();
        return Verdict::new(
            Truth::True,
            Reason::RollingOut,
            lines(message.iter().map(String::as_str)),
        );
    }
    let waiting: Vec<&Part> = parts.all().filter(|part| part.troubles.is_empty()).collect();
    match waiting
        .iter()
        .filter_map(|part| part.awaited.as_ref())
        .map(|(reason, _)| *reason)
        .min()
    {
        Some(reason) => Verdict::new(
            Truth::True,
            reason,
            lines(awaited(&waiting).iter().map(String::as_str)),
        ),
        None => Verdict::new(Truth::False, Reason::UpToDate, ""),
    }
}

fn of_troubles(parts: &Parts<'_>, keys: &Keys) -> Verdict {
    let mut troubles = parts.troubles();
    if let KeysStanding::Trouble(trouble) = &keys.standing {
        troubles.push(trouble.clone());
    }
    if let ClocksStanding::Trouble(trouble) = &keys.clocks {
        troubles.push(trouble.clone());
    }
    troubles.sort_unstable();
    match troubles.first() {
        Some(first) => Verdict::new(Truth::True, first.reason, lines(sentences(&troubles))),
        None => Verdict::new(Truth::False, Reason::NothingWrong, ""),
    }
}

pub(crate) fn of_acceptance(accepted: &Accepted) -> Verdict {
    let refused = |mistakes: &Mistakes, then: &str| {
        let invalid = mistakes
            .iter()
            .any(|mistake| mistake.reason == mistakes::Reason::Invalid);
        let reason = if invalid {
            Reason::Invalid
        } else {
            Reason::NotSupportedYet
        };
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Verdict::new(
            Truth::False,
            reason,
            lines([then].into_iter().chain(mistakes.iter().map(String::as_str))),
        )
    };
    match accepted {
        Accepted::Now(_) => Verdict::new(Truth::True, Reason::Accepted, ""),
        Accepted::Before { mistakes, .. } => refused(
            mistakes,
            "spec is refused, and the chain goes on as it was accepted before:",
        ),
        Accepted::Never(mistakes) => refused(mistakes, "spec is refused, and nothing is made from it:"),
    }
}
