//! The invariants I1 to I7 of the key protocol, looked at from outside: what was ever written, held, signed and refused.
//! I8 and I9 are promises about what happens in the end; `calm` awaits them.

use std::sync::Arc;

use servicechain_keys::rotation::ListedPod;
use servicechain_keys::{Bundle, Generation, KeyState, Revocation, RevocationKind, ShortDigest};

use super::flaw::Flaw;
use super::pod::{Hostility, Life, Pod};
use super::signed::{KeyPool, Signed, number_of};
use super::world::{Token, World, subject_of};

/// What a hop says to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    UnknownKey,
    Refused,
    AskAgain,
}

impl World {
    /// I1: whatever is written or held under a generation is one and the same bundle.
    fn note_content(&mut self, bundle: &Signed, whose: &str) {
        let generation = bundle.generation().number();
        let known = *self.contents.entry(generation).or_insert(bundle.digest);
        if known != bundle.digest {
            self.violate(
                "I1",
                format!("{whose} has another bundle of generation {generation}"),
            );
        }
    }

    pub(crate) fn note_written(&mut self, bundle: &Arc<Signed>) {
        self.note_content(bundle, "the ConfigMap");
        if self
            .highest
            .as_ref()
            .is_none_or(|highest| bundle.generation() > highest.generation())
        {
            self.highest = Some(Arc::clone(bundle));
        }
        self.history.push(Arc::clone(bundle));
        // I7: every key was made by the issuer pod that is called its owner.
        for view in &bundle.keys {
            if self.makers[view.key] != Some(view.owner) || !self.pods[view.owner].is_issuer {
                self.violate("I7", format!("key k{} is not pod-{}'s", view.key, view.owner));
            }
        }
    }

    /// A pod may have taken a bundle. I2: never an older one than before.
    pub(crate) fn note_held(&mut self, number: usize, before: Option<Generation>) {
        let pod = &self.pods[number];
        let after = pod.held_generation();
        let Some(held) = pod.held.clone().filter(|_| after != before) else {
            return;
        };
        if after < before {
            self.violate("I2", format!("pod-{number} went from {before:?} to {after:?}"));
        }
        self.trace(|| format!("pod-{number} holds {}", held.generation()));
        self.note_content(&held, "a pod");
        if self.pods[number].is_issuer {
            let made = self.next_key;
            self.pods[number].make_keys(&mut self.next_key);
            self.makers[made..self.next_key].fill(Some(number));
        }
    }

    /// I2 across restarts of the container: what was acknowledged as durable is there.
    pub(crate) fn check_start(&mut self, number: usize) {
        self.streams.retain(|(at, _)| *at != number);
        let pod = &self.pods[number];
        if pod.held_generation() < pod.acknowledged && pod.hostility != Hostility::ClaimsHeld {
            let what = format!(
                "pod-{number} acknowledged {:?} and restarts with {:?}",
                pod.acknowledged,
                pod.held_generation()
            );
            self.violate("I2", what);
        }
        if let Some(held) = self.pods[number].held.clone() {
            self.note_content(&held, "a pod's file");
        }
    }

    /// I4, at the moment a bundle leaves a key out: its last token has expired, and, where the owner is there to tell when
    /// that is, it has expired on every clock of the round.
    pub(crate) fn check_removals(&mut self, before: Option<&Bundle>, next: &Bundle, earliest_clock: u64) {
        let keys = |bundle: &Bundle| -> Vec<usize> {
            let keys = bundle.issuers.iter().flat_map(|issuer| &issuer.keys);
            keys.filter_map(|key| KeyPool::get().index(key.jwk.kid()?))
                .collect()
        };
        let kept = keys(next);
        for key in before.map(keys).unwrap_or_default() {
            if kept.contains(&key) || self.revoked_keys.contains(&key) {
                continue;
            }
            let owner = self.makers[key].map(|maker| &self.pods[maker]);
            let stopped = |pod: &Pod| pod.keys.iter().any(|own| own.key == key && own.stopped);
            let clock = match owner {
                Some(owner) if owner.life == Life::Running => earliest_clock,
                // It may have told before it went, and not this leader.
                Some(owner) if stopped(owner) => earliest_clock.max(self.time),
                _ => self.time,
            };
            if self.last_expiry[key] >= clock {
                let what = format!(
                    "k{key} is removed at {clock} though a token lives until {}",
                    self.last_expiry[key]
                );
                self.violate("I4", what);
            }
            self.removed.entry(key).or_insert(next.generation);
        }
    }

