//! The cache of verdicts follows the bundle: it never says what verifying afresh would not say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use servicechain_auth::rejected::{TokenFault, Unavailable};
use servicechain_auth::specimen::{ISSUER_NAME, Specimen, active_key, bearing, new_key, sign_claims};
use servicechain_auth::{CacheLimits, Caller, Hop, Judged, Rejected, Verifier, verify};
use servicechain_keys::{
    Algorithm, Bundle, Generation, HeldBundle, KeyState, NumericDate, RequiredClaim, Revocation,
    RevocationKind, ShortDigest,
};

struct Case {
    chain: Specimen,
    verifier: Arc<Verifier>,
    bundle: Bundle,
}

impl Case {
    fn new() -> Self {
        let chain = Specimen::new();
        Self {
            verifier: chain.verifier(),
            bundle: chain.bundle(),
            chain,
        }
    }

    /// Publishes the bundle as it is now, as the next generation.
    fn publish(&mut self) {
        self.bundle.generation = self.bundle.generation.next();
        self.verifier.hold(self.chain.sign(&self.bundle));
    }

    fn judge(&self, token: &str) -> Result<Caller, Rejected> {
        match self.verifier.judge(&bearing(token)) {
            Judged::Verified(caller) => Ok(caller),
            Judged::Rejected(rejected) => Err(rejected),
            Judged::UnknownKey(_) => Err(Unavailable::UnknownKey.into()),
            Judged::Absent => Err(Rejected::NoToken),
        }
    }

    fn token_of(&self, subject: &str) -> String {
        let mut claims = self.chain.claims();
        claims.insert("sub".into(), subject.into());
        self.chain.token_with(&claims)
    }

    /// How often a signature was checked with success, and how often the cache knew.
    fn counts(&self) -> (u64, u64) {
        (
            self.verifier.counters().verified.get(),
            self.verifier.counters().cache_hits.get(),
        )
    }
}

fn revocation(subject: &str, issued_before: NumericDate) -> Revocation {
    Revocation {
        issuer: ISSUER_NAME.into(),
        kind: RevocationKind::Sub,
        digest: ShortDigest::of(subject),
        issued_before,
        expires: None,
    }
}

#[test]
fn a_token_is_verified_once() {
    let case = Case::new();
    let token = case.chain.token();
    for _ in 0..3 {
        assert_eq!(case.judge(&token).unwrap().subject(), "alice");
    }
    assert_eq!(case.counts(), (1, 2));
}

#[test]
fn adding_a_key_flushes_nothing() {
    let mut case = Case::new();
    let token = case.chain.token();
    case.judge(&token).unwrap();
    let added = new_key(Algorithm::ES256);
    case.bundle.issuers[0].keys.push(active_key(&added));
    case.publish();
    let caller = case.judge(&token).unwrap();
    assert_eq!(caller.generation(), Generation::new(2));
    assert_eq!(case.counts(), (1, 1));
    assert!(case.judge(&sign_claims(&added, &case.chain.claims())).is_ok());
}

#[test]
fn removing_a_key_ends_exactly_its_tokens() {
    let mut case = Case::new();
    let second = new_key(Algorithm::ES256);
    case.bundle.issuers[0].keys.push(active_key(&second));
    case.publish();
    let (first_token, second_token) = (case.chain.token(), sign_claims(&second, &case.chain.claims()));
    case.judge(&first_token).unwrap();
    case.judge(&second_token).unwrap();
    case.bundle.issuers[0].keys.pop();
    case.publish();
    assert_eq!(
        case.judge(&second_token).unwrap_err(),
        Unavailable::UnknownKey.into()
    );
    assert!(case.judge(&first_token).is_ok());
    assert_eq!(case.counts(), (2, 1));
}

#[test]
fn another_key_of_the_same_name_ends_the_tokens_of_the_first() {
    let mut case = Case::new();
    let token = case.chain.token();
    case.judge(&token).unwrap();
    let mut impostor = active_key(&new_key(Algorithm::ES256));
    impostor.jwk = impostor.jwk.with_kid(case.chain.key.kid());
    case.bundle.issuers[0].keys = vec![impostor];
    case.publish();
    assert_eq!(case.judge(&token).unwrap_err(), TokenFault::Signature.into());
}

