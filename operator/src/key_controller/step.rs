//! One round, in the order that `keys::rotation` asks for: read, list, ask everybody, decide, write. What it finds
//! out and may forget is in its `Evidence`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use kube::runtime::reflector::ObjectRef;
use servicechain_crds::ServiceChain;
use servicechain_keys::rotation::{
    Base, Decision, Desired, Event, Heard, KeySource, LaggardReason, ListedPod, Round, decide, newest,
};
use servicechain_keys::{
    Algorithm, Bundle, BundleRefusal, Held, HeldBundle, NumericDate, Outcome, PodId, TrustKey,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::clock_offset::ClockOffset;
use super::evidence::Evidence;
use super::incident;
use super::news::News;
use super::place::{Claim, Place, PlaceError, Stored, Wish};
use super::publish::{RoundError, publish, resigned};
use super::push::{Messenger, ReadBundle, Unheard};
use super::roots::Roots;
use super::state::{IssuerStanding, KeyState};
use super::{Pod, chain_of};
use crate::clock::Clock;
use crate::health::Pulse;
use crate::metrics::keys::ChainKeyMetrics;
use crate::trace;

/// Pods asked at a time.
const CONCURRENCY: usize = 32;

/// What a round leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Everyone holds the newest bundle, and there is nothing to decide.
    InSync,
    /// Somebody lags, or something waits for time to pass.
    Waiting,
    /// A bundle was written, or somebody else wrote one: the next round begins at once.
    Moved,
    /// The chain is gone, or on its way: nothing is written any more.
    Gone,
}

pub(super) struct Leader {
    pub roots: Roots,
    pub place: Place,
    pub clock: Clock,
    pub messenger: Arc<Messenger>,
    pub evidence: Arc<Evidence>,
    pub state: watch::Sender<Arc<KeyState>>,
    /// Who else wants to hear of the chain.
    pub audience: Option<(ObjectRef<ServiceChain>, Arc<News>)>,
    /// Since when a pod lags for the same reason.
    pub lags: BTreeMap<PodId, (LaggardReason, NumericDate)>,
    /// What the last round had to say: it is not said again.
    pub told: Vec<Event>,
    pub last_answers: usize,
    /// Beats with every round, and with every pod of it that was asked: a round of many pods that do not answer is long,
    /// and hangs nowhere.
    pub pulse: Option<Arc<Pulse>>,
    pub metrics: Option<ChainKeyMetrics>,
    /// How issuers stand that are not the chain's own.
    pub issuers: BTreeMap<String, IssuerStanding>,
}

/// What asking everybody brought.
#[derive(Default)]
pub(super) struct Asked {
    pods: Vec<PodId>,
    answers: Vec<Heard>,
    /// Newer bundles than the one read.
    at_pods: Vec<Arc<HeldBundle>>,
    /// Somebody answered in their name who is not they.
    pub not_believed: BTreeSet<PodId>,
    pub clocks: BTreeMap<PodId, ClockOffset>,
    /// A pod holds a bundle that is signed by none of the keys known here.
    by_another_key: bool,
}

/// What asking a pod brought.
struct Answered {
    heard: Heard,
    clock: ClockOffset,
    /// The newer bundle that it holds.
    newer: Option<Arc<HeldBundle>>,
    by_another_key: bool,
}