    /// I3, at the moment a key becomes Active: every counted pod of the LIST durably holds it.
    pub(crate) fn check_activations(&mut self, before: Option<&Bundle>, next: &Bundle, pods: &[ListedPod]) {
        let active = |bundle: &Bundle| -> Vec<usize> {
            let keys = bundle.issuers.iter().flat_map(|issuer| &issuer.keys);
            let active = keys.filter(|key| key.state == KeyState::Active);
            active
                .filter_map(|key| KeyPool::get().index(key.jwk.kid()?))
                .collect()
        };
        let was_active = before.map(active).unwrap_or_default();
        for key in active(next).into_iter().filter(|key| !was_active.contains(key)) {
            let lacks = |pod: &&Pod| pod.disk.as_ref().is_none_or(|disk| disk.key(key).is_none());
            let lacking = self.counted(pods).find(lacks).map(|pod| pod.number);
            if let Some(number) = lacking {
                self.violate(
                    "I3",
                    format!("k{key} becomes Active, and is not on the disk of pod-{number}"),
                );
            }
        }
    }

    /// `revoke` returned 0: everyone durably has a bundle with these revocations.
    pub(crate) fn note_enforced(&mut self, base: &Bundle, pods: &[ListedPod]) {
        let enforced = self
            .revocations
            .iter()
            .take_while(|revocation| base.revocations.contains(revocation))
            .count();
        if enforced <= self.enforced {
            return;
        }
        self.trace(|| format!("{enforced} revocations are enforced"));
        self.enforced = enforced;
        let revoked = &self.revocations[..enforced];
        let lacks = |pod: &&Pod| {
            let disk = pod.disk.as_ref();
            disk.is_none_or(|disk| {
                revoked
                    .iter()
                    .any(|revocation| !disk.bundle.revocations.contains(revocation))
            })
        };
        let lacking = self.counted(pods).find(lacks).map(|pod| pod.number);
        if let Some(number) = lacking {
            self.violate(
                "I6",
                format!("a revocation is called enforced, and is not on the disk of pod-{number}"),
            );
        }
    }

    /// Who must not be left out: honest pods that run and are Ready in the LIST.
    pub(crate) fn counted<'a>(&'a self, pods: &'a [ListedPod]) -> impl Iterator<Item = &'a Pod> {
        let listed = pods.iter().filter(|listed| listed.runs && listed.ready);
        let pods = listed.map(|listed| &self.pods[number_of(&listed.pod)]);
        pods.filter(|pod| pod.life == Life::Running && pod.hostility != Hostility::ClaimsHeld)
    }

    pub(crate) fn check_pods(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let signed_with: Vec<usize> = (0..self.next_key)
            .filter(|key| self.last_expiry[*key] > 0 && !self.revoked_keys.contains(key))
            .collect();
        let mut found = None;
        for pod in &self.pods {
            let judged = pod.life == Life::Running && pod.hostility == Hostility::None;
            if !judged || !pod.api_ready || !pod.is_confirmed(self.time) {
                continue;
            }
            let Some(held) = &pod.held else {
                found = Some(("I3", format!("pod-{} is confirmed with nothing", pod.number)));
                break;
            };
            // I3: a key that signed is at every Ready and confirmed pod.
            for key in &signed_with {
                let gone = self
                    .removed
                    .get(key)
                    .is_some_and(|removed| *removed <= held.generation());
                if held.key(*key).is_none() && !gone {
                    let what = format!(
                        "k{key} has signed, pod-{} holds {} without it",
                        pod.number,
                        held.generation()
                    );
                    found = Some(("I3", what));
                }
            }
            // I6: what was said to be revoked is streamed no more.
            for (_, token) in self.streams.iter().filter(|(at, _)| *at == pod.number) {
                if self.is_enforced_against(*token) {
                    let what = format!("pod-{} still streams to a revoked token", pod.number);
                    found = Some(("I6", what));
                }
            }
            // I6: what was said to be revoked is revoked here.
            for revocation in &self.revocations[..self.enforced] {
                if !held.bundle.revocations.contains(revocation) {
                    let what = format!(
                        "pod-{} at {} accepts what is revoked",
                        pod.number,
                        held.generation()
                    );
                    found = Some(("I6", what));
                }
            }
        }
        if let Some((invariant, what)) = found {
            self.violate(invariant, what);
        }
    }