#[test]
fn a_withdrawn_key_ends_its_cached_tokens_with_its_grace() {
    let mut case = Case::new();
    let token = case.chain.token();
    case.judge(&token).unwrap();
    case.bundle.issuers[0].keys[0].state = KeyState::Withdrawn;
    case.bundle.issuers[0].keys[0].until = Some(case.chain.now().plus(Duration::from_mins(1)));
    case.publish();
    case.judge(&token).unwrap();
    case.chain.advance(Duration::from_secs(59));
    case.judge(&token).unwrap();
    case.chain.advance(Duration::from_secs(1));
    assert_eq!(case.judge(&token).unwrap_err(), Unavailable::UnknownKey.into());
}

#[test]
fn a_revocation_ends_exactly_its_subject() {
    let mut case = Case::new();
    let (alice, bob) = (case.token_of("alice"), case.token_of("bob"));
    case.judge(&alice).unwrap();
    case.judge(&bob).unwrap();
    case.bundle
        .revocations
        .push(revocation("alice", case.chain.now()));
    case.publish();
    assert_eq!(case.judge(&alice).unwrap_err(), TokenFault::Revoked.into());
    assert!(case.judge(&bob).is_ok());
    assert_eq!(case.counts(), (2, 1));
    // Deleting the revocation un-revokes.
    case.bundle.revocations.clear();
    case.publish();
    assert!(case.judge(&alice).is_ok());
}

#[test]
fn every_change_of_policy_or_issuer_is_seen_by_cached_tokens() {
    type Change = fn(&mut Bundle);
    let changes: [(&str, Change, Rejected); 7] = [
        (
            "audience",
            |bundle| bundle.issuers[0].audiences = vec!["other".into()],
            TokenFault::Audience.into(),
        ),
        (
            "type",
            |bundle| bundle.issuers[0].token_types = vec!["JWT".into()],
            TokenFault::TokenType.into(),
        ),
        (
            "iss",
            |bundle| bundle.issuers[0].iss.push('x'),
            TokenFault::UnknownIssuer.into(),
        ),
        (
            "policy lifetime",
            |bundle| bundle.policy.max_token_lifetime = Duration::from_mins(1),
            TokenFault::LivesTooLong.into(),
        ),
        (
            "issuer lifetime",
            |bundle| bundle.issuers[0].max_token_lifetime = Some(Duration::from_mins(1)),
            TokenFault::LivesTooLong.into(),
        ),
        (
            "size",
            |bundle| bundle.policy.max_token_bytes = 100,
            TokenFault::TooLarge.into(),
        ),
        (
            "required claim",
            |bundle| {
                bundle.policy.required_claims = vec![RequiredClaim {
                    name: "x".into(),
                    values: vec![],
                }];
            },
            TokenFault::RequiredClaim.into(),
        ),
    ];
    for (name, change, expected) in changes {
        let mut case = Case::new();
        let token = case.chain.token();
        case.judge(&token).unwrap();
        change(&mut case.bundle);
        case.publish();
        assert_eq!(case.judge(&token).unwrap_err(), expected, "{name}");
    }
}

#[test]
fn scopes_follow_the_claim_the_bundle_names() {
    let mut case = Case::new();
    let mut claims = case.chain.claims();
    claims.insert("roles".into(), json!(["admin"]));
    let token = case.chain.token_with(&claims);
    assert_eq!(
        case.judge(&token).unwrap().scopes(),
        ["items:read", "items:write"]
    );
    case.bundle.issuers[0].scopes_claim = "roles".into();
    case.publish();
    assert_eq!(case.judge(&token).unwrap().scopes(), ["admin"]);
}

#[test]
fn a_cached_token_ends_at_its_expiry_and_skew() {
    let case = Case::new();
    let token = case.chain.token();
    case.judge(&token).unwrap();
    case.chain.advance(Duration::from_secs(900 + 29));
    case.judge(&token).unwrap();
    case.chain.advance(Duration::from_secs(1));
    assert_eq!(case.judge(&token).unwrap_err(), TokenFault::Expired.into());
}

#[test]
fn a_cached_token_ends_when_less_time_is_left_than_the_hop_asks_for() {
    let chain = Specimen::new();
    let mut hop = Hop::new("a");
    hop.minimum_remaining = Duration::from_secs(10);
    let verifier = Verifier::new(chain.config(hop));
    verifier.hold(chain.sign(&chain.bundle()));
    let headers = bearing(&chain.token());
    assert!(matches!(verifier.judge(&headers), Judged::Verified(_)));
    chain.advance(Duration::from_secs(890));
    assert!(matches!(verifier.judge(&headers), Judged::Verified(_)));
    chain.advance(Duration::from_secs(1));
    let Judged::Rejected(rejected) = verifier.judge(&headers) else {
        panic!("passed too late")
    };
    assert_eq!(rejected, TokenFault::ExpiresTooSoon.into());
}

