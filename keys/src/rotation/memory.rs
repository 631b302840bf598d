//! What a leader remembers between rounds: what pods have proved to hold, since when one is silent, when one stopped.
//! All of it can be lost at any time and is then asked again, which delays and never contradicts.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::{Base, Heard, LEFT_OUT_AFTER, ListedPod, Round, VANISHED_GRACE};
use crate::BundleRefusal;
use crate::acknowledgement::Held;
use crate::bundle::{Generation, IssuerKey};
use crate::identity::PodId;
use crate::numeric_date::NumericDate;

/// Two rounds further apart say nothing about the time between them: the leader slept.
const LONGEST_PAUSE: Duration = Duration::from_secs(40);

#[derive(Debug, Default)]
pub struct Memory {
    /// The `resourceVersion` of the `ConfigMap` as this leader read or left it.
    version: Option<String>,
    settled: bool,
    pods: BTreeMap<PodId, Known>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// It answered since the `ConfigMap` was last found changed by somebody else.
    heard: bool,
    /// The highest generation that it durably held when its digest was that of the base.
    pub(super) proved: Option<Generation>,
    pub(super) held: Option<Held>,
    pub(super) durable: bool,
    pub(super) refusal: Option<BundleRefusal>,
    /// The first of its unanswered questions.
    pub(super) silent_since: Option<Duration>,
    doubt: Option<Doubt>,
    /// Its clock, and when it was heard.
    clock: Option<(NumericDate, Duration)>,
    stopped: BTreeMap<String, NumericDate>,
    gone: Option<Gone>,
}

/// Silent and not Ready at once, in every round of this time.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Duration,
    last: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    since: Duration,
    /// The latest clock at that time.
    clock: NumericDate,
    /// Seen to end, rather than no longer seen.
    ended: bool,
}

impl Memory {
    /// The `ConfigMap` was read. Unless it is as this leader left it, every pod must be heard before the next bundle; one
    /// that is absent may have been anything since.
    pub fn read(&mut self, version: Option<&str>) {
        if version.is_none() || self.version.as_deref() != version {
            self.version = version.map(str::to_owned);
            self.unsettle();
        }
    }

    /// The `ConfigMap` was replaced by this leader.
    pub fn wrote(&mut self, version: &str) {
        self.version = Some(version.to_owned());
    }

    /// Takes in what a round brought, before it is decided on.
    pub fn note(&mut self, base: Option<Base<'_>>, round: &Round<'_>) {
        for heard in round.answers {
            self.pods
                .entry(heard.answer.pod.clone())
                .or_default()
                .note_answer(heard, base, round.elapsed);
        }
        // Looked up, not searched: ten thousand pods are asked at once.
        let (asked, answered) = (round.asked.iter().collect::<HashSet<_>>(), round.answered());
        for listed in round.pods {
            let known = self.pods.entry(listed.pod.clone()).or_default();
            known.note_silence(
                asked.contains(&listed.pod),
                answered.contains(&listed.pod),
                listed,
                round.elapsed,
            );
        }
        let owners = || {
            let issuers = base.into_iter().flat_map(|base| &base.bundle.issuers);
            issuers
                .flat_map(|issuer| &issuer.keys)
                .filter_map(|key| key.owner.as_ref())
        };
        for owner in owners() {
            let listed = round.listed(owner);
            let known = self.pods.entry(owner.clone()).or_default();
            known.note_presence(listed, round);
        }
        let remain: HashSet<&PodId> = round
            .pods
            .iter()
            .map(|listed| &listed.pod)
            .chain(owners())
            .collect();
        self.pods.retain(|pod, _| remain.contains(pod));
        self.settled = self.settled
            || self
                .may_hold(round.pods, round.elapsed)
                .all(|listed| self.pods.get(&listed.pod).is_some_and(|known| known.heard));
        // What only pods hold is known for this round alone: the next may not hear them.
        if base.is_some_and(|base| !base.in_config_map) {
            self.unsettle();
        }
    }

    /// The `ConfigMap` holds the newest bundle: every pod that may hold another was heard since somebody else changed it.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether a knock may be answered with the generation in the `ConfigMap`, which was read after the knock in this
    /// version: it is as the last round left it.
    #[must_use]
    pub fn is_settled_at(&self, version: &str) -> bool {
        self.settled && self.version.as_deref() == Some(version)
    }

    /// By order, for a chain whose every bundle is signed by a key that is gone: nothing that a pod holds counts, and
    /// nobody is waited for. Pods that are not believed any more could not be heard.
    pub fn begin_anew(&mut self) {
        self.settled = true;
    }

    fn unsettle(&mut self) {
        self.settled = false;
        self.pods.values_mut().for_each(|known| known.heard = false);
    }

    /// Have (line 21): every counted pod of the LIST has proved to hold the bundle of `generation`, or one made from it.
    /// Never true in a round whose base was not in the `ConfigMap`: its LIST may be older than that bundle.
    #[must_use]
    pub fn everyone_has(&self, generation: Generation, pods: &[ListedPod], elapsed: Duration) -> bool {
        self.settled
            && self
                .counted(pods, elapsed)
                .all(|listed| self.proved(&listed.pod) >= Some(generation))
    }

