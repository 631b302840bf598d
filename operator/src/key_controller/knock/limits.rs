//! How much those who knock may ask for: each pod about once a second, all of them together so many at a time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use servicechain_keys::{ChainId, PodId};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A pod's knocks, over any longer time.
const EVERY: Duration = Duration::from_secs(1);
/// A container that starts again knocks at once, and a knock may come late where the one after it does not.
const AT_ONCE: u32 = 3;
/// Knocks that wait for their answer.
const MOST_WAITING: usize = 1024;
/// Pods that are remembered before those of long ago are forgotten.
const MOST_REMEMBERED: usize = 4096;

pub(super) struct Limits {
    /// When each pod will have used up what it knocked already.
    pods: Mutex<HashMap<(ChainId, PodId), Instant>>,
    waiting: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pods: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

impl Limits {
    /// Counts this knock, unless the pod has knocked too often. Only those who proved who they are come so far.
    pub(super) fn may_knock(&self, chain: &ChainId, pod: &PodId) -> bool {
        let now = Instant::now();
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.len() >= MOST_REMEMBERED {
            pods.retain(|_, used_up| *used_up > now);
        }
        let used_up = pods.entry((chain.clone(), pod.clone())).or_insert(now);
        let next = (*used_up).max(now) + EVERY;
        let may = next <= now + EVERY * AT_ONCE;
        if may {
            *used_up = next;
        }
        may
    }

    pub(super) fn take_place(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting.try_acquire().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_knocks_once_a_second_and_others_meanwhile() {
        let limits = Limits::default();
        let chain = ChainId::new("chain").unwrap();
        let (pod, other) = (PodId::new("pod").unwrap(), PodId::new("other").unwrap());
        let knocks = (0..10).filter(|_| limits.may_knock(&chain, &pod)).count();
        assert_eq!(knocks, 3);
        assert!(limits.may_knock(&chain, &other));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limits.may_knock(&chain, &pod));
        assert!(!limits.may_knock(&chain, &pod));
        tokio::time::advance(Duration::from_hours(1)).await;
        let knocks = (0..10).filter(|_| limits.may_knock(&chain, &pod)).count();
        assert_eq!(knocks, 3, "what was not used is not saved up");
    }
}