#[test]
fn a_smaller_skew_is_seen_by_cached_tokens() {
    let mut case = Case::new();
    let token = case.chain.token();
    case.judge(&token).unwrap();
    case.bundle.policy.clock_skew = Duration::ZERO;
    case.publish();
    case.judge(&token).unwrap();
    case.chain.advance(Duration::from_mins(15));
    assert_eq!(case.judge(&token).unwrap_err(), TokenFault::Expired.into());
}

#[test]
fn a_caller_is_judged_again_when_somebody_asks() {
    let mut case = Case::new();
    let caller = case.judge(&case.chain.token()).unwrap();
    assert!(matches!(case.verifier.judge_again(&caller), Judged::Verified(_)));
    case.bundle
        .revocations
        .push(revocation("alice", case.chain.now()));
    case.publish();
    assert!(matches!(
        case.verifier.judge_again(&caller),
        Judged::Rejected(Rejected::Token(TokenFault::Revoked))
    ));
}

#[test]
fn an_older_bundle_never_replaces_a_newer() {
    let mut case = Case::new();
    let old = case.chain.sign(&case.bundle);
    case.bundle
        .revocations
        .push(revocation("alice", case.chain.now()));
    case.publish();
    case.verifier.hold(old);
    assert_eq!(case.verifier.generation(), Generation::new(2));
    assert_eq!(
        case.judge(&case.chain.token()).unwrap_err(),
        TokenFault::Revoked.into()
    );
}

#[test]
fn the_cache_is_bounded_by_count_and_by_bytes() {
    let chain = Specimen::new();
    let fill = |limits: CacheLimits| {
        let mut config = chain.config(Hop::new("a"));
        config.cache = limits;
        let verifier = Verifier::new(config);
        verifier.hold(chain.sign(&chain.bundle()));
        for number in 0..200 {
            let mut claims = chain.claims();
            claims.insert("jti".into(), number.to_string().into());
            assert!(matches!(
                verifier.judge(&bearing(&chain.token_with(&claims))),
                Judged::Verified(_)
            ));
        }
        verifier.cached_tokens()
    };
    let by_count = fill(CacheLimits {
        tokens: 50,
        bytes: 1 << 30,
    });
    assert!((1..=50).contains(&by_count), "{by_count} tokens where 50 may be");
    let by_bytes = fill(CacheLimits {
        tokens: 10_000,
        bytes: 100_000,
    });
    // Each takes more than a kibibyte and its own bytes.
    let most = 100_000 / (1024 + chain.token().len());
    assert!(
        (1..=most).contains(&by_bytes),
        "{by_bytes} tokens where {most} may be"
    );
    assert_eq!(
        fill(CacheLimits {
            tokens: 0,
            bytes: 1 << 30
        }),
        0
    );
}

/// Many threads verify while the subject is revoked and the revocation lifted again. Once `hold` has returned, no
/// judgement that begins afterwards may go by the older bundle, and nothing judged by it may stay in the cache.
#[test]
fn no_judgement_after_a_swap_goes_by_the_older_bundle() {
    let mut case = Case::new();
    for round in 0..60 {
        let tokens: Vec<_> = (0..8).map(|_| case.chain.token()).collect();
        let (is_revoked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        case.bundle
            .revocations
            .push(revocation("alice", case.chain.now()));
        case.bundle.generation = case.bundle.generation.next();
        let revoking = case.chain.sign(&case.bundle);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (case, tokens, is_revoked, is_over) = (&case, &tokens, &is_revoked, &is_over);
                scope.spawn(move || {
                    for turn in 0.. {
                        let was_revoked = is_revoked.load(Ordering::SeqCst);
                        let verdict = case.judge(&tokens[(turn + thread) % tokens.len()]);
                        assert!(
                            !(was_revoked && verdict.is_ok()),
                            "round {round}: accepted after its revocation"
                        );
                        if is_over.load(Ordering::SeqCst) {
                            return;
                        }
                    }
                });
            }
            case.verifier.hold(revoking);
            is_revoked.store(true, Ordering::SeqCst);
            for token in &tokens {
                assert_eq!(case.judge(token).unwrap_err(), TokenFault::Revoked.into());
            }
            is_over.store(true, Ordering::SeqCst);
        });
        case.bundle.revocations.clear();
        case.publish();
    }
}