    /// Whether the pod must be sent `base`, rather than merely asked.
    #[must_use]
    pub fn lacks(&self, pod: &PodId, base: Base<'_>) -> bool {
        self.pods
            .get(pod)
            .is_none_or(|known| known.held != Some(base.held()) || !known.durable)
    }

    /// Whether a key waits for this pod. Only such a pod's knock may be answered: any other could be confirmed, and left
    /// out of Have all the same.
    #[must_use]
    pub fn counts(&self, pod: &ListedPod, elapsed: Duration) -> bool {
        self.counted(std::slice::from_ref(pod), elapsed).next().is_some()
    }

    /// The pods that a key waits for.
    pub(super) fn counted<'a>(
        &self,
        pods: &'a [ListedPod],
        elapsed: Duration,
    ) -> impl Iterator<Item = &'a ListedPod> {
        self.may_hold(pods, elapsed).filter(|listed| listed.runs)
    }

    /// The pods that may hold a bundle: a container that starts again finds on its disk what it held before.
    fn may_hold<'a>(&self, pods: &'a [ListedPod], elapsed: Duration) -> impl Iterator<Item = &'a ListedPod> {
        pods.iter().filter(move |listed| {
            let in_doubt = self.pods.get(&listed.pod).and_then(|known| known.doubt);
            let left_out = in_doubt.is_some_and(|doubt| elapsed > doubt.since + LEFT_OUT_AFTER);
            listed.addressed && !listed.ended && !left_out
        })
    }

    pub(super) fn known(&self, pod: &PodId) -> Option<&Known> {
        self.pods.get(pod)
    }

    fn proved(&self, pod: &PodId) -> Option<Generation> {
        self.pods.get(pod).and_then(|known| known.proved)
    }

    /// The owner signs with this key no more, or is no more.
    pub(super) fn has_stopped(&self, owner: &PodId, kid: &str) -> bool {
        self.pods
            .get(owner)
            .is_some_and(|known| known.gone.is_some() || known.stopped.contains_key(kid))
    }

    /// Line 22. Every counted pod's clock must have been heard in this round: an unheard one may be late. Where no pod is
    /// counted, the operator's clock would stand alone, and nothing needs to be removed.
    pub(super) fn is_expired_everywhere(&self, key: &IssuerKey, slack: Duration, round: &Round<'_>) -> bool {
        let mut counted = self.counted(round.pods, round.elapsed).peekable();
        let answered = round.answered();
        let all_heard = counted.peek().is_some() && counted.all(|listed| answered.contains(&listed.pod));
        let (Some(owner), Some(kid)) = (&key.owner, key.jwk.kid()) else {
            return false;
        };
        let Some(known) = self.pods.get(owner).filter(|_| all_heard) else {
            return false;
        };
        if let Some(last_expiry) = known.stopped.get(kid) {
            return round.earliest_clock() > last_expiry.plus(slack);
        }
        known.gone.is_some_and(|gone| {
            let grace = if gone.ended {
                Duration::ZERO
            } else {
                VANISHED_GRACE
            };
            let wait = grace + key.max_lifetime + slack;
            round.elapsed > gone.since + wait && round.earliest_clock() > gone.clock.plus(wait)
        })
    }
}

impl Known {
    fn note_answer(&mut self, heard: &Heard, base: Option<Base<'_>>, elapsed: Duration) {
        let answer = &heard.answer;
        self.clock = Some((answer.now, elapsed));
        self.held = answer.held;
        self.durable = answer.durable;
        self.refusal = answer.reason;
        let base = base.map(|base| base.held());
        let beyond = answer.held.map(|held| held.generation) > base.map(|base| base.generation);
        if !beyond || heard.claim_refuted {
            self.heard = true;
        }
        if answer.durable && answer.held.is_some() && answer.held == base {
            self.proved = self.proved.max(base.map(|base| base.generation));
        }
        for (kid, last_expiry) in &answer.stopped {
            let latest = self.stopped.entry(kid.clone()).or_insert(*last_expiry);
            *latest = (*latest).max(*last_expiry);
        }
    }

    fn note_silence(&mut self, asked: bool, answered: bool, listed: &ListedPod, elapsed: Duration) {
        if answered || !asked {
            self.silent_since = self.silent_since.filter(|_| !answered);
        } else {
            self.silent_since.get_or_insert(elapsed);
        }
        // Without an address it could not be asked: it may have been created long ago and start only now.
        self.doubt = (asked && !answered && listed.addressed && !listed.ready).then(|| {
            let unbroken = self.doubt.filter(|doubt| elapsed <= doubt.last + LONGEST_PAUSE);
            Doubt {
                since: unbroken.map_or(elapsed, |doubt| doubt.since),
                last: elapsed,
            }
        });
    }

    fn note_presence(&mut self, listed: Option<&ListedPod>, round: &Round<'_>) {
        let ended = listed.is_some_and(|listed| listed.ended);
        if listed.is_some() && !ended {
            self.gone = None;
            return;
        }
        let gone = self.gone.get_or_insert(Gone {
            since: round.elapsed,
            clock: NumericDate::default(),
            ended,
        });
        let clock_then = round
            .latest_clock()
            .minus(round.elapsed.saturating_sub(gone.since));
        gone.clock = gone.clock.max(clock_then);
    }
}
