//! What the publisher decides: from the newest bundle, what the chain asks for and what one round of questions brought,
//! the next bundle or none. A pure function: no clock, no randomness, no network. It must not know how bundles travel.
//!
//! A leader's round, in this order, and nothing else makes a bundle (key protocol, lines 11, 12 and 21):
//! 1. read the `ConfigMap` ([`Memory::read`]), then, consistently, what the chain asks for ([`Desired`]);
//! 2. LIST the pods, consistently, ask every one of them (PUT what it lacks, else GET), READ what it claims beyond that;
//! 3. choose the base ([`newest`]); [`Memory::note`]; [`decide`];
//! 4. where the base is not in the `ConfigMap`, REPLACE it with the base's own bytes; else sign what was decided, REPLACE;
//!    [`Memory::wrote`]; and only then push. A conflict discards all of it.

mod base;
mod event;
mod managed_keys;
mod memory;
mod published_keys;
mod revocations;
mod standing;

use std::collections::HashSet;
use std::time::Duration;

use crate::acknowledgement::{Answer, Nonce};
use crate::bundle::{
    Bundle, Generation, Issuer, IssuerKey, IssuerKind, IssuerState, Policy, Revocation, VERSION,
};
use crate::identity::{ChainId, PodId};
use crate::numeric_date::NumericDate;
use crate::offer::OfferRefusal;
use crate::{Algorithm, Jwk};

pub use base::{Base, newest};
pub use event::{Event, NotStaged};
pub use memory::Memory;
pub use standing::{Laggard, LaggardReason, Standing};

/// Added to every wait on clocks, beside the policy's skew.
pub const CLOCK_MARGIN: Duration = Duration::from_mins(1);
/// How long a pod that vanished without a word may still sign: its node can be cut off.
pub const VANISHED_GRACE: Duration = Duration::from_mins(10);
/// A pod both unreachable and not Ready for longer is no longer counted.
pub const LEFT_OUT_AFTER: Duration = Duration::from_mins(1);
/// An Active key signs at most for this many rotation periods, should the operator never come back.
pub const SIGN_UNTIL_PERIODS: u32 = 2;

/// What the chain asks for: its spec, its annotation and its `Revocation` objects. Read consistently and after the
/// `ConfigMap`: an older reading could undo what the newest bundle already says.
#[derive(Clone, Debug)]
pub struct Desired {
    pub chain: ChainId,
    pub policy: Policy,
    pub issuers: Vec<DesiredIssuer>,
    /// Unexpired ones, the most important first.
    pub revocations: Vec<Revocation>,
    /// Active keys older than this are replaced. It orders nothing before its time has come.
    pub rotate_keys_before: Option<NumericDate>,
}

#[derive(Clone, Debug)]
pub struct DesiredIssuer {
    pub name: String,
    pub iss: String,
    pub audiences: Vec<String>,
    pub token_types: Vec<String>,
    pub scopes_claim: String,
    pub max_token_lifetime: Option<Duration>,
    pub keys: KeySource,
}

#[derive(Clone, Debug)]
pub enum KeySource {
    Managed {
        algorithm: Algorithm,
        token_lifetime: Duration,
        rotation_period: Duration,
        /// How long a key is Staged at least before a rotation makes it Active; for readers outside the chain.
        publish_ahead: Duration,
    },
    External {
        /// The usable keys of the newest good answer that this leader had; none before the first.
        answer: Option<Vec<Jwk>>,
        withdrawn_key_grace: Duration,
    },
    Static {
        keys: Vec<Jwk>,
        withdrawn_key_grace: Duration,
    },
}

impl KeySource {
    const fn kind(&self) -> IssuerKind {
        match self {
            Self::Managed { .. } => IssuerKind::Managed,
            Self::External { .. } => IssuerKind::External,
            Self::Static { .. } => IssuerKind::Static,
        }
    }
}

/// A pod as a consistent LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own in a pod's status"
)]
pub struct ListedPod {
    pub pod: PodId,
    /// The managed issuer whose `ReplicaSet` controls this pod.
    pub issuer: Option<String>,
    /// It has an IP, or its knock brought an address.
    pub addressed: bool,
    /// Its verifier container runs.
    pub runs: bool,
    pub ready: bool,
    /// Its containers have terminated and will not start again.
    pub ended: bool,
}

