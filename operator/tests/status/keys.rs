//! Who holds the newest keys, who does not, and what a leader says that knows nothing yet.

use serde_json::json;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{BundleRefusal, Digest, Generation, KeyState as StateOfKey, NumericDate, PodId};
use servicechain_operator::key_controller::KeyState;
use servicechain_operator::key_controller::state::{Falsehood, Laggard};

use crate::world::{World, entry, read};

fn laggard(pod: &str, reason: LaggardReason) -> Laggard {
    Laggard {
        name: pod.to_owned(),
        pod: PodId::new(pod).unwrap(),
        generation: Some(Generation::new(6)),
        reason,
        falsehood: None,
        since: NumericDate::from_seconds(1_767_225_600),
    }
}

fn lagging(world: &mut World, laggards: Vec<Laggard>) {
    let keys = world.keys.as_mut().unwrap();
    keys.acknowledged = keys.verifiers - laggards.len();
    keys.in_sync = false;
    keys.laggards = laggards;
}

#[test]
fn before_the_first_bundle_nothing_is_ready_and_nothing_is_wrong() {
    let mut world = World::ready();
    world.keys = None;
    world.observed.deployments.clear();
    world.observed.stateful_sets.clear();
    let judged = world.judged();
    for kind in [
        "GatewayReady",
        "ServicesReady",
        "StoresReady",
        "KeysInSync",
        "Ready",
    ] {
        assert_eq!(&judged.says(kind).1, &"NoBundleYet", "{kind}");
    }
    assert_eq!(judged.says("Progressing").1, "NoBundleYet");
    assert_eq!(judged.says("Degraded").0, "False");
    assert_eq!(judged.0.summary.unwrap().keys, "-");
}

#[test]
fn a_leader_that_knows_nothing_yet_says_what_was_said() {
    let mut world = World::ready();
    lagging(
        &mut world,
        vec![laggard("shop-b-7d9f-x1", LaggardReason::NotDurable)],
    );
    let said = world.judged().0;
    world.chain.status = Some(said.clone());
    for unknown in [None, Some(KeyState::default())] {
        world.keys = unknown;
        let now = world.judged().0;
        assert_eq!(now.keys, said.keys);
        assert_eq!(now.summary, said.summary);
        let condition = |status: &servicechain_crds::service_chain::status::ServiceChainStatus| {
            status
                .conditions
                .iter()
                .find(|one| one.type_ == "KeysInSync")
                .cloned()
        };
        assert_eq!(condition(&now), condition(&said));
        assert_eq!(now.issuers[0].state, "Signing");
    }
}

#[test]
fn a_verifier_that_is_not_believed_is_named_whatever_it_says() {
    for (falsehood, reason, why, word) in [
        (
            Falsehood::NotAuthentic,
            LaggardReason::Unreachable,
            "an answer in its name is not sealed with its key",
            "NotAuthentic",
        ),
        // It answers, and would be taken for one that is just being told.
        (
            Falsehood::Claim,
            LaggardReason::Behind,
            "it says that it holds a bundle which it does not hold",
            "ClaimRefuted",
        ),
    ] {
        let mut world = World::ready();
        let liar = Laggard {
            falsehood: Some(falsehood),
            ..laggard("shop-b-7d9f-x1", reason)
        };
        lagging(&mut world, vec![liar]);
        let judged = world.judged();
        let (status, reason, message) = judged.says("KeysInSync");
        assert_eq!((status, reason), ("False", "Laggards"));
        let said = format!("shop-b-7d9f-x1 is not believed ({why}");
        assert!(message.starts_with(&said), "{message}");
        assert_eq!(judged.0.keys.unwrap().laggards[0].reason, word);
    }
}

#[test]
fn a_verifier_that_should_hold_the_newest_keys_is_named() {
    for (reason, why, word) in [
        (
            LaggardReason::Unreachable,
            "does not answer on its keys port",
            "Unreachable",
        ),
        (
            LaggardReason::Refuses(BundleRefusal::Anchor),
            "refuses the newest keys (signed by a key that is no trust anchor here)",
            "Refuses",
        ),
        (
            LaggardReason::NotDurable,
            "cannot keep the newest keys on its disk",
            "NotDurable",
        ),
    ] {
        let mut world = World::ready();
        lagging(&mut world, vec![laggard("shop-b-7d9f-x1", reason)]);
        let judged = world.judged();
        judged.names(
            "KeysInSync",
            "Laggards",
            &format!("shop-b-7d9f-x1 {why}; see kubectl logs shop-b-7d9f-x1, and delete the pod if it does not recover"),
        );
        assert_eq!(judged.says("Ready").0, "True", "the rest serves");
        let keys = judged.0.keys.unwrap();
        assert_eq!(
            (keys.acknowledged, keys.verifiers, keys.laggard_count),
            (9, 10, 1)
        );
        assert_eq!(keys.laggards[0].reason, word);
        assert_eq!(keys.laggards[0].generation, Some(6));
        assert_eq!(judged.0.summary.unwrap().keys, "9/10@7");
    }
}

