//! What a round tells people: the chain's state, what happened to keys, and why nothing did. Told only where it is news.

use std::collections::BTreeMap;
use std::sync::Arc;

use servicechain_keys::rotation::{Base, Event, Round};
use servicechain_keys::{HeldBundle, NumericDate, PodId};

use super::place::PlaceError;
use super::publish::RoundError;
use super::state::{KeyState, Laggard, PodKeys, entries};
use super::step::Leader;
use super::{Pod, chain_of};

impl Leader {
    /// Says what has not just been said: who offers a refused key offers it in every round.
    pub(super) fn tell(&mut self, events: Vec<Event>) {
        for event in events.iter().filter(|event| !self.told.contains(event)) {
            tracing::info!(chain = %self.roots.chain, "{event}");
            if let Some((chain, news)) = &self.audience {
                news.tell(chain, event);
            }
        }
        self.told = events;
    }

    pub(super) fn show(
        &mut self,
        newest: Option<&Arc<HeldBundle>>,
        pods: &[Pod],
        round: &Round<'_>,
        was_written: bool,
    ) -> bool {
        let state = self.state_of(newest.map(Arc::as_ref), pods, round, was_written);
        let in_sync = state.in_sync;
        self.publish(state);
        in_sync
    }

    fn state_of(
        &mut self,
        newest: Option<&HeldBundle>,
        pods: &[Pod],
        round: &Round<'_>,
        was_written: bool,
    ) -> KeyState {
        let known = self.evidence.lock();
        let standing = known
            .memory
            .standing(newest.map(Base::from), round.pods, round.elapsed);
        let is_settled = known.memory.is_settled() && newest.is_some();
        let counts = |pod: &Pod| known.memory.counts(&pod.listed, round.elapsed);
        let answer_of = |pod: &PodId| {
            let mut answers = round.answers.iter().map(|heard| &heard.answer);
            answers.find(|answer| answer.pod == *pod)
        };
        let mut lags = BTreeMap::new();
        let mut laggards = Vec::new();
        for lag in &standing.laggards {
            let before = self
                .lags
                .get(&lag.pod)
                .filter(|(reason, _)| *reason == lag.reason);
            let since = before.map_or(round.now, |(_, since)| *since);
            lags.insert(lag.pod.clone(), (lag.reason, since));
            let pod = pods.iter().find(|pod| pod.listed.pod == lag.pod);
            laggards.push(Laggard {
                name: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
                pod: lag.pod.clone(),
                generation: lag.generation,
                reason: lag.reason,
                since,
            });
        }
        let of_pod = |pod: &Pod| {
            let id = &pod.listed.pod;
            let answer = answer_of(id);
            let lag = laggards.iter().find(|lag| lag.pod == *id);
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
            }
        };
        let pods = pods.iter().map(of_pod).collect();
        self.lags = lags;
        KeyState {
            newest: newest.map(|bundle| (bundle.generation(), bundle.digest())),
            acknowledged: standing.acknowledged,
            verifiers: standing.verifiers,
            laggards,
            entries: newest.map(entries).unwrap_or_default(),
            pods,
            issuers: self.issuers.clone(),
            is_settled,
            in_sync: is_settled && !was_written && standing.acknowledged == standing.verifiers,
            problem: None,
            clock_offsets: round
                .answers
                .iter()
                .map(|heard| {
                    (
                        heard.answer.pod.clone(),
                        clock_offset(heard.answer.now, round.now),
                    )
                })
                .collect(),
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
            let is_news = shown.differs_from(&state);
            *shown = Arc::new(state);
            is_news
        });
        if let (true, Some((chain, news))) = (is_news, &self.audience) {
            news.change(chain);
        }
    }
}

/// Seconds that a pod's clock is ahead, as far as they can be said: a pod writes any time it likes.
fn clock_offset(pod: NumericDate, ours: NumericDate) -> i64 {
    let signed = |time: NumericDate| i64::try_from(time.as_seconds()).unwrap_or(i64::MAX);
    signed(pod).saturating_sub(signed(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_write_any_time_and_its_clock_is_never_said_to_be_the_other_way_off() {
        let ours = NumericDate::from_seconds(1_800_000_000);
        let ahead = |seconds| clock_offset(NumericDate::from_seconds(seconds), ours);
        assert_eq!([ahead(0), ahead(1_800_000_007)], [-1_800_000_000, 7]);
        let furthest = i64::MAX - 1_800_000_000;
        assert_eq!([1 << 63, u64::MAX].map(ahead), [furthest; 2]);
    }
}
