//! What goes wrong: pods that end, crash and are cut off, disks, clocks, leaders, etcd, late and forged messages; and what
//! people order meanwhile.

use std::sync::Arc;

use servicechain_keys::{Revocation, RevocationKind, ShortDigest};

use super::leader::Leader;
use super::pod::{Hostility, Life, Pod, UNASKED};
use super::signed::{KeyPool, Signed};
use super::world::{ISSUER, World, date, subject_of};

/// An issuer pod may be this far ahead and still vanish without a word; beyond, its tokens outlive what anybody knows.
const HONEST_CLOCK: i64 = 30;

impl World {
    pub(crate) fn end_pod(&mut self) {
        let Some(number) = self.pick(Pod::is_listed) else {
            return;
        };
        if self.is_last_holder(number) || self.wild_issuers.contains(&number) {
            return;
        }
        let life = match (self.pods[number].life, self.random.below(3)) {
            (Life::Ended | Life::Pending, _) | (_, 0) => Life::Gone,
            (_, 1) => Life::Ended,
            _ => Life::Zombie {
                until: self.time + 500,
            },
        };
        self.trace(|| format!("pod-{number} becomes {life:?}"));
        let pod = &mut self.pods[number];
        pod.life = life;
        pod.api_ready = false;
        pod.confirmed &= pod.is_running();
    }

    /// The container dies and is started again; disk and memory-backed folder stay.
    pub(crate) fn crash_container(&mut self) {
        if let Some(number) = self.pick(Pod::is_running) {
            self.restart_container(number);
        }
    }

    pub(crate) fn cut_or_heal(&mut self) {
        let Some(number) = self.pick(Pod::is_running) else {
            return;
        };
        let (time, last_holder) = (self.time, self.is_last_holder(number));
        let pod = &mut self.pods[number];
        if pod.reachable {
            // A pod that flaps faster than two rounds can see is not what "unreachable for 60 s" speaks of.
            if last_holder || time < pod.quiet_until {
                return;
            }
            pod.reachable = false;
            pod.api_ready = self.random.percent(30) && pod.api_ready;
        } else {
            pod.reachable = true;
            pod.quiet_until = time + 2 * UNASKED;
            pod.api_ready |= pod.confirmed || self.random.percent(50) && pod.held.is_some();
            pod.api_ready &= pod.is_listed();
        }
        let reachable = pod.reachable;
        self.trace(|| format!("pod-{number} reachable: {reachable}"));
    }

    pub(crate) fn break_or_mend_disk(&mut self) {
        let Some(number) = self.pick(Pod::is_running) else {
            return;
        };
        if !self.is_last_holder(number) {
            self.pods[number].disk_broken = !self.pods[number].disk_broken && self.random.percent(60);
        }
    }

    pub(crate) fn jump_clock(&mut self) {
        let year = 31_536_000;
        let offset = [0, 0, 20, -20, 45, -45, 600, -600, -3600, 3600, year, -900_000][self.random.below(12)];
        if self.random.percent(40) {
            let leader = self.random.below(self.leaders.len());
            self.leaders[leader].clock_offset = offset;
            self.trace(|| format!("leader {leader}: clock {offset}"));
        } else if let Some(number) = self.pick(|pod| pod.life == Life::Running) {
            self.pods[number].clock_offset = offset;
            if self.pods[number].is_issuer && offset > HONEST_CLOCK {
                self.wild_issuers.push(number);
            }
            self.trace(|| format!("pod-{number}: clock {offset}"));
        }
    }

    pub(crate) fn kill_leader(&mut self) {
        let leader = self.random.below(self.leaders.len());
        let clock_offset = self.leaders[leader].clock_offset;
        self.leaders[leader] = Leader {
            clock_offset,
            ..Leader::default()
        };
        self.trace(|| format!("leader {leader} dies"));
    }

    /// etcd is restored, or the `ConfigMap` deleted: its versions go on, as Kubernetes' guide to restoring has it. What
    /// it forgets must be held by somebody who can be asked, else nobody in the world knows it.
    pub(crate) fn restore_etcd(&mut self) {
        let Some(highest) = self.highest.clone() else {
            return;
        };
        let held = self.pods.iter().any(|pod| holds_for_good(pod, &highest));
        if !held {
            return;
        }
        self.etcd.version += 1;
        let lineage = self.history.len();
        self.etcd.config_map = match self.random.below(3) {
            0 => None,
            _ => Some(Arc::clone(&self.history[self.random.below(lineage)])),
        };
        let now = self
            .etcd
            .config_map
            .as_ref()
            .map(|bundle| bundle.generation().number());
        self.trace(|| format!("etcd restored to {now:?}"));
    }

