//! What a round tells people: the chain's state, what happened to keys, and why nothing did. Told only where it is news.

use std::collections::BTreeMap;
use std::sync::Arc;

use servicechain_keys::rotation::{Base, Event, Heard, NotStaged, Round};
use servicechain_keys::{HeldBundle, OfferRefusal, PodId};

use super::incident::{self, Incident};
use super::place::PlaceError;
use super::publish::RoundError;
use super::state::{Falsehood, KeyState, Laggard, PodKeys, entries};
use super::step::{Asked, Leader};
use super::{Pod, chain_of};

impl Leader {
    /// Says what has not just been said: who offers a refused key offers it in every round.
    pub(super) fn tell(&mut self, events: Vec<Event>, pods: &[Pod]) {
        for event in events.iter().filter(|event| !self.told.contains(event)) {
            let says = says(event, pods);
            tracing::info!(chain = %self.roots.chain, "{says}");
            if let Some((chain, news)) = &self.audience {
                news.tell(chain, event, says);
            }
            if let (Some(metrics), Event::OfferRefused { reason, .. }) = (&self.metrics, event) {
                metrics.refused("offer", offer_word(reason));
            }
        }
        self.told = events;
    }

    pub(super) fn tell_of_incidents(&self, incidents: &[Incident]) {
        for incident in incidents {
            if incident.is_warning() {
                tracing::warn!(chain = %self.roots.chain, "{incident}");
            } else {
                tracing::info!(chain = %self.roots.chain, "{incident}");
            }
            if let Some((chain, news)) = &self.audience {
                news.tell_of_incident(chain, incident);
            }
            if let (Some(metrics), Some((what, reason))) = (&self.metrics, incident.refusal()) {
                metrics.refused(what, reason);
            }
        }
    }

    pub(super) fn show(
        &mut self,
        newest: Option<&Arc<HeldBundle>>,
        pods: &[Pod],
        round: &Round<'_>,
        asked: &Asked,
        was_written: bool,
    ) -> bool {
        let state = self.state_of(newest.map(Arc::as_ref), pods, round, asked, was_written);
        self.tell_of_incidents(&incident::at_pods(&self.state.borrow().pods, &state.pods));
        let in_sync = state.in_sync;
        self.publish(state);
        let fetches = self.place.fetches();
        if let Some(metrics) = &mut self.metrics {
            metrics.show(&self.state.borrow(), fetches, was_written);
        }
        in_sync
    }

