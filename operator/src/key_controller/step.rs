//! One round, in the order that `keys::rotation` asks for: read, list, ask everybody, decide, write. What it finds
//! out and may forget is in its `Memory`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use servicechain_keys::rotation::{
    Base, Decision, Desired, Heard, KeySource, ListedPod, Memory, Round, decide, newest,
};
use servicechain_keys::{Algorithm, HeldBundle, NumericDate, PodId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::bundle_file::{ReplaceError, Stored};
use super::publish::{self, PublishError};
use super::push::{Messenger, ReadBundle};
use super::state::KeyState;
use super::{BundleFile, Clock, Pod, Roots, chain_of};

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
}

pub(super) struct Leader {
    roots: Roots,
    store: BundleFile,
    clock: Clock,
    started: Instant,
    desired: watch::Receiver<Desired>,
    pods: watch::Receiver<Vec<Pod>>,
    published: watch::Sender<Arc<KeyState>>,
    messenger: Messenger,
    memory: Memory,
    last_answers: usize,
}

/// What asking everybody brought.
#[derive(Default)]
struct Asked {
    pods: Vec<PodId>,
    answers: Vec<Heard>,
    /// Newer bundles than the one read.
    at_pods: Vec<HeldBundle>,
}

impl Leader {
    pub(super) fn new(
        roots: Roots,
        store: BundleFile,
        clock: Clock,
        desired: watch::Receiver<Desired>,
        pods: watch::Receiver<Vec<Pod>>,
        published: watch::Sender<Arc<KeyState>>,
    ) -> Self {
        let messenger = Messenger::new(&roots);
        let started = Instant::now();
        let (memory, last_answers) = (Memory::default(), 0);
        Self {
            roots,
            store,
            clock,
            started,
            desired,
            pods,
            published,
            messenger,
            memory,
            last_answers,
        }
    }

    pub(super) async fn round(&mut self) -> Result<After, PublishError> {
        let stored = publish::read(&self.store).await?;
        self.memory
            .read(stored.as_ref().map(|stored| stored.version.as_str()));
        let config_map = stored.as_ref().and_then(|stored| self.authentic(stored));
        let desired = self.desired.borrow().clone();
        let pods = self.pods.borrow().clone();
        let asked = self.ask_everybody(&pods, config_map.as_ref(), &desired).await;
        let listed: Vec<ListedPod> = pods.iter().map(|pod| pod.listed.clone()).collect();
        let base = newest(
            config_map.as_ref().map(Base::from),
            asked.at_pods.iter().map(Base::from),
        );
        let round = Round {
            now: NumericDate::from((self.clock)()),
            elapsed: self.started.elapsed(),
            asked: &asked.pods,
            answers: &asked.answers,
            pods: &listed,
        };
        self.memory.note(base, &round);
        let Decision { next, events } = decide(base, &desired, &self.memory, &round);
        for event in events {
            tracing::info!(chain = %self.roots.chain, "{event}");
        }

        let read = stored.map(|stored| stored.version);
        let adopted = base.filter(|base| !base.in_config_map);
        let written = if let Some(adopted) = adopted {
            let bundle = asked
                .at_pods
                .iter()
                .find(|bundle| bundle.digest() == adopted.digest);
            match bundle {
                Some(bundle) => Some(
                    publish::replace(&self.store, read, bundle)
                        .await
                        .map(|version| (version, None)),
                ),
                None => None,
            }
        } else if let Some(next) = next {
            let published = publish::publish(&self.store, &self.roots, read, &next).await;
            Some(published.map(|(version, signed)| (version, Some(signed))))
        } else {
            None
        };
        match written {
            Some(Ok((version, signed))) => {
                self.memory.wrote(&version);
                self.show(
                    signed.as_ref().or(config_map.as_ref()),
                    &listed,
                    round.elapsed,
                    false,
                );
                Ok(After::Moved)
            }
            Some(Err(PublishError::Replace(ReplaceError::Conflict))) => Ok(After::Moved),
            Some(Err(error)) => Err(error),
            None => {
                let in_sync = self.show(config_map.as_ref(), &listed, round.elapsed, true);
                let more_answers = asked.answers.len() > self.last_answers;
                self.last_answers = asked.answers.len();
                Ok(match (in_sync, more_answers) {
                    (true, _) => After::InSync,
                    (false, true) => After::Moved,
                    (false, false) => After::Waiting,
                })
            }
        }
    }

    /// A file that is no authentic bundle counts for nothing, and is written over.
    fn authentic(&self, stored: &Stored) -> Option<HeldBundle> {
        let opened = self.messenger.open(&stored.bytes);
        opened
            .inspect_err(|error| tracing::error!(%error, "the stored bundle is not authentic"))
            .ok()
    }

    async fn ask_everybody(&self, pods: &[Pod], config_map: Option<&HeldBundle>, desired: &Desired) -> Asked {
        let reachable = pods
            .iter()
            .filter(|pod| pod.keys_address.is_some() && !pod.listed.ended);
        let exchanges: Vec<_> = reachable
            .clone()
            .map(|pod| self.ask(pod, config_map, desired))
            .collect();
        let heard: Vec<_> = stream::iter(exchanges)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut asked = Asked {
            pods: reachable.map(|pod| pod.listed.pod.clone()).collect(),
            ..Asked::default()
        };
        for (answer, bundle) in heard.into_iter().flatten() {
            asked.answers.push(answer);
            asked.at_pods.extend(bundle);
        }
        asked
    }

    async fn ask(
        &self,
        pod: &Pod,
        config_map: Option<&HeldBundle>,
        desired: &Desired,
    ) -> Option<(Heard, Option<HeldBundle>)> {
        let id = &pod.listed.pod;
        let push = config_map
            .filter(|bundle| self.memory.lacks(id, Base::from(*bundle)))
            .map(|bundle| Bytes::copy_from_slice(bundle.bytes()));
        let algorithm = pod
            .listed
            .issuer
            .as_deref()
            .and_then(|issuer| algorithm_of(desired, issuer));
        let heard = self.messenger.ask(&self.roots, pod, push, algorithm).await;
        let mut heard = heard
            .inspect_err(|error| tracing::debug!(pod = %id, error = %chain_of(error), "a pod was not heard"))
            .ok()?;
        let Some(held) = heard.answer.held else {
            return Some((heard, None));
        };
        let is_known = config_map
            .is_some_and(|known| held.generation < known.generation() || held.digest == known.digest());
        if is_known {
            return Some((heard, None));
        }
        match self.messenger.read(pod).await {
            Ok(ReadBundle::Authentic(bundle)) => {
                heard.claim_refuted = bundle.generation() < held.generation;
                Some((heard, Some(*bundle)))
            }
            Ok(ReadBundle::Refuted(refusal)) => {
                tracing::warn!(pod = %id, %refusal, claimed = %held.generation, "a pod claims a bundle that is none");
                heard.claim_refuted = true;
                Some((heard, None))
            }
            Err(error) => {
                tracing::debug!(pod = %id, error = %chain_of(&error), "a pod's newer bundle was not read");
                Some((heard, None))
            }
        }
    }

    fn show(
        &self,
        bundle: Option<&HeldBundle>,
        pods: &[ListedPod],
        elapsed: Duration,
        decided: bool,
    ) -> bool {
        let standing = self.memory.standing(bundle.map(Base::from), pods, elapsed);
        let settled = decided && self.memory.is_settled() && bundle.is_some();
        let in_sync = settled && standing.acknowledged == standing.verifiers;
        self.published
            .send_replace(Arc::new(KeyState::of(bundle, standing, in_sync)));
        in_sync
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