/// An authentic answer (its MAC fits the key of the dialled pod's workload) and what was found out about it.
#[derive(Debug)]
pub struct Heard {
    pub answer: Answer,
    /// The offered keys, each with its proof checked ([`crate::Offer::verify`]).
    pub offers: Vec<Result<Jwk, OfferRefusal>>,
    /// The bundle that it claims to hold was read from it, and is not an authentic one of that generation.
    pub claim_refuted: bool,
}

impl Heard {
    /// Checks the offers in `answer`; `issuer` is the algorithm of the managed issuer that controls the pod.
    #[must_use]
    pub fn new(mut answer: Answer, issuer: Option<Algorithm>, nonce: &Nonce, chain: &ChainId) -> Self {
        let offers = std::mem::take(&mut answer.offers)
            .iter()
            .map(|offer| {
                let algorithm = issuer.ok_or(OfferRefusal::Proof)?;
                offer.verify(algorithm, nonce, chain, &answer.pod)
            })
            .collect();
        Self {
            answer,
            offers,
            claim_refuted: false,
        }
    }
}

/// What one round of questions brought.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The operator's clock.
    pub now: NumericDate,
    /// The operator's monotonic clock.
    pub elapsed: Duration,
    /// Who was asked.
    pub asked: &'a [PodId],
    pub answers: &'a [Heard],
    /// A consistent LIST begun after the `ConfigMap` was read: whoever is not in it starts with what was read, or is told
    /// by the answer to its knock that there is more.
    pub pods: &'a [ListedPod],
}

impl Round<'_> {
    fn answered(&self) -> HashSet<&PodId> {
        self.answers.iter().map(|heard| &heard.answer.pod).collect()
    }

    fn listed(&self, pod: &PodId) -> Option<&ListedPod> {
        self.pods.iter().find(|listed| listed.pod == *pod)
    }

    fn clocks(&self) -> impl Iterator<Item = NumericDate> {
        self.answers
            .iter()
            .map(|heard| heard.answer.now)
            .chain([self.now])
    }

    fn earliest_clock(&self) -> NumericDate {
        self.clocks().min().unwrap_or(self.now)
    }

    fn latest_clock(&self) -> NumericDate {
        self.clocks().max().unwrap_or(self.now)
    }
}

#[derive(Debug, Default)]
pub struct Decision {
    /// To be signed, written and pushed.
    pub next: Option<Bundle>,
    /// What people should hear of.
    pub events: Vec<Event>,
}

/// Decides about the next bundle, which is always made from what the `ConfigMap` holds. Nothing is decided before every
/// counted pod was heard since the `ConfigMap` was found to be other than this leader left it: one of them may hold a
/// newer bundle (line 11).
#[must_use]
pub fn decide(base: Option<Base<'_>>, desired: &Desired, memory: &Memory, round: &Round<'_>) -> Decision {
    if !memory.is_settled() {
        return Decision::default();
    }
    let generation = base
        .map_or(Generation::default(), |base| base.bundle.generation)
        .next();
    let mut draft = Draft {
        base,
        desired,
        memory,
        round,
        generation,
        events: Vec::new(),
    };
    let (revocations, left_out) =
        revocations::next(base.map(|base| base.bundle), desired, round.earliest_clock());
    if left_out > 0 {
        draft.events.push(Event::RevocationsLeftOut { count: left_out });
    }
    let issuers = desired
        .issuers
        .iter()
        .map(|issuer| draft.issuer(issuer, &revocations))
        .collect();
    draft.refuse_offers_of_others();
    let next = Bundle {
        v: VERSION,
        chain: desired.chain.clone(),
        generation,
        issued_at: round.now,
        policy: desired.policy.clone(),
        issuers,
        revocations,
        crit: Vec::new(),
    };
    let changed = base.is_none_or(|base| base.forked || !says_the_same(base.bundle, &next));
    Decision {
        next: changed.then_some(next),
        events: draft.events,
    }
}