/// The clock is read while a token is judged: here it swaps the bundle at that very moment, so that what comes out
/// would be by the older one.
#[test]
fn a_swap_in_the_midst_of_a_judgement_decides_it() {
    for is_cached in [false, true] {
        let mut case = Case::new();
        let midst = Arc::new(Mutex::new(None::<(Arc<Verifier>, Arc<HeldBundle>)>));
        let mut config = case.chain.config(Hop::new("a"));
        let (clock, swap) = (Arc::clone(&config.clock), Arc::clone(&midst));
        config.clock = Arc::new(move || {
            let swap = swap.lock().unwrap().take();
            if let Some((verifier, bundle)) = swap {
                verifier.hold(bundle);
            }
            clock()
        });
        case.verifier = Verifier::new(config);
        case.verifier.hold(case.chain.sign(&case.bundle));
        let token = case.chain.token();
        if is_cached {
            case.judge(&token).unwrap();
        }
        case.bundle
            .revocations
            .push(revocation("alice", case.chain.now()));
        case.bundle.generation = case.bundle.generation.next();
        let revoking = case.chain.sign(&case.bundle);
        *midst.lock().unwrap() = Some((Arc::clone(&case.verifier), revoking));
        assert_eq!(
            case.judge(&token).unwrap_err(),
            TokenFault::Revoked.into(),
            "cached: {is_cached}"
        );
        assert_eq!(case.verifier.generation(), case.bundle.generation);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Judge(usize),
    Revoke(usize),
    UnrevokeAll,
    AddKey,
    RemoveKey,
    ChangeLifetime(u64),
    ChangeSkew(u64),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_usize).prop_map(Step::Judge),
        1 => (0..3_usize).prop_map(Step::Revoke),
        1 => Just(Step::UnrevokeAll),
        1 => Just(Step::AddKey),
        1 => Just(Step::RemoveKey),
        1 => prop_oneof![Just(60_u64), Just(3600)].prop_map(Step::ChangeLifetime),
        1 => (0..60_u64).prop_map(Step::ChangeSkew),
        2 => (0..400_u64).prop_map(Step::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whatever order, a verdict with the cache is the verdict without it.
    #[test]
    fn the_cache_changes_no_verdict(steps in proptest::collection::vec(step(), 1..60)) {
        let mut case = Case::new();
        let second = new_key(Algorithm::ES256);
        let subjects = ["alice", "bob", "carol"];
        let tokens: Vec<_> = (0..6).map(|number| {
            let mut claims = case.chain.claims();
            claims.insert("sub".into(), subjects[number % 3].into());
            sign_claims(if number < 3 { &case.chain.key } else { &second }, &claims)
        }).collect();
        for step in steps {
            match step {
                Step::Judge(number) => {
                    let held = case.verifier.held().unwrap();
                    let afresh = verify(&tokens[number], &held, &Hop::new("gateway"), case.chain.now());
                    let cached = case.judge(&tokens[number]);
                    let seen = |caller: Caller| (caller.to_string(), caller.generation(), caller.scopes().to_vec());
                    prop_assert_eq!(cached.map(seen), afresh.map(seen));
                    continue;
                }
                Step::Revoke(number) => {
                    case.bundle.revocations.push(revocation(subjects[number], case.chain.now()));
                }
                Step::UnrevokeAll => case.bundle.revocations.clear(),
                Step::AddKey if case.bundle.issuers[0].keys.len() < 2 => {
                    case.bundle.issuers[0].keys.push(active_key(&second));
                }
                Step::RemoveKey => case.bundle.issuers[0].keys.truncate(1),
                Step::AddKey => {}
                Step::ChangeLifetime(seconds) => {
                    case.bundle.policy.max_token_lifetime = Duration::from_secs(seconds);
                }
                Step::ChangeSkew(seconds) => case.bundle.policy.clock_skew = Duration::from_secs(seconds),
                Step::Advance(seconds) => case.chain.advance(Duration::from_secs(seconds)),
            }
            case.publish();
        }
    }
}
