//! A status that moves by itself calls the next pass, for ever.

use jiff::ToSpan as _;
use serde_json::json;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{NumericDate, PodId};
use servicechain_operator::key_controller::state::Laggard;

use crate::world::{World, at};

/// With something of everything in it.
fn troubled() -> World {
    let mut world = World::ready();
    world.counts("shop-b", json!({"readyReplicas": 1, "availableReplicas": 1}));
    let ended = json!({"exitCode": 1, "reason": "Error", "message": "out of luck"});
    world.container(
        "shop-b-7d9f-x1",
        json!({"restartCount": 1, "lastState": {"terminated": ended}}),
    );
    world.counts("shop-c", json!({"replicas": 3, "updatedReplicas": 1}));
    world.event("shop-a-postgres-pvc", "ProvisioningFailed", "no space");
    let keys = world.keys.as_mut().unwrap();
    keys.acknowledged = 9;
    keys.laggards = vec![Laggard {
        name: "shop-a-7d9f-x1".to_owned(),
        pod: PodId::new("shop-a-7d9f-x1").unwrap(),
        generation: None,
        reason: LaggardReason::Unreachable,
        falsehood: None,
        since: NumericDate::from_seconds(1_767_225_600),
    }];
    world
}

#[test]
fn nothing_in_a_status_moves_by_itself() {
    for mut world in [World::ready(), troubled()] {
        let first = world.judged_at(at("2026-01-01T00:00:00Z"));
        world.chain.status = Some(first.clone());
        let later = at("2026-01-01T00:00:00.75Z") + 9.hours();
        assert_eq!(world.judged_at(later), first);
        // What was written comes back in another shape where it is not exactly what the API keeps.
        let stored = serde_json::to_string(&first).unwrap();
        world.chain.status = Some(serde_json::from_str(&stored).unwrap());
        assert_eq!(world.judged_at(later), first);
    }
}

#[test]
fn another_leader_says_the_same() {
    let mut world = troubled();
    let first = world.judged_at(at("2026-01-01T00:00:00Z"));
    world.chain.status = Some(first.clone());
    world.keys.as_mut().unwrap().laggards[0].since = NumericDate::from_seconds(1_767_300_000);
    assert_eq!(world.judged_at(at("2026-01-02T00:00:00Z")), first);
}

#[test]
fn restarts_and_times_alone_change_nothing() {
    let mut world = troubled();
    let first = world.judged_at(at("2026-01-01T00:00:00Z"));
    world.chain.status = Some(first.clone());
    let ended = json!({
        "exitCode": 1, "reason": "Error", "message": "out of luck", "finishedAt": "2026-01-01T01:00:00Z",
    });
    world.container(
        "shop-b-7d9f-x1",
        json!({"restartCount": 9, "state": {"terminated": ended}}),
    );
    assert_eq!(world.judged_at(at("2026-01-01T02:00:00Z")), first);
}

#[test]
fn a_conditions_time_is_that_of_its_last_change_of_status() {
    let mut world = World::ready();
    let time = |world: &World, now: &str, kind: &str| {
        let status = world.judged_at(at(now));
        let condition = status
            .conditions
            .iter()
            .find(|one| one.type_ == kind)
            .unwrap()
            .clone();
        (status, condition.last_transition_time.0)
    };
    let (status, _) = time(&world, "2026-01-01T00:00:00Z", "Degraded");
    world.chain.status = Some(status);
    world.counts("shop-b", json!({"readyReplicas": 0, "availableReplicas": 0}));
    let (status, degraded) = time(&world, "2026-01-01T01:00:00Z", "ServicesReady");
    assert_eq!(degraded, at("2026-01-01T01:00:00Z"));
    world.chain.status = Some(status);
    let (_, accepted) = time(&world, "2026-01-01T02:00:00Z", "Accepted");
    assert_eq!(accepted, at("2026-01-01T00:00:00Z"));
}