    pub(crate) fn sign_token(&mut self) {
        let issuers: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| pod.is_issuer && pod.is_running())
            .collect();
        if issuers.is_empty() {
            return;
        }
        let number = issuers[self.random.below(issuers.len())].number;
        self.sign_token_at(number);
    }

    pub(crate) fn sign_token_at(&mut self, number: usize) -> Option<Token> {
        let pod = &self.pods[number];
        let (place, lifetime) = pod.signing_key(self.time, self.flaw)?;
        let issued = pod.clock(self.time);
        let subject = self.random.below(3);
        let token = Token {
            key: pod.keys[place].key,
            subject,
            issued,
            expiry: issued + lifetime,
        };
        let held = pod.held.as_ref()?;
        if revokes(held, token) && self.flaw != Flaw::RevokedAreGranted {
            return None;
        }
        if pod.hostility != Hostility::ClaimsHeld
            && pod.is_confirmed(self.time)
            && pod.life == Life::Running
            && self.is_enforced_against(token)
        {
            self.violate(
                "I6",
                format!("pod-{number} grants a token that was revoked before its birth"),
            );
        }
        let own = &mut self.pods[number].keys[place];
        own.last_expiry = own.last_expiry.max(token.expiry);
        self.last_expiry[token.key] = self.last_expiry[token.key].max(token.expiry);
        self.trace(|| format!("pod-{number} signs with k{}", token.key));
        if self.removed.contains_key(&token.key) {
            self.violate(
                "I4",
                format!("pod-{number} signs with k{} after its removal", token.key),
            );
        }
        if self.tokens.len() >= 12 {
            self.tokens.swap_remove(0);
        }
        self.tokens.push(token);
        Some(token)
    }

    pub(crate) fn judge_token(&mut self) {
        if self.tokens.is_empty() || self.pods.is_empty() {
            return;
        }
        let mut token = self.tokens[self.random.below(self.tokens.len())];
        let mut number = self.random.below(self.pods.len());
        // Those who do not know the key are the interesting ones.
        let unknown = |pod: &&Pod| {
            let lacks = |token: &Token| {
                pod.held
                    .as_ref()
                    .is_some_and(|held| held.key(token.key).is_none())
            };
            pod.api_ready && self.tokens.iter().any(lacks)
        };
        if let Some(pod) = self.pods.iter().find(unknown) {
            let lacks = |token: &&Token| {
                pod.held
                    .as_ref()
                    .is_some_and(|held| held.key(token.key).is_none())
            };
            token = self
                .tokens
                .iter()
                .copied()
                .rfind(|token| lacks(&token))
                .unwrap_or(token);
            number = pod.number;
        }
        let pod = &self.pods[number];
        if !pod.is_running() || !pod.api_ready || pod.hostility != Hostility::None {
            return;
        }
        let clock = pod.clock(self.time);
        let verdict = self.judge(number, token);
        let pod = &self.pods[number];
        let revoked = self.revoked_keys.contains(&token.key);
        if verdict == Verdict::UnknownKey
            && !revoked
            && clock < token.expiry
            && !self.removed.contains_key(&token.key)
        {
            let what = format!("pod-{number} says 401 to a token of k{}, which lives", token.key);
            self.violate("I5", what);
            return;
        }
        if verdict == Verdict::Accepted && self.is_enforced_against(token) && pod.is_confirmed(self.time) {
            self.violate("I6", format!("pod-{number} accepts a revoked token"));
            return;
        }
        // What nobody revoked is not refused as if it were.
        let alive = clock < token.expiry && !revoked;
        let anyhow_revoked = self
            .revocations
            .iter()
            .any(|revocation| matches(revocation, token));
        if verdict == Verdict::Refused && alive && !anyhow_revoked {
            self.violate("I6", format!("pod-{number} refuses a token that nobody revoked"));
        }
        if verdict == Verdict::Accepted && self.random.percent(50) && self.streams.len() < 12 {
            self.streams.push((number, token));
        }
    }

    /// Some `revoke` that names it returned 0.
    fn is_enforced_against(&self, token: Token) -> bool {
        let enforced = &self.revocations[..self.enforced];
        enforced.iter().any(|revocation| matches(revocation, token))
    }

    /// What is open at a pod is judged again at every bundle, and ends with its container.
    pub(crate) fn judge_streams(&mut self, number: usize) {
        if self.flaw == Flaw::StreamsGoOn {
            return;
        }
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain(|(at, token)| *at != number || self.is_accepted(number, *token));
        self.streams = streams;
    }

    fn judge(&mut self, number: usize, token: Token) -> Verdict {
        let verdict = self.judge_alone(number, token);
        if verdict != Verdict::UnknownKey || self.flaw == Flaw::UnknownKeyNotAsked {
            return verdict;
        }
        // Line 18: READ at the issuer's Service. One who cannot be asked is no authority.
        let asker_reaches = self.pods[number].reachable;
        let issuers: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| pod.is_issuer && pod.api_ready && pod.life == Life::Running && pod.reachable)
            .filter(|pod| pod.hostility == Hostility::None)
            .map(|pod| pod.number)
            .collect();
        if issuers.is_empty() || !asker_reaches {
            return Verdict::AskAgain;
        }
        let asked = issuers[self.random.below(issuers.len())];
        if !self.pods[asked].is_authority(self.time) && self.flaw != Flaw::UnconfirmedAuthority {
            return Verdict::AskAgain;
        }
        let Some(read) = self.pods[asked].held.clone() else {
            return Verdict::AskAgain;
        };
        let since = self.pods[number].last_asked;
        self.deliver(number, Some(&read));
        self.pods[number].last_asked = since;
        self.judge_alone(number, token)
    }

    fn judge_alone(&self, number: usize, token: Token) -> Verdict {
        let pod = &self.pods[number];
        let Some(held) = &pod.held else {
            return Verdict::AskAgain;
        };
        let Some(view) = held.key(token.key) else {
            let digest = servicechain_keys::ShortDigest::of(KeyPool::get().keys[token.key].kid());
            let revoked = held
                .bundle
                .revocations
                .iter()
                .any(|revocation| revocation.digest == digest);
            return match (revoked, held.keys.is_empty()) {
                (true, _) => Verdict::Refused,
                (false, true) => Verdict::AskAgain,
                (false, false) => Verdict::UnknownKey,
            };
        };
        let revoked = if self.flaw == Flaw::IssuedBeforeIgnored {
            revokes(held, Token { issued: 0, ..token })
        } else {
            revokes(held, token)
        };
        let expired = pod.clock(self.time) >= token.expiry;
        if revoked || expired || view.state == KeyState::Withdrawn {
            return Verdict::Refused;
        }
        Verdict::Accepted
    }

    pub(crate) fn is_accepted(&self, number: usize, token: Token) -> bool {
        self.judge_alone(number, token) == Verdict::Accepted
    }
}

/// As a verifier asks the bundle that it holds.
fn revokes(held: &Signed, token: Token) -> bool {
    let subject = subject_of(token.subject);
    let handles = [
        (RevocationKind::Issuer, ""),
        (RevocationKind::Sub, &subject),
        (RevocationKind::ClientId, &subject),
    ];
    handles
        .into_iter()
        .any(|(kind, value)| held.revokes(kind, value, token.issued))
}

/// As people mean it.
fn matches(revocation: &Revocation, token: Token) -> bool {
    let value = match revocation.kind {
        RevocationKind::Key => KeyPool::get().keys[token.key].kid().to_owned(),
        RevocationKind::Issuer => String::new(),
        _ => subject_of(token.subject),
    };
    revocation.digest == ShortDigest::of(&value)
        && (revocation.kind == RevocationKind::Key || token.issued <= revocation.issued_before.as_seconds())
}
