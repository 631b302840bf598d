//! Single rules of the publisher's decisions, each with the smallest world that can break it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use servicechain_keys::rotation::{
    Base, Decision, Desired, DesiredIssuer, Event, Heard, KeySource, ListedPod, Memory, NotStaged, Round,
    decide,
};
use servicechain_keys::{
    Algorithm, Answer, Bundle, ChainId, Digest, Generation, Held, IssuerKey, IssuerState, Jwk, KeyState,
    Nonce, NumericDate, Offer, OfferRefusal, Outcome, PodId, Policy, Revocation, RevocationKind, ShortDigest,
    SigningKey, Workload,
};

const START: u64 = 1_800_000_000;

fn chain() -> ChainId {
    ChainId::new("chain-1").unwrap()
}

fn pod(name: &str) -> PodId {
    PodId::new(name).unwrap()
}

fn key(kid: &str) -> Jwk {
    SigningKey::generate(Algorithm::EdDSA)
        .unwrap()
        .public_jwk()
        .clone()
        .with_kid(kid)
}

fn desired(keys: KeySource) -> Desired {
    Desired {
        chain: chain(),
        policy: Policy {
            clock_skew: Duration::from_secs(30),
            max_token_bytes: 8192,
            max_token_lifetime: Duration::from_hours(24),
            required_claims: Vec::new(),
        },
        issuers: vec![DesiredIssuer {
            name: "one".to_owned(),
            iss: "https://one.test".to_owned(),
            audiences: vec!["shop".to_owned()],
            token_types: vec!["at+jwt".to_owned()],
            scopes_claim: "scope".to_owned(),
            max_token_lifetime: None,
            keys,
        }],
        revocations: Vec::new(),
        rotate_keys_before: None,
    }
}

fn external(keys: Option<&[&Jwk]>) -> Desired {
    let answer = keys.map(|keys| keys.iter().map(|key| (*key).clone()).collect());
    desired(KeySource::External {
        answer,
        withdrawn_key_grace: Duration::from_mins(10),
    })
}

fn managed() -> Desired {
    managed_with(Algorithm::EdDSA)
}

fn managed_with(algorithm: Algorithm) -> Desired {
    desired(KeySource::Managed {
        algorithm,
        token_lifetime: Duration::from_mins(15),
        rotation_period: Duration::from_hours(2),
        publish_ahead: Duration::ZERO,
    })
}

