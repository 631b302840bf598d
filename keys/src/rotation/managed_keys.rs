//! The life of a managed key: offered, Staged, Active, Retiring, removed (key protocol, lines 17 and 19 to 22). A key
//! leaves the bundle by way of Retiring or of a revocation only: somebody may have seen a bundle that made it Active.

use std::time::Duration;

use super::{CLOCK_MARGIN, DesiredIssuer, Draft, Event, Heard, NotStaged, SIGN_UNTIL_PERIODS};
use crate::bundle::{IssuerKey, KeyState, MAX_KEYS_PER_ISSUER};
use crate::identity::PodId;
use crate::offer::OfferRefusal;
use crate::{Algorithm, Jwk};

/// The pod's current key and its next.
const LIVING_KEYS_OF_A_POD: usize = 2;

pub(super) struct Spec<'a> {
    pub issuer: &'a DesiredIssuer,
    pub algorithm: Algorithm,
    pub token_lifetime: Duration,
    pub rotation_period: Duration,
    pub publish_ahead: Duration,
}

pub(super) fn next(
    draft: &mut Draft<'_>,
    spec: &Spec<'_>,
    mut keys: Vec<IssuerKey>,
    is_revoked: impl Fn(&Jwk) -> bool,
) -> Vec<IssuerKey> {
    remove_expired(draft, spec, &mut keys);
    // A stamp from the future is an error of the clock that made it; it must not hold rotations up until then.
    let now = draft.round.now;
    for key in keys.iter_mut().filter(|key| key.since > now.plus(CLOCK_MARGIN)) {
        key.since = now;
    }
    for key in keys.iter_mut().filter(|key| key.state != KeyState::Retiring) {
        key.max_lifetime = key.max_lifetime.max(spec.token_lifetime);
        let unfit = key.state == KeyState::Staged && key.jwk.algorithm() != spec.algorithm;
        if unfit || has_stopped(draft, key) {
            set_state(draft, spec, key, KeyState::Retiring);
        }
    }
    for pod in pods_of(draft, spec) {
        activate(draft, spec, &mut keys, &pod);
    }
    stage_offers(draft, spec, &mut keys, is_revoked);
    keys
}

fn remove_expired(draft: &mut Draft<'_>, spec: &Spec<'_>, keys: &mut Vec<IssuerKey>) {
    let slack = draft.clock_slack();
    keys.retain(|key| {
        let expired =
            key.state == KeyState::Retiring && draft.memory.is_expired_everywhere(key, slack, draft.round);
        if expired {
            draft.events.push(Event::key(spec.issuer, &key.jwk, "removed"));
        }
        !expired
    });
}

fn has_stopped(draft: &Draft<'_>, key: &IssuerKey) -> bool {
    match (&key.owner, key.jwk.kid()) {
        (Some(owner), Some(kid)) => draft.memory.has_stopped(owner, kid),
        _ => true,
    }
}

fn set_state(draft: &mut Draft<'_>, spec: &Spec<'_>, key: &mut IssuerKey, state: KeyState) {
    key.state = state;
    key.since = draft.round.now;
    draft
        .events
        .push(Event::key(spec.issuer, &key.jwk, format_args!("{state:?}")));
}

/// The issuer's pods that can still sign.
fn pods_of(draft: &Draft<'_>, spec: &Spec<'_>) -> Vec<PodId> {
    let of_issuer = |pod: &&super::ListedPod| pod.issuer.as_ref() == Some(&spec.issuer.name) && !pod.ended;
    draft
        .round
        .pods
        .iter()
        .filter(of_issuer)
        .map(|pod| pod.pod.clone())
        .collect()
}

