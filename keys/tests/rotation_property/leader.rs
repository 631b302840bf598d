//! A leader's round in single steps, between any two of which it can sleep, die, or find that another wrote. The order is
//! that of `keys::rotation`; the decisions are that code's own.

use std::sync::Arc;
use std::time::Duration;

use servicechain_keys::rotation::{Decision, Desired, Heard, ListedPod, Memory, Round, decide, newest};
use servicechain_keys::{Bundle, Generation, PodId};

use super::flaw::Flaw;
use super::pod::{Dies, Pod, Word};
use super::signed::{KeyPool, Signed};
use super::world::{InFlight, World, date};

#[derive(Debug, Default)]
pub(crate) struct Leader {
    pub(crate) memory: Memory,
    pub(crate) clock_offset: i64,
    /// The newest generation that it knew when it last decided.
    pub(crate) newest: Generation,
    pub(crate) phase: Phase,
    /// For so many steps of the world it does nothing, and then goes on where it was.
    pub(crate) asleep: usize,
    /// The LIST of the round before, for a leader that lists from a cache.
    pub(crate) cached_list: Vec<ListedPod>,
}

#[derive(Debug, Default)]
pub(crate) enum Phase {
    #[default]
    ReadConfigMap,
    ReadDesired(Read),
    List(Read, Desired),
    Ask(Asking),
    Decide(Asking),
    Replace(Asking, Arc<Signed>),
}

/// The `ConfigMap` as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    version: u64,
    config_map: Option<Arc<Signed>>,
}

#[derive(Debug)]
pub(crate) struct Asking {
    read: Read,
    desired: Desired,
    pods: Vec<ListedPod>,
    /// Pod and address, as the LIST showed them.
    to_ask: Vec<(usize, usize)>,
    asked: Vec<PodId>,
    answers: Vec<Heard>,
    at_pods: Vec<Arc<Signed>>,
    /// Of the clocks that this round heard or should have heard, once it has decided.
    earliest_clock: Option<u64>,
}

impl World {
    pub(crate) fn leader_step(&mut self, number: usize) {
        let phase = std::mem::take(&mut self.leaders[number].phase);
        let next = match phase {
            Phase::ReadConfigMap => {
                let read = Read {
                    version: self.etcd.version,
                    config_map: self.etcd.config_map.clone(),
                };
                let version = read.config_map.is_some().then(|| read.version.to_string());
                self.leaders[number].memory.read(version.as_deref());
                Phase::ReadDesired(read)
            }
            Phase::ReadDesired(read) => {
                let desired = self.desired_as_read();
                Phase::List(read, desired)
            }
            Phase::List(read, desired) => {
                let to_ask = self
                    .pods
                    .iter()
                    .filter(|pod| pod.is_listed() && pod.life != super::pod::Life::Ended);
                let mut to_ask: Vec<_> = to_ask.map(|pod| (pod.number, pod.address)).collect();
                let turn = self.random.below(to_ask.len().max(1));
                to_ask.rotate_left(turn);
                let mut pods = self.list();
                if self.flaw == Flaw::StaleList {
                    std::mem::swap(&mut pods, &mut self.leaders[number].cached_list);
                }
                let (asked, answers, at_pods) = (Vec::new(), Vec::new(), Vec::new());
                Phase::Ask(Asking {
                    read,
                    desired,
                    pods,
                    to_ask,
                    asked,
                    answers,
                    at_pods,
                    earliest_clock: None,
                })
            }
            Phase::Ask(mut asking) => match asking.to_ask.pop() {
                Some((pod, address)) => {
                    self.ask(number, pod, address, &mut asking);
                    Phase::Ask(asking)
                }
                None => Phase::Decide(asking),
            },
            Phase::Decide(asking) => self.decide(number, asking),
            Phase::Replace(asking, next) => {
                self.replace(number, &asking, &next);
                Phase::ReadConfigMap
            }
        };
        self.leaders[number].phase = next;
    }