impl Leader {
    pub(super) async fn round(&mut self) -> Result<After, RoundError> {
        let stored = trace::step("read", self.place.read()).await?;
        let (config_map, not_ours) = self.take_in(stored.as_ref())?;
        // Read after the bundle, and each by itself: an older reading could undo what the bundle says.
        let asked_at = Instant::now();
        let (desired, revocations, is_paused) = match trace::step("read", self.place.wish()).await? {
            Wish::This {
                desired,
                issuers,
                revocations,
                is_paused,
            } => {
                self.hear_of(issuers);
                (Some(desired), revocations, is_paused)
            }
            Wish::Nothing => (None, Vec::new(), true),
            Wish::Gone => return Ok(After::Gone),
        };
        let pods = trace::step("list", self.place.pods()).await?;
        let ask = self.ask_everybody(&pods, config_map.as_deref(), desired.as_deref());
        let asked = trace::step("ask", ask).await;
        let listed: Vec<ListedPod> = pods.iter().map(|pod| pod.listed.clone()).collect();
        let base = newest(
            config_map.as_deref().map(Base::from),
            asked.at_pods.iter().map(|bundle| Base::from(bundle.as_ref())),
        );
        if base.is_none() && (not_ours == Some(BundleRefusal::Anchor) || asked.by_another_key) {
            self.begin_anew()?;
        }
        let round = Round {
            now: NumericDate::from((self.clock)()),
            elapsed: self.evidence.started.elapsed(),
            asked: &asked.pods,
            answers: &asked.answers,
            pods: &listed,
        };
        let (mut decision, is_decided) = {
            let memory = &mut self.evidence.lock().memory;
            memory.note(base, &round);
            let is_decided =
                desired.is_some() && memory.is_settled() && base.is_none_or(|base| base.in_config_map);
            let decision = desired.map_or_else(Decision::default, |desired| {
                decide(base, &desired, memory, &round)
            });
            (decision, is_decided)
        };
        let signer = self.signer(config_map.as_deref(), &round, is_paused);
        if decision.next.is_none() && self.may_publish(base) {
            decision.next = config_map
                .as_deref()
                .and_then(|held| resigned(held, &signer, &round));
        }
        let incidents = incident::at_store(stored.as_ref(), not_ours, config_map.as_deref(), base);
        let written = self
            .write(
                stored,
                config_map.as_ref(),
                base,
                &asked,
                decision.next.as_ref(),
                &signer,
            )
            .await;
        if matches!(written, Err(RoundError::Place(PlaceError::Conflict))) {
            return Ok(After::Moved);
        }
        let written = written?;
        if is_decided {
            self.evidence.decided.send_replace(Some(asked_at));
        }
        self.tell(decision.events, &pods);
        if let Some(written) = &written {
            self.tell_of_incidents(&incidents);
            let switched = incident::trust_key(config_map.as_deref(), written);
            self.tell_of_incidents(switched.as_slice());
        }
        let newest = written.as_ref().or(config_map.as_ref());
        let in_sync = self.show(newest, &pods, &round, &asked, written.is_some());
        // What was written just now nobody can hold yet, and the next round begins at once.
        let is_said = if written.is_none() {
            let keys = Arc::clone(&self.state.borrow());
            let newest = config_map.as_deref();
            let is_left_out = |event: &Event| matches!(event, Event::RevocationsLeftOut { .. });
            let is_full = self.told.iter().any(is_left_out);
            let say = self.place.say(&revocations, newest, is_full, &keys, round.now);
            trace::step("status", say).await
        } else {
            true
        };
        let more_answers = asked.answers.len() > self.last_answers;
        self.last_answers = asked.answers.len();
        Ok(match (in_sync && is_said, written.is_some() || more_answers) {
            (true, _) => After::InSync,
            (false, true) => After::Moved,
            (false, false) => After::Waiting,
        })
    }

    fn hear_of(&mut self, issuers: BTreeMap<String, IssuerStanding>) {
        if let Some((chain, news)) = &self.audience {
            news.tell_of_issuers(chain, &self.issuers, &issuers);
        }
        self.issuers = issuers;
    }

    /// What holds no authentic bundle counts for nothing, and is written over if it is ours: why it is none comes second.
    fn take_in(
        &self,
        stored: Option<&Stored>,
    ) -> Result<(Option<Arc<HeldBundle>>, Option<BundleRefusal>), RoundError> {
        let opened = stored.map(|stored| self.messenger.open(&stored.bytes));
        let unclaimed = stored.is_some_and(|stored| stored.claim == Claim::Unclaimed);
        let (bundle, not_ours) = match opened {
            Some(Ok(bundle)) => (Some(Arc::new(bundle)), None),
            Some(Err(_)) if unclaimed => {
                return Err(PlaceError::Unclaimed.into());
            }
            Some(Err(error)) => {
                tracing::error!(chain = %self.roots.chain, %error, "the stored bundle is not authentic");
                (None, Some(error))
            }
            None => (None, None),
        };
        let version = stored.map(|stored| stored.version.as_str());
        let mut known = self.evidence.lock();
        known.memory.read(version);
        known.stored = version.map(str::to_owned).zip(bundle.clone());
        Ok((bundle, not_ours))
    }