/// Line 20: where the pod lacks an Active key or a rotation is due, its Staged key becomes Active once everyone has it,
/// and its previous Active key Retiring in the same bundle.
fn activate(draft: &mut Draft<'_>, spec: &Spec<'_>, keys: &mut [IssuerKey], pod: &PodId) {
    let of_pod = |state| move |key: &IssuerKey| key.state == state && key.owner.as_ref() == Some(pod);
    let active = keys.iter().position(of_pod(KeyState::Active));
    let Some(staged) = keys.iter().position(of_pod(KeyState::Staged)) else {
        return;
    };
    let now = draft.round.now;
    let may_sign = match active {
        None => true,
        Some(active) => {
            is_due(draft, spec, &keys[active]) && now >= keys[staged].since.plus(spec.publish_ahead)
        }
    };
    let round = draft.round;
    if !may_sign
        || !draft
            .memory
            .everyone_has(keys[staged].staged_in, round.pods, round.elapsed)
    {
        return;
    }
    if let Some(active) = active {
        set_state(draft, spec, &mut keys[active], KeyState::Retiring);
    }
    set_state(draft, spec, &mut keys[staged], KeyState::Active);
    keys[staged].sign_until = Some(now.plus(spec.rotation_period * SIGN_UNTIL_PERIODS));
}

fn is_due(draft: &mut Draft<'_>, spec: &Spec<'_>, active: &IssuerKey) -> bool {
    let now = draft.round.now;
    let ordered = draft.desired.rotate_keys_before.is_some_and(|before| {
        // An order ahead of its time would be carried out again and again until then.
        let not_yet = before > now;
        if not_yet {
            draft.events.push(Event::RotationNotYet { ordered: before });
        }
        !not_yet && active.since < before
    });
    ordered || now >= active.since.plus(spec.rotation_period) || active.jwk.algorithm() != spec.algorithm
}

/// Line 17, as far as the pod list and the bundle decide it.
fn stage_offers(
    draft: &mut Draft<'_>,
    spec: &Spec<'_>,
    keys: &mut Vec<IssuerKey>,
    is_revoked: impl Fn(&Jwk) -> bool,
) {
    let pods = pods_of(draft, spec);
    let round = draft.round;
    for heard in round
        .answers
        .iter()
        .filter(|heard| pods.contains(&heard.answer.pod))
    {
        for offer in &heard.offers {
            match stageable(draft, keys, heard, offer, &is_revoked) {
                Ok(None) => {}
                Ok(Some(jwk)) => {
                    draft.events.push(Event::key(spec.issuer, &jwk, "Staged"));
                    keys.push(IssuerKey {
                        jwk,
                        state: KeyState::Staged,
                        since: round.now,
                        owner: Some(heard.answer.pod.clone()),
                        staged_in: draft.generation,
                        max_lifetime: spec.token_lifetime,
                        sign_until: None,
                        until: None,
                    });
                }
                Err(reason) => {
                    draft.events.push(Event::OfferRefused {
                        pod: heard.answer.pod.clone(),
                        reason,
                    });
                }
            }
        }
    }
}

/// None where the key is in the bundle already, as this pod's: pods offer their living keys in every answer.
fn stageable(
    draft: &Draft<'_>,
    keys: &[IssuerKey],
    heard: &Heard,
    offer: &Result<Jwk, OfferRefusal>,
    is_revoked: impl Fn(&Jwk) -> bool,
) -> Result<Option<Jwk>, NotStaged> {
    let pod = &heard.answer.pod;
    let jwk = offer.as_ref().map_err(|refusal| NotStaged::Refused(*refusal))?;
    let everywhere = draft
        .base
        .iter()
        .flat_map(|base| &base.bundle.issuers)
        .flat_map(|issuer| &issuer.keys);
    let same = |key: &&IssuerKey| key.jwk.thumbprint() == jwk.thumbprint();
    if is_revoked(jwk) {
        return Err(NotStaged::Revoked);
    }
    if let Some(known) = everywhere.clone().find(same).or_else(|| keys.iter().find(same)) {
        return if known.owner.as_ref() == Some(pod) {
            Ok(None)
        } else {
            Err(NotStaged::AnotherPods)
        };
    }
    if jwk.kid().is_some_and(|kid| draft.memory.has_stopped(pod, kid)) {
        return Err(NotStaged::Stopped);
    }
    let living = keys
        .iter()
        .filter(|key| key.state != KeyState::Retiring && key.owner.as_ref() == Some(pod))
        .count();
    if living >= LIVING_KEYS_OF_A_POD {
        return Err(NotStaged::TooManyOfPod);
    }
    if keys.len() >= MAX_KEYS_PER_ISSUER {
        return Err(NotStaged::TooManyOfIssuer);
    }
    Ok(Some(jwk.clone()))
}