    fn decide(&mut self, number: usize, mut asking: Asking) -> Phase {
        let pods = asking.pods.as_slice();
        let leader = &mut self.leaders[number];
        let at_pods = asking.at_pods.iter().map(|signed| signed.base());
        let base = newest(
            asking.read.config_map.as_ref().map(|signed| signed.base()),
            at_pods,
        );
        let round = Round {
            now: date(self.time.saturating_add_signed(leader.clock_offset)),
            elapsed: Duration::from_secs(self.time),
            asked: &asking.asked,
            answers: &asking.answers,
            pods,
        };
        leader.memory.note(base, &round);
        let settled = leader.memory.is_settled();
        leader.newest = base.map_or(Generation::default(), |base| base.bundle.generation);
        let clocks = asking
            .answers
            .iter()
            .map(|heard| heard.answer.now)
            .chain([round.now]);
        let earliest_clock = clocks.min().expect("the leader's own").as_seconds();
        let Decision { next, .. } = decide(base, &asking.desired, &leader.memory, &round);
        if let Some(base) = base.filter(|_| next.is_none()) {
            let everyone = leader
                .memory
                .everyone_has(base.bundle.generation, pods, round.elapsed);
            if everyone {
                self.note_enforced(&base.bundle.clone(), pods);
            }
        }
        self.trace(|| {
            let answers = asking.answers.iter().map(|heard| {
                let held = heard.answer.held.map(|held| held.generation.number());
                format!("{} {held:?} {}", heard.answer.pod, heard.answer.durable)
            });
            let answers = answers.collect::<Vec<_>>().join(", ");
            format!(
                "leader {number} asked {:?}, heard {answers}; settled {settled}",
                asking.asked.len()
            )
        });
        if let Some(next) = next {
            self.trace(|| format!("leader {number} decides {}", describe(&next)));
            let signed = self.signer.sign(next);
            let heard = |pod: &&Pod| asking.answers.iter().any(|heard| heard.answer.pod == pod.id);
            let unheard = self.counted(&asking.pods).filter(|pod| !heard(pod));
            let unheard = unheard.map(|pod| pod.clock(self.time)).min();
            asking.earliest_clock =
                Some(unheard.map_or(earliest_clock, |unheard| unheard.min(earliest_clock)));
            if self.flaw == Flaw::PushedBeforeReplace {
                self.push_to_all(&signed);
            }
            return Phase::Replace(asking, signed);
        }
        let adopted = base.filter(|base| !base.in_config_map).and_then(|base| {
            asking
                .at_pods
                .iter()
                .find(|signed| signed.digest == base.digest)
                .map(Arc::clone)
        });
        match adopted {
            Some(adopted) => {
                self.trace(|| format!("leader {number} mends with {}", adopted.generation()));
                Phase::Replace(asking, adopted)
            }
            None => Phase::ReadConfigMap,
        }
    }

    fn replace(&mut self, number: usize, asking: &Asking, next: &Arc<Signed>) {
        let fits = match (&asking.read.config_map, &self.etcd.config_map) {
            // Creating knows no version. That a leader does not sleep from before the very first bundle until that was
            // deleted is an assumption (ADR 3).
            (None, None) => {
                let known = self.contents.get(&next.generation().number());
                known.is_none_or(|digest| *digest == next.digest)
                    || self
                        .first_version
                        .is_some_and(|first| asking.read.version >= first)
            }
            (Some(_), Some(_)) => asking.read.version == self.etcd.version,
            _ => false,
        };
        if !fits && self.flaw != Flaw::WrittenWithoutVersion {
            self.trace(|| format!("leader {number}: conflict"));
            return;
        }
        // One that fails for another reason changes nothing.
        if self.random.percent(3) && !self.calm {
            return;
        }
        self.etcd.version += 1;
        self.etcd.config_map = Some(Arc::clone(next));
        self.first_version.get_or_insert(self.etcd.version);
        let version = self.etcd.version;
        self.trace(|| {
            format!(
                "leader {number} writes {} as version {version}",
                next.generation()
            )
        });
        let before = asking.read.config_map.as_ref().map(|signed| &signed.bundle);
        if let Some(earliest_clock) = asking.earliest_clock {
            self.check_removals(before, &next.bundle, earliest_clock);
            self.check_activations(before, &next.bundle, &asking.pods);
        }
        self.note_written(next);
        // The answer to a REPLACE can be lost: the leader then finds a version that it does not know as its own.
        if !self.random.percent(4) || self.calm {
            let version = self.etcd.version.to_string();
            self.leaders[number].memory.wrote(&version);
        }
    }

