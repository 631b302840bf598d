//! The keys of issuers that are not ours, from their published key set. What is missing from a good answer is Withdrawn,
//! then removed; an answer that failed changes nothing. It must not know how the set was fetched.

use std::time::Duration;

use super::{DesiredIssuer, Draft, Event};
use crate::bundle::{IssuerKey, KeyState, MAX_KEYS_PER_ISSUER};
use crate::jwk::Jwk;

pub(super) fn next(
    draft: &mut Draft<'_>,
    issuer: &DesiredIssuer,
    mut keys: Vec<IssuerKey>,
    answer: Option<&[Jwk]>,
    grace: Duration,
    is_revoked: impl Fn(&Jwk) -> bool,
) -> Vec<IssuerKey> {
    // An answer without one usable key is not a good one: issuers do not withdraw everything.
    if let Some(answer) = answer.filter(|answer| !answer.is_empty()) {
        withdraw_missing(draft, issuer, &mut keys, answer, grace);
        for jwk in answer.iter().filter(|jwk| !is_revoked(jwk)) {
            accept(draft, issuer, &mut keys, jwk);
        }
    }
    let now = draft.round.earliest_clock();
    keys.retain(|key| {
        let over = key.state == KeyState::Withdrawn && key.until.is_some_and(|until| now >= until);
        if over {
            draft.events.push(Event::key(issuer, &key.jwk, "removed"));
        }
        !over
    });
    keys
}

fn is_same(key: &Jwk, other: &Jwk) -> bool {
    key.thumbprint() == other.thumbprint() && key.kid() == other.kid() && key.algorithm() == other.algorithm()
}

fn withdraw_missing(
    draft: &mut Draft<'_>,
    issuer: &DesiredIssuer,
    keys: &mut Vec<IssuerKey>,
    answer: &[Jwk],
    grace: Duration,
) {
    // A kid names one key: where the issuer gave it to another, the old one cannot stay beside it.
    keys.retain(|key| {
        let replaced = key.jwk.kid().is_some()
            && answer
                .iter()
                .any(|jwk| jwk.kid() == key.jwk.kid() && !is_same(jwk, &key.jwk));
        if replaced {
            draft.events.push(Event::key(
                issuer,
                &key.jwk,
                "removed: its kid now names another key",
            ));
        }
        !replaced
    });
    for key in keys.iter_mut().filter(|key| key.state != KeyState::Withdrawn) {
        if !answer.iter().any(|jwk| is_same(jwk, &key.jwk)) {
            key.state = KeyState::Withdrawn;
            key.since = draft.round.now;
            key.until = Some(draft.round.now.plus(grace));
            draft.events.push(Event::key(issuer, &key.jwk, "Withdrawn"));
        }
    }
}

fn accept(draft: &mut Draft<'_>, issuer: &DesiredIssuer, keys: &mut Vec<IssuerKey>, jwk: &Jwk) {
    let now = draft.round.now;
    if let Some(known) = keys.iter_mut().find(|key| is_same(&key.jwk, jwk)) {
        if known.state == KeyState::Withdrawn {
            known.state = KeyState::Active;
            known.since = now;
            known.until = None;
            draft.events.push(Event::key(issuer, jwk, "Active"));
        }
        return;
    }
    if keys.len() >= MAX_KEYS_PER_ISSUER {
        draft
            .events
            .push(Event::key(issuer, jwk, "left out: the issuer has too many keys"));
        return;
    }
    draft.events.push(Event::key(issuer, jwk, "Active"));
    keys.push(IssuerKey {
        jwk: jwk.clone(),
        state: KeyState::Active,
        since: now,
        owner: None,
        staged_in: draft.generation,
        max_lifetime: issuer
            .max_token_lifetime
            .unwrap_or(draft.desired.policy.max_token_lifetime),
        sign_until: None,
        until: None,
    });
}