#[test]
fn who_is_being_told_starting_or_leaving_is_no_trouble() {
    let mut world = World::ready();
    world.container("shop-b-7d9f-x1", json!({"state": {"running": {}}}));
    world.pod("shop-b-7d9f-x2").metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
    lagging(
        &mut world,
        vec![
            laggard("shop-a-7d9f-x1", LaggardReason::Behind),
            laggard("shop-b-7d9f-x1", LaggardReason::Unreachable),
            laggard("shop-b-7d9f-x2", LaggardReason::Unreachable),
        ],
    );
    let judged = world.judged();
    assert_eq!(
        judged.says("KeysInSync"),
        ("False", "Distributing", "7 of 10 verifiers hold the newest keys")
    );
    assert_eq!(judged.says("Degraded").0, "False");
}

#[test]
fn a_chain_becomes_ready_with_its_keys_in_place_and_newer_keys_do_not_end_that() {
    let mut world = World::ready();
    lagging(&mut world, vec![laggard("shop-a-7d9f-x1", LaggardReason::Behind)]);
    assert_eq!(world.judged().says("Ready").1, "Distributing");
    world.keys = World::ready().keys;
    let ready = world.judged();
    assert_eq!(ready.says("Ready").1, "AllReady");
    world.chain.status = Some(ready.0);
    lagging(&mut world, vec![laggard("shop-a-7d9f-x1", LaggardReason::Behind)]);
    assert_eq!(world.judged().says("Ready").1, "AllReady");
}

#[test]
fn a_bundle_is_shown_from_the_first_verifier_on_that_holds_it() {
    let mut world = World::ready();
    let before = world.judged().0;
    let behind = |count: usize| {
        let pods = (0..count).map(|index| laggard(&format!("pod-{index}"), LaggardReason::Behind));
        pods.collect::<Vec<_>>()
    };
    world.keys.as_mut().unwrap().newest = Some((Generation::new(8), Digest::of(b"eight")));
    lagging(&mut world, behind(10));
    assert_eq!(
        world.judged().0.summary.unwrap().keys,
        "0/10@8",
        "there was none before"
    );
    world.chain.status = Some(before.clone());
    let judged = world.judged();
    assert_eq!(
        judged.says("KeysInSync"),
        ("False", "Distributing", "0 of 10 verifiers hold the newest keys")
    );
    assert_eq!((judged.0.summary, judged.0.keys), (before.summary, before.keys));
    lagging(&mut world, behind(9));
    assert_eq!(world.judged().0.summary.unwrap().keys, "1/10@8");
    // Whoever was asked and does not take it is no news.
    let unreachable = laggard("pod-0", LaggardReason::Unreachable);
    lagging(&mut world, vec![unreachable; 10]);
    assert_eq!(world.judged().0.summary.unwrap().keys, "0/10@8");
}

#[test]
fn at_most_five_laggards_are_named_those_in_trouble_first() {
    let mut world = World::ready();
    let mut laggards: Vec<Laggard> = (0..8)
        .map(|index| laggard(&format!("pod-{index}"), LaggardReason::Behind))
        .collect();
    laggards.push(laggard("shop-c-7d9f-x1", LaggardReason::Unreachable));
    lagging(&mut world, laggards);
    let keys = world.judged().0.keys.unwrap();
    let names: Vec<_> = keys.laggards.iter().map(|laggard| laggard.pod.as_str()).collect();
    assert_eq!(names, ["shop-c-7d9f-x1", "pod-0", "pod-1", "pod-2", "pod-3"]);
    assert_eq!(keys.laggard_count, 9);
}

#[test]
fn an_issuer_without_an_active_key_does_not_sign_and_says_so() {
    let mut world = World::ready();
    world.keys.as_mut().unwrap().entries = vec![entry("platform", "k1", StateOfKey::Staged)];
    let judged = world.judged();
    assert_eq!(judged.says("IssuersReady").1, "NoActiveKey");
    assert_eq!(judged.0.issuers[0].state, "NoActiveKey");
    assert!(judged.0.issuers[0].message.contains("no Active key yet"));
    assert_eq!(judged.says("Degraded").0, "False", "it comes by itself");
    assert_eq!(judged.says("Ready").0, "False");
}

#[test]
fn more_keys_than_fit_are_counted_and_every_issuer_still_signs() {
    let mut world = World::ready();
    let keys = world.keys.as_mut().unwrap();
    keys.entries = (0..100)
        .map(|index| entry("another", &format!("a{index}"), StateOfKey::Active))
        .collect();
    keys.entries
        .push(entry("platform", &"k".repeat(300), StateOfKey::Active));
    keys.entries
        .push(entry("platform", &"k".repeat(300), StateOfKey::Active));
    let judged = world.judged();
    let keys = judged.0.keys.as_ref().unwrap();
    assert_eq!((keys.entries.len(), keys.entry_count), (64, Some(101)));
    assert_eq!(judged.0.issuers[0].state, "Signing");
}

#[test]
fn a_round_that_fails_is_told_and_what_is_known_stays() {
    let mut world = World::ready();
    world.keys.as_mut().unwrap().problem =
        Some("cannot replace the ConfigMap shop-keys: forbidden".to_owned());
    let judged = world.judged();
    judged.names(
        "KeysInSync",
        "KeysStuck",
        "keys do not move on (cannot replace the ConfigMap shop-keys: forbidden); it is tried again, see the operator's log",
    );
    assert_eq!(judged.0.summary.unwrap().keys, "10/10@7");
    assert_eq!(Digest::of(b"seven").to_string(), judged.0.keys.unwrap().digest);
}
