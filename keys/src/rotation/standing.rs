//! Who holds the newest bundle and who does not, for people: `10/10@7` and the names of the rest.

use std::time::Duration;

use super::{Base, ListedPod, Memory};
use crate::BundleRefusal;
use crate::bundle::Generation;
use crate::identity::PodId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Counted pods that durably hold the newest bundle.
    pub acknowledged: usize,
    pub verifiers: usize,
    pub laggards: Vec<Laggard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    pub pod: PodId,
    /// None before its first bundle, or where it never answered.
    pub generation: Option<Generation>,
    pub reason: LaggardReason,
    /// When its silence began, by the monotonic clock of the rounds.
    pub silent_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaggardReason {
    #[error("does not answer")]
    Unreachable,
    #[error("refuses the bundle")]
    Refuses(#[source] BundleRefusal),
    #[error("cannot write its state")]
    NotDurable,
    #[error("holds another bundle")]
    Behind,
}

impl Memory {
    #[must_use]
    pub fn standing(&self, base: Option<Base<'_>>, pods: &[ListedPod], elapsed: Duration) -> Standing {
        let mut standing = Standing::default();
        for listed in self.counted(pods, elapsed) {
            standing.verifiers += 1;
            match self.lag(base, &listed.pod) {
                None => standing.acknowledged += 1,
                Some(laggard) => standing.laggards.push(laggard),
            }
        }
        standing
    }

    fn lag(&self, base: Option<Base<'_>>, pod: &PodId) -> Option<Laggard> {
        let known = self.known(pod);
        let held = known.and_then(|known| known.held);
        let in_sync = base.is_some_and(|base| held == Some(base.held()));
        let silent_since = known.and_then(|known| known.silent_since);
        let reason = match known {
            Some(known) if known.silent_since.is_none() => {
                if let (Some(refusal), false) = (known.refusal, in_sync) {
                    LaggardReason::Refuses(refusal)
                } else if !in_sync {
                    LaggardReason::Behind
                } else if !known.durable {
                    LaggardReason::NotDurable
                } else {
                    return None;
                }
            }
            _ if in_sync && known.is_some_and(|known| known.durable) => return None,
            _ => LaggardReason::Unreachable,
        };
        Some(Laggard {
            pod: pod.clone(),
            generation: held.map(|held| held.generation),
            reason,
            silent_since,
        })
    }
}