    /// What is written, if anything: a newer bundle that only pods hold, what was decided, or again what is there, in the
    /// place of what somebody else made of it.
    async fn write(
        &self,
        stored: Option<Stored>,
        config_map: Option<&Arc<HeldBundle>>,
        base: Option<Base<'_>>,
        asked: &Asked,
        next: Option<&Bundle>,
        signer: &TrustKey,
    ) -> Result<Option<Arc<HeldBundle>>, RoundError> {
        let is_changed = stored
            .as_ref()
            .is_some_and(|stored| stored.claim != Claim::Intact);
        let read = stored.map(|stored| stored.version);
        let read = read.as_deref();
        let (version, bundle) = if let Some(adopted) = base.filter(|base| !base.in_config_map) {
            let mut at_pods = asked.at_pods.iter();
            let Some(bundle) = at_pods.find(|bundle| bundle.digest() == adopted.digest) else {
                return Ok(None);
            };
            let version = self.place.replace(read, bundle.bytes()).await?;
            (version, Arc::clone(bundle))
        } else if let Some(next) = next {
            publish(&self.place, signer, read, next).await?
        } else if let Some(bundle) = config_map.filter(|_| is_changed) {
            let version = self.place.replace(read, bundle.bytes()).await?;
            (version, Arc::clone(bundle))
        } else {
            return Ok(None);
        };
        let mut known = self.evidence.lock();
        known.memory.wrote(&version);
        known.stored = Some((version, Arc::clone(&bundle)));
        Ok(Some(bundle))
    }

    pub(super) fn beat(&self) {
        if let Some(pulse) = &self.pulse {
            pulse.beat();
        }
    }

    async fn ask_everybody(
        &self,
        pods: &[Pod],
        config_map: Option<&HeldBundle>,
        desired: Option<&Desired>,
    ) -> Asked {
        let reachable = pods
            .iter()
            .filter(|pod| pod.keys_address.is_some() && !pod.listed.ended);
        let exchanges: Vec<_> = reachable
            .clone()
            .map(|pod| async {
                let answered = self.ask(pod, config_map, desired).await;
                (pod.listed.pod.clone(), answered)
            })
            .collect();
        let heard: Vec<_> = stream::iter(exchanges)
            .buffer_unordered(CONCURRENCY)
            .inspect(|_| self.beat())
            .collect()
            .await;
        let mut asked = Asked {
            pods: reachable.map(|pod| pod.listed.pod.clone()).collect(),
            ..Asked::default()
        };
        for (pod, answered) in heard {
            match answered {
                Ok(answered) => {
                    asked.clocks.insert(pod, answered.clock);
                    asked.answers.push(answered.heard);
                    asked.at_pods.extend(answered.newer);
                    asked.by_another_key |= answered.by_another_key;
                }
                Err(error) if error.is_not_believed() => {
                    asked.not_believed.insert(pod);
                }
                Err(_) => {}
            }
        }
        asked
    }