    fn ask(&mut self, leader: usize, number: usize, address: usize, asking: &mut Asking) {
        let dialled = self.pods[number].id.clone();
        asking.asked.push(dialled);
        let config_map = asking.read.config_map.clone();
        let push = config_map.filter(|signed| {
            self.leaders[leader]
                .memory
                .lacks(&self.pods[number].id, signed.base())
                || self.random.percent(10)
        });
        if self.random.percent(1) && !self.calm {
            let forged = self.forged_answer(number, asking.read.config_map.as_deref());
            asking.answers.extend(forged);
            return;
        }
        let Some(there) = self.pod_at(address) else { return };
        // Loss that lasts is what `reachable` is for; without it, single messages of Ready pods get lost.
        let lossy = self.pods[there].api_ready && !self.calm;
        if lossy && self.random.percent(3) {
            return;
        }
        if lossy && self.random.percent(3) {
            if let Some(bundle) = push {
                let expires = self.time + 5;
                self.in_flight.push(InFlight {
                    address,
                    pod: number,
                    bundle,
                    expires,
                });
            }
            return;
        }
        if there != number {
            // Meant for another pod: refused as wrong-pod, and its MAC would not fit either.
            return;
        }
        let Some(word) = self.deliver(number, push.as_ref()) else {
            return;
        };
        if lossy && self.random.percent(3) {
            return;
        }
        if let Some(held) = word.held.clone() {
            let known = asking.read.config_map.as_ref();
            let beyond = known.is_none_or(|known| {
                held.generation() > known.generation()
                    || held.generation() == known.generation() && held.digest != known.digest
            });
            let read = !lossy || !self.random.percent(3);
            if beyond
                && read
                && self.flaw != Flaw::NothingAdopted
                && !asking.at_pods.iter().any(|other| other.digest == held.digest)
            {
                asking.at_pods.push(held);
            }
        }
        let heard = self.answer(number, &word, push.as_ref());
        asking.answers.extend(heard);
    }

    /// A push or a poll arrives at the pod that it is meant for; none where the container dies before it answers.
    pub(crate) fn deliver(&mut self, number: usize, push: Option<&Arc<Signed>>) -> Option<Word> {
        let dies = if self.calm {
            Dies::Not
        } else {
            Pod::random_death(&mut self.random)
        };
        let (time, flaw) = (self.time, self.flaw);
        let pod = &mut self.pods[number];
        pod.expire_confirmation(time);
        pod.last_asked = time;
        let before = pod.held_generation();
        let word = match push {
            Some(bundle) => pod.take(bundle, &self.signer, flaw, dies),
            None => Word {
                held: pod.held.clone(),
                refusal: None,
                unchanged: true,
                durable: pod.disk.as_ref().map(|disk| disk.digest)
                    == pod.held.as_ref().map(|held| held.digest),
            },
        };
        self.note_held(number, before);
        self.judge_streams(number);
        if push.is_some() && dies != Dies::Not {
            self.restart_container(number);
            return None;
        }
        let pod = &mut self.pods[number];
        if word.durable {
            pod.acknowledged = pod.acknowledged.max(pod.held_generation());
        }
        Some(word)
    }
}

fn describe(bundle: &Bundle) -> String {
    let keys = bundle.issuers.iter().flat_map(|issuer| &issuer.keys).map(|key| {
        let place = key
            .jwk
            .kid()
            .and_then(|kid| KeyPool::get().index(kid))
            .unwrap_or(usize::MAX);
        format!(
            "k{place} {:?} since {} in {} of {}",
            key.state,
            key.since.as_seconds().saturating_sub(1_000_000),
            key.staged_in,
            key.owner.as_ref().map_or("-", PodId::as_str)
        )
    });
    format!(
        "{}: [{}], {} revocations",
        bundle.generation,
        keys.collect::<Vec<_>>().join(", "),
        bundle.revocations.len()
    )
}
