//! What must come true once nothing goes wrong any more. I8: without any leader, verdicts change by time only and issuers
//! go on signing. I9: whatever was interrupted, one leader that remembers nothing brings everything to its end.

use servicechain_keys::KeyState;

use super::flaw::Flaw;
use super::leader::{Leader, Phase};
use super::pod::{Hostility, Life};
use super::world::{TOKEN_LIFETIME, World, date};

/// Rounds in which a lone leader must have brought everyone to one bundle, and every issuer pod to sign.
const ROUNDS: usize = 24;

impl World {
    pub(crate) fn calm_down(&mut self) {
        self.trace(|| "calm".to_owned());
        self.calm = true;
        self.in_flight.clear();
        self.check_silence();
        for leader in &mut self.leaders {
            *leader = Leader::default();
        }
        self.lease = 0;
        for pod in &mut self.pods {
            pod.clock_offset = 0;
            pod.disk_broken = false;
            pod.reachable = true;
            let lied = pod.hostility == Hostility::ClaimsHeld;
            pod.hostility = Hostility::None;
            if matches!(pod.life, Life::Zombie { .. }) || lied && pod.is_listed() {
                pod.life = Life::Gone;
                pod.api_ready = false;
            }
        }
        self.settle_down();
        // An order from the time when a leader's clock was ahead may look carried out.
        self.rotate_before = self.rotate_before.map(|_| self.time);
        for _ in 0..12 {
            self.advance(10);
            self.rounds(1);
            self.check_pods();
        }
        self.finish();
        self.check_converged();
        // Retired keys leave once time has passed: a pod that vanished is waited for longest.
        for _ in 0..24 {
            self.advance((600 + 2 * TOKEN_LIFETIME) / 20);
            self.rounds(1);
        }
        self.check_retired();
    }

    /// No leader acts; containers restart.
    fn check_silence(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let ready: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| pod.life == Life::Running && !pod.disk_broken && pod.hostility == Hostility::None)
            .filter(|pod| {
                pod.disk.as_ref().map(|disk| disk.digest) == pod.held.as_ref().map(|held| held.digest)
            })
            .map(|pod| pod.number)
            .collect();
        let verdicts = |world: &Self| -> Vec<bool> {
            let tokens = world.tokens.clone();
            ready
                .iter()
                .flat_map(|number| tokens.iter().map(|token| world.is_accepted(*number, *token)))
                .collect()
        };
        let signs = |world: &Self| -> Vec<bool> {
            ready
                .iter()
                .map(|number| world.pods[*number].signing_key(world.time, world.flaw).is_some())
                .collect()
        };
        let before = (verdicts(self), signs(self));
        for number in &ready {
            let file = self.pods[*number].file.take();
            self.restart_container(*number);
            self.pods[*number].file = file;
            if self.flaw == Flaw::SilentOperatorStopsIssuers {
                self.pods[*number].keys.clear();
            }
        }
        if (verdicts(self), signs(self)) != before {
            self.violate(
                "I8",
                "a restart without operator changed a verdict or stopped an issuer".to_owned(),
            );
        }
        self.check_pods();
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.leader_step(0);
            while !matches!(self.leaders[0].phase, Phase::ReadConfigMap) {
                self.leader_step(0);
            }
        }
    }

    /// Until a round changes nothing.
    fn finish(&mut self) {
        for _ in 0..8 {
            let version = self.etcd.version;
            self.rounds(1);
            if self.etcd.version == version {
                return;
            }
        }
        self.violate("I9", "rounds without end".to_owned());
    }

    fn settle_down(&mut self) {
        while self.pods.iter().filter(|pod| pod.life == Life::Running).count() < 2 {
            let before = self.pods.len();
            self.create_pod();
            if self.pods.len() == before {
                break;
            }
        }
        for _ in 0..ROUNDS {
            self.advance(5);
            self.rounds(1);
            for number in 0..self.pods.len() {
                if matches!(self.pods[number].life, Life::Pending | Life::Running) {
                    self.advance_pod(number);
                }
            }
            self.check_pods();
        }
    }

    fn check_converged(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let Some(newest) = self.etcd.config_map.clone() else {
            self.violate("I9", "there is no bundle".to_owned());
            return;
        };
        for number in 0..self.pods.len() {
            let pod = &self.pods[number];
            if pod.life != Life::Running {
                continue;
            }
            if pod.held.as_ref().map(|held| held.digest) != Some(newest.digest)
                || !pod.is_confirmed(self.time)
            {
                let what = format!(
                    "pod-{number} holds {:?}, confirmed {}, newest is {}",
                    pod.held_generation(),
                    pod.is_confirmed(self.time),
                    newest.generation()
                );
                self.violate("I9", what);
                return;
            }
            let keys_left = pod.keys.iter().any(|own| !own.stopped);
            let signs = pod.signing_key(self.time, self.flaw).is_some();
            self.sign_token_at(number);
            if self.pods[number].is_issuer && keys_left && !signs {
                self.violate("I9", format!("issuer pod-{number} cannot sign"));
                return;
            }
        }
        let bundle = &newest.bundle;
        if self.enforced < self.revocations.len() {
            self.violate("I9", "a revocation is not enforced".to_owned());
        } else if let Some(before) = self.rotate_before
            && bundle.issuers[0].keys.iter().any(|key| {
                let has_next = || {
                    bundle.issuers[0]
                        .keys
                        .iter()
                        .any(|other| other.owner == key.owner && other.state == KeyState::Staged)
                };
                key.state == KeyState::Active && key.since < date(before) && has_next()
            })
        {
            self.violate("I9", "an ordered rotation did not happen".to_owned());
        }
    }

    fn check_retired(&mut self) {
        let Some(newest) = self.etcd.config_map.clone().filter(|_| self.violation.is_none()) else {
            return;
        };
        let retired_before = date(self.time - 600 - 2 * TOKEN_LIFETIME);
        let keys = newest.bundle.issuers[0].keys.iter().zip(&newest.keys);
        let stale = keys
            .map(|(key, view)| (key.since < retired_before, view))
            .find(|(long_ago, view)| {
                *long_ago && view.state == KeyState::Retiring && self.last_expiry[view.key] + 300 < self.time
            });
        if let Some((_, view)) = stale {
            self.violate("I9", format!("k{} is Retiring for ever", view.key));
        }
    }
}
