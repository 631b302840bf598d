//! How much those who knock may ask for: each pod about once a second, all pods of a workload together so many a second,
//! and all chains of a namespace, as all namespaces, so many at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use servicechain_keys::{ChainId, PodId, Workload};
use tokio::time::Instant;

use super::places::{Place, Places};

/// A pod's knocks, over any longer time.
const EVERY: Duration = Duration::from_secs(1);
/// A container that starts again knocks at once, and a knock may come late where the one after it does not.
const AT_ONCE: u32 = 3;
/// A workload's knocks, over any longer time. Who holds its key can name any pod, so that pods alone are no bound; what
/// they use up is theirs, and other hops of the chain are heard.
const EVERY_OF_WORKLOAD: Duration = Duration::from_millis(5);
/// A workload that starts as a whole.
const AT_ONCE_OF_WORKLOAD: u32 = 256;
/// Knocks that wait for their answer: of all, and of the chains of one namespace. A tenant may have many chains.
const MOST_WAITING: usize = 1024;
const MOST_OF_NAMESPACE: usize = 256;
/// Pods, or workloads, that are remembered before those of long ago are forgotten.
const MOST_REMEMBERED: usize = 4096;

pub(super) struct Limits {
    known: Mutex<Known>,
    waiting: Places<Arc<str>>,
}

/// When each of them will have used up what it knocked already.
#[derive(Default)]
struct Known {
    pods: HashMap<(ChainId, PodId), Instant>,
    workloads: HashMap<(ChainId, Workload), Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            waiting: Places::new(MOST_WAITING, MOST_OF_NAMESPACE),
        }
    }
}

impl Limits {
    /// Counts this knock, unless its chain or its pod has knocked too often. Only those who proved who they are come so
    /// far.
    pub(super) fn may_knock(&self, chain: &ChainId, workload: &Workload, pod: &PodId) -> bool {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { pods, workloads } = &mut *known;
        forget(workloads, now);
        let of_workload = workloads.entry((chain.clone(), workload.clone())).or_insert(now);
        // The workload first: a pod that it has no room for is not remembered.
        if !spend(of_workload, now, EVERY_OF_WORKLOAD, AT_ONCE_OF_WORKLOAD) {
            return false;
        }
        forget(pods, now);
        let of_pod = pods.entry((chain.clone(), pod.clone())).or_insert(now);
        spend(of_pod, now, EVERY, AT_ONCE)
    }

    /// Chains that nobody looks after, since they are gone or not yet met, share the places of one namespace without a name.
    pub(super) fn take_place(&self, namespace: Option<Arc<str>>) -> Option<Place<Arc<str>>> {
        self.waiting.take(namespace.unwrap_or_default())
    }
}

/// Takes one of `at_once`, of which one comes back `every` so long.
fn spend(used_up: &mut Instant, now: Instant, every: Duration, at_once: u32) -> bool {
    let next = (*used_up).max(now) + every;
    let may = next <= now + every * at_once;
    if may {
        *used_up = next;
    }
    may
}

fn forget<K>(known: &mut HashMap<K, Instant>, now: Instant) {
    if known.len() >= MOST_REMEMBERED {
        known.retain(|_, used_up| *used_up > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_knocks_once_a_second_and_others_meanwhile() {
        let limits = Limits::default();
        let (chain, workload) = (ChainId::new("chain").unwrap(), Workload::new("a").unwrap());
        let (pod, other) = (PodId::new("pod").unwrap(), PodId::new("other").unwrap());
        let knocks = (0..10)
            .filter(|_| limits.may_knock(&chain, &workload, &pod))
            .count();
        assert_eq!(knocks, 3);
        assert!(limits.may_knock(&chain, &workload, &other));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limits.may_knock(&chain, &workload, &pod));
        assert!(!limits.may_knock(&chain, &workload, &pod));
        tokio::time::advance(Duration::from_hours(1)).await;
        let knocks = (0..10)
            .filter(|_| limits.may_knock(&chain, &workload, &pod))
            .count();
        assert_eq!(knocks, 3, "what was not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_up_pods_of_his_chain_is_held_to_its_rate_and_others_are_not() {
        let limits = Limits::default();
        let (chain, other) = (ChainId::new("chain").unwrap(), ChainId::new("other").unwrap());
        let workload = Workload::new("a").unwrap();
        let mut knocks = 0;
        for pod in 0..10_000 {
            let pod = PodId::new(format!("pod-{pod}")).unwrap();
            knocks += usize::from(limits.may_knock(&chain, &workload, &pod));
            tokio::time::advance(super::super::ANSWER_TIMEOUT / 10_000).await;
        }
        assert!((256..MOST_WAITING / 2).contains(&knocks), "{knocks}");
        let pod = PodId::new("pod").unwrap();
        assert!(limits.may_knock(&other, &workload, &pod));
        assert!(
            limits.may_knock(&chain, &Workload::new("b").unwrap(), &pod),
            "other hops are heard"
        );
    }

    #[test]
    fn who_has_many_chains_leaves_places_to_other_namespaces() {
        let limits = Limits::default();
        let take = |namespace: &str| limits.take_place(Some(namespace.into()));
        let of_tenant: Vec<_> = (0..MOST_WAITING).filter_map(|_| take("tenant")).collect();
        assert!(of_tenant.len() <= MOST_WAITING / 4, "{}", of_tenant.len());
        let of_nobody: Vec<_> = (0..MOST_WAITING)
            .filter_map(|_| limits.take_place(None))
            .collect();
        assert!(of_nobody.len() <= MOST_WAITING / 4, "{}", of_nobody.len());
        assert!(take("other").is_some());
    }
}