/// One leader, one issuer pod, one gateway pod; everybody answers and holds what is newest.
struct World {
    memory: Memory,
    bundle: Option<Bundle>,
    now: u64,
    offers: Vec<Jwk>,
    gateway_offers: Vec<Jwk>,
    stopped: BTreeMap<String, NumericDate>,
    issuer_is_there: bool,
    gateway_is_there: bool,
    /// So far the gateway pod's clock is behind.
    gateway_late: u64,
    /// So far every wall clock jumped ahead of time.
    jumped: u64,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self {
            memory: Memory::default(),
            bundle: None,
            now: START,
            offers: Vec::new(),
            gateway_offers: Vec::new(),
            stopped: BTreeMap::new(),
            issuer_is_there: true,
            gateway_is_there: true,
            gateway_late: 0,
            jumped: 0,
            events: Vec::new(),
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(&self.bundle).unwrap())
    }

    fn heard(&self, name: &str, offers: &[Jwk], stopped: BTreeMap<String, NumericDate>) -> Heard {
        let held = self.bundle.as_ref().map(|bundle| Held {
            generation: bundle.generation,
            digest: self.digest(),
        });
        Heard {
            answer: Answer {
                pod: pod(name),
                workload: Workload::new(name).unwrap(),
                held,
                outcome: Outcome::Unchanged,
                reason: None,
                durable: true,
                now: NumericDate::from_seconds(
                    self.now - if name == "gateway" { self.gateway_late } else { 0 },
                ),
                versions: vec![1],
                anchors: Vec::new(),
                offers: Vec::new(),
                stopped,
                refused: BTreeSet::new(),
                unconfirmed: false,
            },
            offers: offers.iter().cloned().map(Ok).collect(),
            claim_refuted: false,
        }
    }

    /// One round; true where it brought a bundle.
    fn round(&mut self, desired: &Desired) -> bool {
        let listed = |name: &str, issuer: Option<&str>| ListedPod {
            pod: pod(name),
            issuer: issuer.map(str::to_owned),
            addressed: true,
            runs: true,
            ready: true,
            ended: false,
        };
        let (mut pods, mut answers) = (Vec::new(), Vec::new());
        if self.gateway_is_there {
            pods.push(listed("gateway", None));
            answers.push(self.heard("gateway", &self.gateway_offers, BTreeMap::new()));
        }
        if self.issuer_is_there {
            pods.push(listed("one", Some("one")));
            answers.push(self.heard("one", &self.offers, self.stopped.clone()));
        }
        let asked: Vec<_> = pods.iter().map(|pod| pod.pod.clone()).collect();
        let round = Round {
            now: NumericDate::from_seconds(self.now),
            elapsed: Duration::from_secs(self.now - START - self.jumped),
            asked: &asked,
            answers: &answers,
            pods: &pods,
        };
        let digest = self.digest();
        let base = self.bundle.as_ref().map(|bundle| Base {
            bundle,
            digest,
            in_config_map: true,
            forked: false,
        });
        self.memory.read(self.bundle.as_ref().map(|_| "1"));
        self.memory.note(base, &round);
        let Decision { next, events } = decide(base, desired, &self.memory, &round);
        self.events = events;
        let moved = next.is_some();
        if let Some(next) = next {
            assert_eq!(
                next.generation.number(),
                self.bundle.as_ref().map_or(0, |old| old.generation.number()) + 1
            );
            self.memory.wrote("1");
            self.bundle = Some(next);
        }
        moved
    }

    fn settle(&mut self, desired: &Desired) {
        for _ in 0..10 {
            if !self.round(desired) {
                return;
            }
        }
        panic!("bundles without end");
    }

    fn keys(&self) -> &[IssuerKey] {
        &self.bundle.as_ref().unwrap().issuers[0].keys
    }

    fn state(&self, kid: &str) -> Option<KeyState> {
        self.keys()
            .iter()
            .find(|key| key.jwk.kid() == Some(kid))
            .map(|key| key.state)
    }
}

#[test]
fn the_first_bundle_names_issuers_without_keys() {
    let mut world = World::new();
    world.settle(&managed());
    let bundle = world.bundle.as_ref().unwrap();
    assert_eq!(
        (bundle.generation, bundle.issuers[0].state),
        (Generation::new(1), IssuerState::NoKeys)
    );
}

#[test]
fn an_absent_config_map_is_never_as_the_leader_left_it() {
    let mut memory = Memory::default();
    let pods = [ListedPod {
        pod: pod("gateway"),
        issuer: None,
        addressed: true,
        runs: true,
        ready: true,
        ended: false,
    }];
    let answers = [World::new().heard("gateway", &[], BTreeMap::new())];
    let (now, elapsed) = (NumericDate::from_seconds(START), Duration::ZERO);
    let asked = [pod("gateway")];
    let mut is_settled_after = |answers: &[Heard]| {
        memory.read(None);
        memory.note(
            None,
            &Round {
                now,
                elapsed,
                asked: &asked,
                answers,
                pods: &pods,
            },
        );
        memory.is_settled()
    };
    assert!(is_settled_after(&answers));
    assert!(
        !is_settled_after(&[]),
        "somebody may have created and lost it meanwhile"
    );
}

#[test]
fn nothing_is_published_while_nothing_changes() {
    let mut world = World::new();
    world.offers = vec![key("k1"), key("k2")];
    world.settle(&managed());
    world.now += 30;
    assert!(!world.round(&managed()));
}

#[test]
fn a_key_of_an_external_issuer_missing_from_a_good_answer_is_withdrawn_and_then_removed() {
    let (old, new) = (key("old"), key("new"));
    let mut world = World::new();
    world.settle(&external(Some(&[&old])));
    world.settle(&external(Some(&[&new])));
    assert_eq!(
        (world.state("old"), world.state("new")),
        (Some(KeyState::Withdrawn), Some(KeyState::Active))
    );
    world.now += 599;
    assert!(!world.round(&external(Some(&[&new]))));
    world.now += 1;
    world.settle(&external(None));
    assert_eq!(world.state("old"), None);
}

