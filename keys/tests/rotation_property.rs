//! A simulated world drives the publisher's real decisions through random interleavings of the crash points a to m of the
//! key protocol, and looks at the invariants I1 to I9 after every step.
//!
//! A failing case prints its seed; `ROTATION_SEED=<seed> cargo test -p servicechain-keys --test rotation_property`
//! runs that case alone and prints what happened in it.
//!
//! Which event of the world is which crash point:
//!
//! | crash point | event |
//! | --- | --- |
//! | a, b: around the REPLACE | a leader dies or falls asleep between any two of its steps (`kill_leader`, `put_leader_to_sleep`); a REPLACE that fails, or whose answer is lost (`replace`) |
//! | c, d: before and after Active | the same, and answers that are lost (`ask`) |
//! | e: an issuer switched, nobody heard of it | a push that arrives and whose answer does not (`ask`, `deliver_late`) |
//! | f: a revocation that no bundle has | `revoke`: of a key, a subject, a client, or all that was issued before a time past or to come |
//! | g: a pod between swap, fsync and answer | `Dies` in `deliver`; `break_or_mend_disk` |
//! | h: an issuer's container | `crash_container` |
//! | i: an issuer's pod | `end_pod`: deleted, ended, or cut off with its node and running on |
//! | j: etcd | `restore_etcd`: an older `ConfigMap`, or none |
//! | k: the trust key | that what another key signed is taken by nobody (`deliver_forged`). Anchors come with a rollout, which is not this crate's: `e2e/tests/keys_on_api_server/trust_rotation.rs` |
//! | l: a slept leader | `put_leader_to_sleep`, with one to three leaders |
//! | m: an address that is used again | `create_pod` takes a free address; what was meant for another pod arrives there (`ask`, `deliver_late`) |
//!
//! Stale files and starts that nobody confirms: `create_pod`, `refresh_file`, `advance_pod`. Stale caches: what a leader has
//! read stays what it decides by, however long it sleeps; the `Flaw`s read from caches. Scale: `create_pod`, `end_pod`.
//! Laggards: `cut_or_heal`, `break_or_mend_disk`. Clocks: `jump_clock`, of leaders and pods, up to a year. Hostile answers:
//! `Hostility`, `forged_answer`; hostile bundles: `deliver_forged` (another key, another chain), `deliver_replayed`. What is
//! open for a caller, and what issuers grant, is looked at as what they accept is: `judge_streams`, `sign_token`.
//!
//! What is mutated, and what catches it. Mistakes of pods, issuers and of the order of a round are `flaw::Flaw`s, and
//! `every_built_in_flaw_violates_its_invariant` looks for each. Mistakes in `keys::rotation` were made by hand:
//!
//! | mutant of `keys::rotation` | caught by |
//! | --- | --- |
//! | Active before everyone has the key; counted without `durable`; a generation counts without its digest | I3 |
//! | what only pods hold settles | I3 |
//! | decided before everybody was heard; a claim that was not read counts as heard | I1 |
//! | a foreign version of the `ConfigMap` goes unnoticed; the oldest bundle is the base | I9 |
//! | removed though a clock was not heard; without slack; as soon as stopped; by the operator's clock; by the latest clock; at once when gone | I4 |
//! | Retiring is removed at once | I4 |
//! | a revoked key stays; a pod is left out at once | I6 |
//! | offers of other workloads are staged | I7 |
//! | a lost key keeps its place; an order to rotate is ignored; stamps from the future stay; revocations are left out of every other bundle | I9 |
//! | a kind of revocation is left out | I9 |
//! | what was issued at the very time of a revocation counts as later (`revocation_index`) | I6 |
//! | the waits for a vanished pod, a late verifier, the operator's clock alone, the previous key's retirement, the next generation, an absent `ConfigMap` taken as known | `rotation_rules` |

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

#[path = "rotation_property/answers.rs"]
mod answers;
#[path = "rotation_property/calm.rs"]
mod calm;
#[path = "rotation_property/faults.rs"]
mod faults;
#[path = "rotation_property/flaw.rs"]
mod flaw;
#[path = "rotation_property/invariants.rs"]
mod invariants;
#[path = "rotation_property/leader.rs"]
mod leader;
#[path = "rotation_property/pod.rs"]
mod pod;
#[path = "rotation_property/random.rs"]
mod random;
#[path = "rotation_property/signed.rs"]
mod signed;
#[path = "rotation_property/world.rs"]
mod world;