    async fn ask(
        &self,
        pod: &Pod,
        config_map: Option<&HeldBundle>,
        desired: Option<&Desired>,
    ) -> Result<Answered, Unheard> {
        let id = &pod.listed.pod;
        let push = config_map
            .filter(|bundle| self.evidence.lock().memory.lacks(id, Base::from(*bundle)))
            .map(|bundle| Bytes::copy_from_slice(bundle.bytes()));
        let algorithm = pod
            .listed
            .issuer
            .as_deref()
            .zip(desired)
            .and_then(|(issuer, desired)| algorithm_of(desired, issuer));
        let pushed = push.is_some();
        let name = if pushed { "push" } else { "poll" };
        let (clock, begun) = ((self.clock)(), Instant::now());
        let ask = self.messenger.ask(&self.roots, pod, push, algorithm);
        let heard = trace::question(name, ("servicechain.pod", &pod.name), ask).await;
        let heard = heard.inspect_err(
            |error| tracing::debug!(pod = pod.name, error = %chain_of(error), "a pod was not heard"),
        )?;
        let mut answered = Answered {
            clock: ClockOffset::measured(heard.answer.now, clock, begun.elapsed()),
            heard,
            newer: None,
            by_another_key: false,
        };
        let answer = &answered.heard.answer;
        let Some(held) = answer.held else {
            return Ok(answered);
        };
        let has_older = config_map.is_some_and(|known| held.generation < known.generation());
        if has_older || config_map.is_some_and(|known| held.digest == known.digest()) {
            // Whoever takes a bundle holds it.
            answered.heard.claim_refuted = has_older && pushed && answer.outcome != Outcome::Refused;
            return Ok(answered);
        }
        let read = self.messenger.read(pod);
        match trace::question("adopt", ("servicechain.pod", &pod.name), read).await {
            Ok(ReadBundle::Authentic(bundle)) => {
                let has_what_it_claims =
                    bundle.generation() > held.generation || Held::from(bundle.as_ref()) == held;
                answered.heard.claim_refuted = !has_what_it_claims;
                answered.newer = Some(bundle);
            }
            Ok(ReadBundle::Refuted(refusal)) => {
                tracing::warn!(pod = pod.name, %refusal, claimed = %held.generation, "a pod claims a bundle that is none");
                answered.heard.claim_refuted = true;
                answered.by_another_key = refusal == BundleRefusal::Anchor;
            }
            Err(error) => {
                tracing::debug!(pod = pod.name, error = %chain_of(&error), "a pod's newer bundle was not read");
            }
        }
        Ok(answered)
    }
}

fn algorithm_of(desired: &Desired, issuer: &str) -> Option<Algorithm> {
    desired
        .issuers
        .iter()
        .find(|known| known.name == issuer)
        .and_then(|known| match known.keys {
            KeySource::Managed { algorithm, .. } => Some(algorithm),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use servicechain_keys::{ChainId, RootSecret, TrustKey, Workload};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::super::external::{ExternalIssuers, FetchRules};
    use super::super::place::Local;
    use super::super::{BundleFile, TrustKeys, leader};
    use super::*;
    use crate::clock;
    use crate::health::Health;

    fn asked_of_nobody(folder: &std::path::Path) -> Leader {
        let chain = ChainId::new("chain-1").unwrap();
        let desired = Desired {
            chain: chain.clone(),
            policy: servicechain_keys::Policy {
                clock_skew: Duration::ZERO,
                max_token_bytes: 8192,
                max_token_lifetime: Duration::from_hours(24),
                required_claims: Vec::new(),
            },
            issuers: Vec::new(),
            revocations: Vec::new(),
            rotate_keys_before: None,
        };
        let roots = Roots {
            chain,
            trust_keys: TrustKeys::only(TrustKey::from_seed(&[1; 32]).unwrap()),
            secret: Arc::new(RootSecret::new([2; 32])),
        };
        let rules = FetchRules::unrestricted();
        let external = ExternalIssuers::new(rules, clock::system(), Arc::new(Notify::new()));
        let place = Place::Local(Local {
            store: BundleFile::new(folder.join("bundle.jws")),
            desired: watch::channel(desired).1,
            pods: watch::channel(Vec::new()).1,
            external: Arc::new(external),
        });
        leader(roots, place, clock::system())
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_of_very_many_pods_that_do_not_answer_is_not_taken_for_one_that_hangs() {
        // Accepts nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let pods: Vec<Pod> = (0..CONCURRENCY * 5)
            .map(|number| Pod {
                name: format!("pod-{number}"),
                listed: ListedPod {
                    pod: PodId::new(format!("pod-{number}")).unwrap(),
                    issuer: None,
                    addressed: true,
                    runs: true,
                    ready: true,
                    ended: false,
                },
                workload: Workload::new("a").unwrap(),
                keys_address: Some(address.clone()),
            })
            .collect();
        let health = Health::default();
        let folder = tempfile::tempdir().unwrap();
        let mut leader = asked_of_nobody(folder.path());
        leader.pulse = Some(Arc::new(health.expect("the keys", Duration::from_secs(5))));
        let begun = Instant::now();
        let asked = leader.ask_everybody(&pods, None, None).await;
        assert!(asked.answers.is_empty() && begun.elapsed() > Duration::from_secs(9));
        assert_eq!(health.stuck(), [""; 0]);
    }
}