    fn state_of(
        &mut self,
        newest: Option<&HeldBundle>,
        pods: &[Pod],
        round: &Round<'_>,
        asked: &Asked,
        was_written: bool,
    ) -> KeyState {
        let before = Arc::clone(&self.state.borrow());
        // There may be thousands of each.
        let before: BTreeMap<&PodId, &PodKeys> =
            before.pods.iter().map(|known| (&known.pod, known)).collect();
        let known_of = |pod: &PodId| before.get(pod).copied();
        let answers = round.answers.iter().map(|heard| (&heard.answer.pod, heard));
        let answers: BTreeMap<&PodId, &Heard> = answers.collect();
        let names: BTreeMap<&PodId, &Pod> = pods.iter().map(|pod| (&pod.listed.pod, pod)).collect();
        let falsehood_of = |pod: &PodId| match answers.get(pod) {
            Some(heard) => heard.claim_refuted.then_some(Falsehood::Claim),
            None if asked.not_believed.contains(pod) => Some(Falsehood::NotAuthentic),
            None => known_of(pod).and_then(|known| known.falsehood),
        };
        let known = self.evidence.lock();
        let standing = known
            .memory
            .standing(newest.map(Base::from), round.pods, round.elapsed);
        let is_settled = known.memory.is_settled() && newest.is_some();
        let counts = |pod: &Pod| known.memory.counts(&pod.listed, round.elapsed);
        let mut lags = BTreeMap::new();
        let mut laggards = Vec::new();
        for lag in &standing.laggards {
            let before = self
                .lags
                .get(&lag.pod)
                .filter(|(reason, _)| *reason == lag.reason);
            let since = before.map_or(round.now, |(_, since)| *since);
            lags.insert(lag.pod.clone(), (lag.reason, since));
            let pod = names.get(&lag.pod);
            laggards.push(Laggard {
                name: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
                pod: lag.pod.clone(),
                generation: lag.generation,
                reason: lag.reason,
                falsehood: falsehood_of(&lag.pod),
                since,
            });
        }
        let lagging: BTreeMap<&PodId, &Laggard> = laggards.iter().map(|lag| (&lag.pod, lag)).collect();
        let of_pod = |pod: &Pod| {
            let id = &pod.listed.pod;
            let answer = answers.get(id).map(|heard| &heard.answer);
            let lag = lagging.get(id);
            let known = known_of(id);
            let clock_known = known.and_then(|known| known.clock_offset);
            let is_counted = counts(pod);
            PodKeys {
                name: pod.name.clone(),
                pod: id.clone(),
                workload: pod.workload.clone(),
                is_counted,
                acknowledged: is_counted && lag.is_none(),
                generation: answer
                    .and_then(|answer| answer.held)
                    .map(|held| held.generation)
                    .or_else(|| lag.and_then(|lag| lag.generation)),
                refusal: answer.and_then(|answer| answer.reason),
                refused: match answer {
                    Some(answer) => answer.refused.clone(),
                    None => known.map(|known| known.refused.clone()).unwrap_or_default(),
                },
                falsehood: falsehood_of(id),
                unconfirmed: match answer {
                    Some(answer) => answer.unconfirmed,
                    None => known.is_some_and(|known| known.unconfirmed),
                },
                clock_offset: match asked.clocks.get(id) {
                    Some(measured) => Some(measured.shown(clock_known)),
                    None => clock_known,
                },
                anchors: match answer {
                    Some(answer) => answer.anchors.clone(),
                    None => known.map(|known| known.anchors.clone()).unwrap_or_default(),
                },
            }
        };
        let pods = pods.iter().map(of_pod).collect();
        self.lags = lags;
        KeyState {
            newest: newest.map(|bundle| (bundle.generation(), bundle.digest())),
            signed_by: newest.map(|bundle| bundle.signed_by().to_owned()),
            acknowledged: standing.acknowledged,
            verifiers: standing.verifiers,
            laggards,
            entries: newest.map(entries).unwrap_or_default(),
            pods,
            issuers: self.issuers.clone(),
            is_settled,
            in_sync: is_settled && !was_written && standing.acknowledged == standing.verifiers,
            problem: None,
        }
    }

    /// The round brought nothing: what was known stays, and people are told why.
    pub(super) fn fail(&self, error: &RoundError) {
        let mut state = KeyState::clone(&self.state.borrow());
        state.problem = Some(match error {
            RoundError::Place(PlaceError::Api(api)) if api.code().is_some() => {
                format!("{api}: {}", api.message())
            }
            error => chain_of(error),
        });
        self.publish(state);
    }

    fn publish(&self, state: KeyState) {
        let is_news = self.state.send_if_modified(|shown| {
            let is_news = **shown != state;
            *shown = Arc::new(state);
            is_news
        });
        if let (true, Some((chain, news))) = (is_news, &self.audience) {
            news.change(chain);
        }
    }
}

/// In a word, for a label.
const fn offer_word(reason: &NotStaged) -> &'static str {
    match reason {
        NotStaged::NotAnIssuerPod => "not-an-issuer-pod",
        NotStaged::Refused(OfferRefusal::Key(_)) => "bad-key",
        NotStaged::Refused(OfferRefusal::Kid) => "foreign-kid",
        NotStaged::Refused(OfferRefusal::Proof) => "proof",
        NotStaged::AnotherPods => "another-pods",
        NotStaged::Revoked => "revoked",
        NotStaged::Stopped => "stopped",
        NotStaged::TooManyOfPod | NotStaged::TooManyOfIssuer => "too-many",
    }
}

/// People know pods by their names.
fn says(event: &Event, pods: &[Pod]) -> String {
    let Event::OfferRefused { pod, reason } = event else {
        return event.to_string();
    };
    let known = pods.iter().find(|known| known.listed.pod == *pod);
    let name = known.map_or(pod.as_str(), |known| &known.name);
    format!("a key offered by pod {name} is refused: {}", chain_of(reason))
}