#[test]
fn a_withdrawn_key_that_comes_back_is_active_again() {
    let (old, new) = (key("old"), key("new"));
    let mut world = World::new();
    world.settle(&external(Some(&[&old])));
    world.settle(&external(Some(&[&new])));
    world.settle(&external(Some(&[&old, &new])));
    assert_eq!(world.state("old"), Some(KeyState::Active));
    assert!(world.keys().iter().all(|key| key.until.is_none()));
}

#[test]
fn a_failed_or_empty_answer_of_an_external_issuer_changes_nothing() {
    let old = key("old");
    let mut world = World::new();
    world.settle(&external(Some(&[&old])));
    for desired in [external(None), external(Some(&[]))] {
        world.now += 30;
        assert!(!world.round(&desired));
    }
}

#[test]
fn a_kid_given_to_another_key_names_that_key_alone() {
    let mut world = World::new();
    world.settle(&external(Some(&[&key("same")])));
    let second = key("same");
    world.settle(&external(Some(&[&second])));
    let keys: Vec<_> = world.keys().iter().map(|key| key.jwk.thumbprint()).collect();
    assert_eq!(keys, [second.thumbprint()]);
}

fn revocation(kind: RevocationKind, value: &str, expires: Option<u64>) -> Revocation {
    Revocation {
        issuer: "one".to_owned(),
        kind,
        digest: ShortDigest::of(value),
        issued_before: NumericDate::from_seconds(START),
        expires: expires.map(NumericDate::from_seconds),
    }
}

#[test]
fn a_revoked_key_of_an_external_issuer_comes_back_under_no_name() {
    let bad = key("bad");
    let mut world = World::new();
    world.settle(&external(Some(&[&bad])));
    let revoke = |keys: &[&Jwk]| Desired {
        revocations: vec![revocation(RevocationKind::Key, "bad", None)],
        ..external(Some(keys))
    };
    world.settle(&revoke(&[&bad]));
    assert!(world.keys().is_empty());
    world.settle(&revoke(&[&bad.clone().with_kid("innocent")]));
    assert!(world.keys().is_empty(), "the same key has another kid");
    assert_eq!(
        world.bundle.as_ref().unwrap().revocations.len(),
        2,
        "by kid and by thumbprint"
    );
}

#[test]
fn a_revocation_leaves_when_it_has_expired_unless_it_names_a_key() {
    let revocations = vec![
        revocation(RevocationKind::Sub, "mallory", Some(START + 100)),
        revocation(RevocationKind::Key, "bad", Some(START + 100)),
    ];
    let desired = Desired {
        revocations,
        ..external(Some(&[&key("good")]))
    };
    let mut world = World::new();
    world.settle(&desired);
    world.now += 100;
    assert!(!world.round(&desired));
    world.now += 1;
    world.settle(&desired);
    let kinds: Vec<_> = world
        .bundle
        .unwrap()
        .revocations
        .iter()
        .map(|revocation| revocation.kind)
        .collect();
    assert_eq!(kinds, [RevocationKind::Key]);
}

#[test]
fn an_order_to_rotate_waits_for_its_time_and_is_carried_out_once() {
    let mut world = World::new();
    world.offers = vec![key("k1"), key("k2")];
    world.settle(&managed());
    let order = Desired {
        rotate_keys_before: Some(NumericDate::from_seconds(START + 60)),
        ..managed()
    };
    world.now += 59;
    assert!(!world.round(&order));
    assert!(
        matches!(world.events.as_slice(), [Event::RotationNotYet { .. }]),
        "{:?}",
        world.events
    );
    world.now += 1;
    world.offers = vec![key("k2"), key("k3")];
    world.offers[0] = world.keys()[1].jwk.clone();
    world.settle(&order);
    assert_eq!(
        (world.state("k1"), world.state("k2")),
        (Some(KeyState::Retiring), Some(KeyState::Active))
    );
    world.now += 600;
    world.settle(&order);
    assert_eq!(
        world.state("k2"),
        Some(KeyState::Active),
        "the order was carried out before"
    );
}