    /// The newest bundle is nowhere else.
    pub(crate) fn is_last_holder(&self, number: usize) -> bool {
        let Some(highest) = &self.highest else {
            return false;
        };
        if self
            .etcd
            .config_map
            .as_ref()
            .is_some_and(|bundle| bundle.digest == highest.digest)
        {
            return false;
        }
        !self
            .pods
            .iter()
            .any(|pod| pod.number != number && holds_for_good(pod, highest))
    }

    pub(crate) fn order_rotation(&mut self) {
        let ahead = self.random.below(60) as u64;
        self.rotate_before = Some(self.time - 30 + ahead);
        self.trace(|| "rotation ordered".to_owned());
    }

    pub(crate) fn revoke(&mut self) {
        if self.revocations.len() >= 4 {
            return;
        }
        self.stale_revocations = self.revocations.len();
        let signed_with: Vec<_> = (0..self.next_key)
            .filter(|key| self.last_expiry[*key] > 0)
            .collect();
        // Beyond every clock that jumps, or in the midst of the tokens there are.
        let for_ever = self.time + 40_000_000;
        let before = [for_ever, self.time + 300, self.time, self.time - 300][self.random.below(4)];
        let (kind, value, issued_before) = match self.random.below(8) {
            0..=3 if !signed_with.is_empty() => {
                let key = signed_with[self.random.below(signed_with.len())];
                self.revoked_keys.push(key);
                let kid = KeyPool::get().keys[key].kid().to_owned();
                (RevocationKind::Key, kid, for_ever)
            }
            0..=4 => (RevocationKind::Sub, subject_of(self.random.below(3)), before),
            5..=6 => (RevocationKind::ClientId, subject_of(self.random.below(3)), before),
            _ => (
                RevocationKind::Issuer,
                String::new(),
                [self.time, self.time - 300][self.random.below(2)],
            ),
        };
        let revocation = Revocation {
            issuer: ISSUER.to_owned(),
            kind,
            digest: ShortDigest::of(&value),
            issued_before: date(issued_before),
            expires: None,
        };
        if !self.revocations.contains(&revocation) {
            self.revocations.push(revocation);
        }
        self.trace(|| format!("revoked: {kind:?} {value}"));
    }

    pub(crate) fn deliver_late(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let place = self.random.below(self.in_flight.len());
        let message = self.in_flight.swap_remove(place);
        // Whoever is at the address now refuses what was meant for another pod.
        if self.pod_at(message.address) == Some(message.pod) {
            self.deliver(message.pod, Some(&message.bundle));
        }
    }

    pub(crate) fn deliver_forged(&mut self) {
        let Some(number) = self.pick(|pod| pod.is_running() && pod.reachable) else {
            return;
        };
        if let Some(highest) = self.highest.clone() {
            let for_another_chain = self.random.percent(50);
            let forged = self.signer.forge(&highest, for_another_chain);
            let asked = self.pods[number].last_asked;
            self.deliver(number, Some(&forged));
            self.pods[number].last_asked = asked;
        }
    }
}

impl World {
    /// Somebody has kept an authentic bundle and brings it again, to whoever runs.
    pub(crate) fn deliver_replayed(&mut self) {
        let Some(number) = self.pick(|pod| pod.is_running() && pod.reachable) else {
            return;
        };
        if self.history.is_empty() {
            return;
        }
        let old = Arc::clone(&self.history[self.random.below(self.history.len())]);
        let asked = self.pods[number].last_asked;
        self.deliver(number, Some(&old));
        self.pods[number].last_asked = asked;
    }
}

/// It will answer, and a restart does not take it away.
fn holds_for_good(pod: &Pod, bundle: &Signed) -> bool {
    pod.life == Life::Running
        && pod.reachable
        && matches!(
            pod.hostility,
            Hostility::None | Hostility::Offers | Hostility::LateClock
        )
        && pod.disk.as_ref().is_some_and(|disk| disk.digest == bundle.digest)
}