/// All that one decision looks at.
struct Draft<'a> {
    base: Option<Base<'a>>,
    desired: &'a Desired,
    memory: &'a Memory,
    round: &'a Round<'a>,
    /// Of the bundle being made.
    generation: Generation,
    events: Vec<Event>,
}

impl Draft<'_> {
    fn issuer(&mut self, issuer: &DesiredIssuer, revocations: &[Revocation]) -> Issuer {
        let before = self.keys_before(issuer);
        let keys = self.next_keys(issuer, before, revocations);
        Issuer {
            name: issuer.name.clone(),
            iss: issuer.iss.clone(),
            kind: issuer.keys.kind(),
            audiences: issuer.audiences.clone(),
            token_types: issuer.token_types.clone(),
            scopes_claim: issuer.scopes_claim.clone(),
            max_token_lifetime: issuer.max_token_lifetime,
            state: if keys.is_empty() {
                IssuerState::NoKeys
            } else {
                IssuerState::Ready
            },
            keys,
        }
    }

    /// Keys belong to (name, iss, kind): whoever changes one of them speaks of another issuer.
    fn keys_before(&self, issuer: &DesiredIssuer) -> Vec<IssuerKey> {
        self.base
            .iter()
            .flat_map(|base| &base.bundle.issuers)
            .find(|known| {
                known.name == issuer.name && known.iss == issuer.iss && known.kind == issuer.keys.kind()
            })
            .map(|known| known.keys.clone())
            .unwrap_or_default()
    }

    fn next_keys(
        &mut self,
        issuer: &DesiredIssuer,
        before: Vec<IssuerKey>,
        revocations: &[Revocation],
    ) -> Vec<IssuerKey> {
        let is_revoked = |jwk: &Jwk| revocations::names_key(revocations, &issuer.name, jwk);
        let unrevoked = before
            .into_iter()
            .filter(|key| {
                let revoked = is_revoked(&key.jwk);
                if revoked {
                    self.events.push(Event::key(issuer, &key.jwk, "revoked"));
                }
                !revoked
            })
            .collect();
        match &issuer.keys {
            KeySource::Managed {
                algorithm,
                token_lifetime,
                rotation_period,
                publish_ahead,
            } => {
                let spec = managed_keys::Spec {
                    issuer,
                    algorithm: *algorithm,
                    token_lifetime: *token_lifetime,
                    rotation_period: *rotation_period,
                    publish_ahead: *publish_ahead,
                };
                managed_keys::next(self, &spec, unrevoked, is_revoked)
            }
            KeySource::External {
                answer,
                withdrawn_key_grace,
            } => published_keys::next(
                self,
                issuer,
                unrevoked,
                answer.as_deref(),
                *withdrawn_key_grace,
                is_revoked,
            ),
            KeySource::Static {
                keys,
                withdrawn_key_grace,
            } => published_keys::next(
                self,
                issuer,
                unrevoked,
                Some(keys),
                *withdrawn_key_grace,
                is_revoked,
            ),
        }
    }

    fn refuse_offers_of_others(&mut self) {
        let managed = |name: &String| {
            let mut issuers = self.desired.issuers.iter();
            issuers.any(|issuer| issuer.name == *name && issuer.keys.kind() == IssuerKind::Managed)
        };
        for heard in self.round.answers.iter().filter(|heard| !heard.offers.is_empty()) {
            let listed = self.round.listed(&heard.answer.pod);
            if listed.is_some_and(|pod| !pod.issuer.as_ref().is_some_and(managed)) {
                let pod = heard.answer.pod.clone();
                self.events.push(Event::OfferRefused {
                    pod,
                    reason: NotStaged::NotAnIssuerPod,
                });
            }
        }
    }

    /// How long a clock must be past a token's end before the token counts as expired everywhere.
    fn clock_slack(&self) -> Duration {
        let before = self
            .base
            .map_or(Duration::ZERO, |base| base.bundle.policy.clock_skew);
        self.desired.policy.clock_skew.max(before) + CLOCK_MARGIN
    }
}

fn says_the_same(before: &Bundle, next: &Bundle) -> bool {
    before.v == next.v
        && before.chain == next.chain
        && before.policy == next.policy
        && before.issuers == next.issuers
        && before.revocations == next.revocations
        && before.crit == next.crit
}