#[test]
fn a_new_algorithm_is_a_rotation() {
    let mut world = World::new();
    world.offers = vec![key("k1"), key("k2")];
    world.settle(&managed());
    let elliptic = |kid: &str| {
        SigningKey::generate(Algorithm::ES256)
            .unwrap()
            .public_jwk()
            .clone()
            .with_kid(kid)
    };
    world.offers = vec![world.keys()[0].jwk.clone(), elliptic("e1"), elliptic("e2")];
    world.settle(&managed_with(Algorithm::ES256));
    assert_eq!(world.state("e1"), Some(KeyState::Active));
    assert_eq!(
        (world.state("k1"), world.state("k2")),
        (Some(KeyState::Retiring), Some(KeyState::Retiring))
    );
}

#[test]
fn a_key_that_its_owner_lost_makes_room_for_another() {
    let mut world = World::new();
    world.offers = vec![key("k1"), key("k2")];
    world.settle(&managed());
    world
        .stopped
        .insert("k1".to_owned(), NumericDate::from_seconds(START + 900));
    world.offers = vec![world.keys()[1].jwk.clone(), key("k3")];
    world.settle(&managed());
    let states = ["k1", "k2", "k3"].map(|kid| world.state(kid));
    assert_eq!(
        states,
        [
            Some(KeyState::Retiring),
            Some(KeyState::Active),
            Some(KeyState::Staged)
        ]
    );
    world.now = START + 900 + 30 + 60;
    world.settle(&managed());
    assert_eq!(
        world.state("k1"),
        Some(KeyState::Retiring),
        "its last token has not expired with certainty"
    );
    world.now += 1;
    world.settle(&managed());
    assert_eq!(world.state("k1"), None);
}

/// Whether a leader that finds a changed `ConfigMap` may decide, after rounds at these seconds in which the one pod was
/// asked, said nothing, and was listed like this.
fn is_settled_after_silence(rounds: &[(u64, ListedPod)]) -> bool {
    let mut memory = Memory::default();
    for (second, listed) in rounds {
        memory.read(Some(&second.to_string()));
        let round = Round {
            now: NumericDate::from_seconds(START),
            elapsed: Duration::from_secs(*second),
            asked: std::slice::from_ref(&listed.pod),
            answers: &[],
            pods: std::slice::from_ref(listed),
        };
        memory.note(None, &round);
    }
    memory.is_settled()
}

fn unready(addressed: bool, runs: bool) -> ListedPod {
    ListedPod {
        pod: pod("gateway"),
        issuer: None,
        addressed,
        runs,
        ready: false,
        ended: false,
    }
}

#[test]
fn a_restarting_container_is_waited_for_since_its_disk_may_hold_a_newer_bundle() {
    assert!(!is_settled_after_silence(&[(0, unready(true, false))]));
    let silent: Vec<_> = (0..4).map(|turn| (turn * 30, unready(true, false))).collect();
    assert!(is_settled_after_silence(&silent), "but not for ever");
}

#[test]
fn a_pod_that_started_late_is_not_taken_for_one_that_was_silent_long() {
    let mut rounds: Vec<_> = (0..4).map(|turn| (turn * 30, unready(false, false))).collect();
    assert!(
        is_settled_after_silence(&rounds),
        "without an address it never held anything"
    );
    rounds.push((100, unready(true, true)));
    assert!(!is_settled_after_silence(&rounds));
}

#[test]
fn a_vanished_pods_tokens_are_dated_by_its_own_clock() {
    let mut world = World::new();
    world.offers = vec![key("k1")];
    world.settle(&managed());
    // Its clock is an hour ahead when it is last heard.
    world.now += 3600;
    let ahead = world.heard("one", &world.offers, BTreeMap::new());
    world.now -= 3600;
    let asked = [pod("one")];
    let digest = world.digest();
    let base = world.bundle.as_ref().map(|bundle| Base {
        bundle,
        digest,
        in_config_map: true,
        forked: false,
    });
    let round = Round {
        now: NumericDate::from_seconds(world.now),
        elapsed: Duration::ZERO,
        asked: &asked,
        answers: &[ahead],
        pods: &[],
    };
    world.memory.note(base, &round);
    world.issuer_is_there = false;
    world.now += 600 + 900 + 90 + 2;
    world.settle(&managed());
    assert_eq!(world.state("k1"), Some(KeyState::Retiring));
    world.now += 3600;
    world.settle(&managed());
    assert_eq!(world.state("k1"), None);
}

