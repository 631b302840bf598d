//! A pod as the protocol prescribes it (key protocol, lines 3, 9, 13, 16 and 18), with its disk, its memory-backed
//! folder, its clock, and what can go wrong with each.

use std::sync::Arc;

use servicechain_keys::{BundleRefusal, Generation, KeyState, PodId};

use super::flaw::Flaw;
use super::random::Random;
use super::signed::{KeyPool, Signed, Signer};

/// Nobody asked for so long: the pod may have been left out, and its word is no authority until a knock is answered.
pub(crate) const UNASKED: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Created; its volumes are mounted, no container runs.
    Pending,
    Running,
    /// Its containers ended for good.
    Ended,
    /// Its object is gone and its node cut off: it may run until then.
    Zombie {
        until: u64,
    },
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hostility {
    None,
    /// Offers its own key though it is no issuer pod, or claims what it does not hold.
    Offers,
    ClaimsHigh,
    /// Says it holds what it was sent and never keeps it.
    ClaimsHeld,
    /// Says that its clock stands at 1970.
    LateClock,
}

/// A private key in the memory-backed folder. What is written there outlives the container, not the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnKey {
    pub(crate) key: usize,
    pub(crate) last_expiry: u64,
    /// The pod saw a bundle in which the key no longer signs; it never does again.
    pub(crate) stopped: bool,
    /// The pod saw the key in a bundle.
    pub(crate) seen: bool,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can go wrong by itself")]
pub(crate) struct Pod {
    pub(crate) id: PodId,
    pub(crate) number: usize,
    pub(crate) is_issuer: bool,
    pub(crate) hostility: Hostility,
    pub(crate) address: usize,
    pub(crate) life: Life,
    pub(crate) api_ready: bool,
    pub(crate) reachable: bool,
    pub(crate) quiet_until: u64,
    pub(crate) clock_offset: i64,
    pub(crate) held: Option<Arc<Signed>>,
    pub(crate) disk: Option<Arc<Signed>>,
    pub(crate) file: Option<Arc<Signed>>,
    pub(crate) disk_broken: bool,
    pub(crate) confirmed: bool,
    pub(crate) last_asked: u64,
    /// Counts starts of the container: an answer to an earlier one's knock is not this one's.
    pub(crate) incarnation: u32,
    pub(crate) keys: Vec<OwnKey>,
    /// The highest generation that it acknowledged as durable.
    pub(crate) acknowledged: Option<Generation>,
}

/// Where the container dies while it takes a bundle (crash point g).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dies {
    Not,
    AfterSwap,
    AfterFsync,
}

#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) held: Option<Arc<Signed>>,
    pub(crate) refusal: Option<BundleRefusal>,
    pub(crate) unchanged: bool,
    pub(crate) durable: bool,
}

impl Pod {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.life, Life::Running | Life::Zombie { .. })
    }

    /// The API server knows it.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.life, Life::Pending | Life::Running | Life::Ended)
    }

    pub(crate) fn clock(&self, time: u64) -> u64 {
        time.saturating_add_signed(self.clock_offset)
    }

    pub(crate) fn held_generation(&self) -> Option<Generation> {
        self.held.as_ref().map(|held| held.generation())
    }

    pub(crate) fn start_container(&mut self, time: u64) {
        self.incarnation += 1;
        self.confirmed = false;
        self.last_asked = time;
        let generation = |bundle: &Option<Arc<Signed>>| bundle.as_ref().map(|bundle| bundle.generation());
        self.held = if generation(&self.disk) >= generation(&self.file) {
            self.disk.clone()
        } else {
            self.file.clone()
        };
        self.notice_keys();
    }

    /// Whether the pod may speak for what is signed with: to others, and to callers with unknown keys.
    pub(crate) fn is_authority(&self, time: u64) -> bool {
        self.is_confirmed(time) && self.is_running()
    }

    pub(crate) fn is_confirmed(&self, time: u64) -> bool {
        self.confirmed && time <= self.last_asked + UNASKED
    }

    pub(crate) fn expire_confirmation(&mut self, time: u64) {
        self.confirmed = self.is_confirmed(time);
    }

    pub(crate) fn take(&mut self, delivered: &Arc<Signed>, signer: &Signer, flaw: Flaw, dies: Dies) -> Word {
        let taken = match signer.take(self.held.as_ref(), delivered) {
            Err(BundleRefusal::Lower) if flaw == Flaw::LowerTaken => Ok(Some(Arc::clone(delivered))),
            taken => taken,
        };
        let mut word = Word {
            held: None,
            refusal: None,
            unchanged: false,
            durable: false,
        };
        match taken {
            Err(refusal) => word.refusal = Some(refusal),
            Ok(None) => word.unchanged = true,
            Ok(Some(taken)) => {
                if self.hostility != Hostility::ClaimsHeld {
                    self.held = Some(taken);
                    self.notice_keys();
                }
            }
        }
        if dies != Dies::AfterSwap && !self.disk_broken && flaw != Flaw::AcknowledgedBeforeFsync {
            self.disk.clone_from(&self.held);
        }
        word.held.clone_from(&self.held);
        let digest = |bundle: &Option<Arc<Signed>>| bundle.as_ref().map(|bundle| bundle.digest);
        word.durable = digest(&self.disk) == digest(&self.held) || flaw == Flaw::AcknowledgedBeforeFsync;
        word
    }

    /// What an issuer pod learns about its own keys from the bundle it holds.
    fn notice_keys(&mut self) {
        let Some(held) = &self.held else { return };
        for own in &mut self.keys {
            match held.key(own.key) {
                Some(view) => {
                    own.seen = true;
                    own.stopped |= view.state == KeyState::Retiring;
                }
                None => own.stopped |= own.seen,
            }
        }
    }

    /// At most two living keys: the current one and the next.
    pub(crate) fn make_keys(&mut self, next_key: &mut usize) {
        let living = self.keys.iter().filter(|own| !own.stopped).count();
        for _ in living..2 {
            if *next_key < KeyPool::get().keys.len() {
                self.keys.push(OwnKey {
                    key: *next_key,
                    last_expiry: 0,
                    stopped: false,
                    seen: false,
                });
                *next_key += 1;
            }
        }
    }

    /// The key it would sign with: its own, Active in the bundle it holds, before `signUntil`.
    pub(crate) fn signing_key(&self, time: u64, flaw: Flaw) -> Option<(usize, u64)> {
        let held = self.held.as_ref()?;
        let key_of = |own: &OwnKey| {
            held.bundle.issuers[0]
                .keys
                .iter()
                .find(|key| key.jwk.kid() == Some(KeyPool::get().keys[own.key].kid()))
        };
        self.keys.iter().enumerate().find_map(|(place, own)| {
            let key = key_of(own)?;
            let may_sign = match key.state {
                KeyState::Active => key
                    .sign_until
                    .is_none_or(|until| self.clock(time) < until.as_seconds()),
                KeyState::Staged => flaw == Flaw::SignsWithStaged,
                _ => false,
            };
            let stopped = own.stopped && flaw != Flaw::StoppedKeysForgotten;
            (may_sign && !stopped).then_some((place, key.max_lifetime.as_secs()))
        })
    }

    pub(crate) fn random_death(random: &mut Random) -> Dies {
        match random.below(40) {
            0 => Dies::AfterSwap,
            1 => Dies::AfterFsync,
            _ => Dies::Not,
        }
    }
}