use std::hash::{BuildHasher, RandomState};

use flaw::Flaw;
use random::Random;
use world::{Violation, World};

const CASES: usize = 10_000;
/// So long is searched for a mistake that shows rarely.
const RARE_CASES: usize = 4 * CASES;
const REALLY_SIGNED_CASES: usize = 200;
const STEPS: usize = 150;

/// From the environment, else fresh: every run looks elsewhere.
fn given_seed() -> Option<u64> {
    given("ROTATION_SEED")
}

/// `ROTATION_CASES` asks for a longer search.
fn cases() -> usize {
    given("ROTATION_CASES").unwrap_or(CASES)
}

fn given<N: std::str::FromStr>(name: &str) -> Option<N> {
    let text = std::env::var_os(name)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    assert!(number.is_some(), "{name} is not a decimal number");
    number
}

fn run(seed: u64, flaw: Flaw, real: bool, traced: bool) -> World {
    let mut world = World::new(seed, flaw, real, traced);
    for _ in 0..3 {
        world.create_pod();
    }
    for _ in 0..STEPS {
        world.step();
        if world.violation.is_some() {
            return world;
        }
    }
    world.calm_down();
    world
}

fn search(base: u64, cases: usize, flaw: Flaw, real: bool) -> Option<(u64, Violation)> {
    let mut seeds = Random::new(base);
    (0..cases).find_map(|_| {
        let seed = seeds.next();
        run(seed, flaw, real, false)
            .violation
            .map(|violation| (seed, violation))
    })
}

fn expect_no_violation(cases: usize, real: bool) {
    if let Some(seed) = given_seed() {
        let world = run(seed, Flaw::None, real, true);
        println!("{}", world.happened.unwrap_or_default().join("\n"));
        if let Some(Violation { invariant, what }) = world.violation {
            panic!("{invariant}: {what}");
        }
        return;
    }
    let base = RandomState::new().hash_one("rotation");
    println!("{cases} cases from seed {base}");
    if let Some((seed, Violation { invariant, what })) = search(base, cases, Flaw::None, real) {
        let happened = run(seed, Flaw::None, real, true).happened.unwrap_or_default();
        panic!(
            "{}\n{invariant}: {what}\nROTATION_SEED={seed} runs this case again",
            happened.join("\n")
        );
    }
}

#[test]
fn no_interleaving_violates_an_invariant() {
    expect_no_violation(cases(), false);
}

#[test]
fn no_interleaving_violates_an_invariant_with_real_signatures() {
    expect_no_violation(REALLY_SIGNED_CASES, true);
}

/// The search is only worth something if it finds mistakes: each of these is found, and by the invariant it violates.
#[test]
fn every_built_in_flaw_violates_its_invariant() {
    let flaws: [(Flaw, &[&str]); 18] = [
        (Flaw::LowerTaken, &["I2"]),
        (Flaw::AcknowledgedBeforeFsync, &["I2"]),
        (Flaw::SignsWithStaged, &["I3"]),
        (Flaw::StoppedKeysForgotten, &["I4"]),
        (Flaw::PushedBeforeReplace, &["I1"]),
        (Flaw::WrittenWithoutVersion, &["I1"]),
        (Flaw::StaleDesired, &["I6"]),
        (Flaw::StaleList, &["I1", "I3"]),
        (Flaw::ForgedAnswersBelieved, &["I7", "I3"]),
        (Flaw::ProofsNotChecked, &["I7"]),
        (Flaw::KnocksAnsweredFromMemory, &["I3", "I6"]),
        (Flaw::UnconfirmedAuthority, &["I5"]),
        (Flaw::UnknownKeyNotAsked, &["I5"]),
        (Flaw::NothingAdopted, &["I9"]),
        (Flaw::StreamsGoOn, &["I6"]),
        (Flaw::RevokedAreGranted, &["I6"]),
        (Flaw::IssuedBeforeIgnored, &["I6"]),
        (Flaw::SilentOperatorStopsIssuers, &["I8", "I9"]),
    ];
    for (flaw, invariants) in flaws {
        let found = search(1, RARE_CASES, flaw, false);
        println!("{flaw:?}: {found:?}");
        let Some((_, Violation { invariant, .. })) = found else {
            panic!("{flaw:?} was not found")
        };
        assert!(
            invariants.contains(&invariant),
            "{flaw:?} was found by {invariant}"
        );
    }
}