#[test]
fn a_vanished_pod_is_given_ten_minutes_in_which_it_may_still_sign() {
    let mut world = World::new();
    world.offers = vec![key("k1")];
    world.settle(&managed());
    world.issuer_is_there = false;
    world.settle(&managed());
    world.now += 600 + 900 + 90;
    world.settle(&managed());
    assert_eq!(world.state("k1"), Some(KeyState::Retiring));
    world.now += 1;
    world.settle(&managed());
    assert_eq!(world.state("k1"), None);
}

#[test]
fn a_jump_of_all_clocks_does_not_shorten_the_wait_for_a_vanished_pod() {
    let mut world = World::new();
    world.offers = vec![key("k1")];
    world.settle(&managed());
    world.issuer_is_there = false;
    world.settle(&managed());
    world.jumped = 86_400;
    world.now += world.jumped;
    world.settle(&managed());
    assert_eq!(world.state("k1"), Some(KeyState::Retiring));
}

#[test]
fn a_verifier_whose_clock_is_late_delays_every_removal() {
    let mut world = World::new();
    world.offers = vec![key("k1")];
    world.settle(&managed());
    world.issuer_is_there = false;
    world.settle(&managed());
    world.gateway_late = 3600;
    world.now += 600 + 900 + 90 + 3600;
    world.settle(&managed());
    assert_eq!(world.state("k1"), Some(KeyState::Retiring));
    world.now += 1;
    world.settle(&managed());
    assert_eq!(world.state("k1"), None);
}

#[test]
fn nothing_is_removed_by_the_operators_clock_alone() {
    let mut world = World::new();
    world.offers = vec![key("k1")];
    world.settle(&managed());
    world.issuer_is_there = false;
    world.gateway_is_there = false;
    world.settle(&managed());
    world.now += 86_400;
    assert!(!world.round(&managed()));
    world.gateway_is_there = true;
    world.settle(&managed());
    assert_eq!(world.state("k1"), None);
}

#[test]
fn offers_that_break_a_rule_are_refused_by_name() {
    let refused = |world: &World| -> Vec<String> {
        let reason = |event: &Event| match event {
            Event::OfferRefused { reason, .. } => Some(format!("{reason:?}")),
            _ => None,
        };
        world.events.iter().filter_map(reason).collect()
    };
    let mut world = World::new();
    world.offers = vec![key("k1"), key("k2"), key("k3")];
    world.round(&managed());
    assert_eq!(refused(&world), ["TooManyOfPod"]);
    world.offers.clear();
    world.gateway_offers = vec![key("g1")];
    world.round(&managed());
    assert_eq!(refused(&world), ["NotAnIssuerPod"]);
    world.gateway_offers.clear();
    world.offers = vec![key("k1")];
    let revocations = vec![revocation(RevocationKind::Key, "k1", None)];
    world.round(&Desired {
        revocations,
        ..managed()
    });
    assert!(refused(&world).contains(&"Revoked".to_owned()));
}

#[test]
fn an_offer_is_proved_by_the_offered_key_over_this_nonce_chain_and_pod() {
    let signing = SigningKey::generate(Algorithm::EdDSA).unwrap();
    let nonce = Nonce::new([1; 16]);
    let answer = |offer: Offer| Answer {
        offers: vec![offer],
        ..World::new().heard("one", &[], BTreeMap::new()).answer
    };
    let offer = |nonce: Nonce, name: &str| Offer::new(&signing, &nonce, &chain(), &pod(name)).unwrap();
    let heard = |offer: Offer, algorithm| Heard::new(answer(offer), algorithm, &nonce, &chain()).offers;
    assert!(heard(offer(nonce, "one"), Some(Algorithm::EdDSA))[0].is_ok());
    let refused = [
        heard(offer(Nonce::new([2; 16]), "one"), Some(Algorithm::EdDSA)),
        heard(offer(nonce, "two"), Some(Algorithm::EdDSA)),
        heard(offer(nonce, "one"), None),
    ];
    for offers in refused {
        assert_eq!(
            NotStaged::from(*offers[0].as_ref().unwrap_err()),
            NotStaged::Refused(OfferRefusal::Proof)
        );
    }
}
