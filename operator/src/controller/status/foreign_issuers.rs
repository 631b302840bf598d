//! Where an issuer stands that the chain does not run: whether its keys are known, and what is wrong with the newest of
//! them. It must not know how keys are fetched.

use servicechain_crds::validated::{Issuer, IssuerKind};

use super::conditions::Part;
use super::keys::{self, Keys};
use super::reason::{Reason, Trouble};
use crate::key_controller::KeyState;
use crate::key_controller::state::{IssuerProblem, IssuerStanding};

/// It serves as long as a key of it is known, whatever its newest answer is.
pub(crate) fn part(issuer: &Issuer, keys: &Keys, state: Option<&KeyState>) -> Part {
    let standing = state.and_then(|state| state.issuers.get(&issuer.name));
    let problem = standing.and_then(|standing| standing.problem.as_ref());
    let troubles: Vec<Trouble> = problem
        .map(|problem| trouble(issuer, problem))
        .into_iter()
        .collect();
    let is_known = keys::signs(keys.status.as_ref(), &issuer.name);
    let is_awaited = !is_known && troubles.is_empty();
    Part {
        serves: is_known,
        is_full: true,
        is_rolling: false,
        troubles,
        awaited: is_awaited.then(|| {
            let sentence = format!("the keys of issuer {} are not known yet", issuer.name);
            (Reason::NoKeysYet, sentence)
        }),
    }
}

/// The word for it in status.
pub(crate) fn state(issuer: &Issuer, part: Option<&Part>) -> &'static str {
    let in_the_way = part.and_then(|part| {
        let trouble = part.troubles.first().map(|trouble| trouble.reason);
        trouble.or(part.awaited.as_ref().map(|(reason, _)| *reason))
    });
    match (&issuer.kind, in_the_way) {
        (_, Some(reason)) => reason.as_str(),
        (IssuerKind::Static(_), None) => "Given",
        (_, None) => "Fetched",
    }
}

/// What is wrong, and which keys were left out, a line each.
pub(crate) fn messages(part: Option<&Part>, standing: Option<&IssuerStanding>) -> Vec<String> {
    let message = part.map(Part::message).filter(|message| !message.is_empty());
    let refused = standing.into_iter().flat_map(|standing| standing.refused.iter());
    message.into_iter().chain(refused.cloned()).collect()
}

fn trouble(issuer: &Issuer, problem: &IssuerProblem) -> Trouble {
    let name = &issuer.name;
    let (reason, what, remedy) = match problem {
        IssuerProblem::MissingConfigMap(says) => (Reason::MissingConfigMap, says, "mend that name in spec"),
        IssuerProblem::NotFetched(says) => (
            Reason::KeysNotFetched,
            says,
            "keys that are known stay, it is tried again",
        ),
        IssuerProblem::Unusable(says) => (
            Reason::KeySetUnusable,
            says,
            "keys that are known stay, mend the ConfigMap",
        ),
    };
    match what.rsplit_once("; ") {
        Some((what, remedy)) => Trouble::new(reason, format_args!("issuer {name}: {what}"), remedy),
        None => Trouble::new(reason, format_args!("issuer {name}: {what}"), remedy),
    }
}
