//! Whose clock is off, what is said of pods one by one, and that neither moves by itself.

use jiff::ToSpan as _;
use servicechain_crds::service_chain::status::RemarkStatus;
use servicechain_keys::BundleRefusal;

use crate::world::{World, at, verifier};

/// The example, whose skew is 30 s, with clocks that are so many seconds ahead.
fn with_clocks(offsets: &[Option<i64>]) -> World {
    let mut world = World::ready();
    let pods = offsets.iter().enumerate().map(|(number, offset)| {
        let mut pod = verifier(&format!("pod-{number}"));
        pod.clock_offset = *offset;
        pod
    });
    world.keys.as_mut().unwrap().pods = pods.collect();
    world
}

#[test]
fn a_clock_may_be_off_by_half_of_the_skew() {
    for offset in [-15, 0, 15] {
        let world = with_clocks(&[Some(0), Some(offset)]);
        assert_eq!(
            world.judged().says("ClocksInSync"),
            ("True", "InStep", ""),
            "{offset}"
        );
    }
    for (offset, says) in [
        (-16, "16 s behind"),
        (16, "16 s ahead of"),
        (i64::from(i32::MIN), "2147483648 s behind"),
    ] {
        let judged = with_clocks(&[Some(0), Some(offset), Some(0)]).judged();
        let message = format!(
            "the clock of pod-1 is {says} the operator's: more than 15 s with tokenPolicy.clockSkew 30s, so good tokens may be refused; synchronise the clock of its node"
        );
        judged.names("ClocksInSync", "ClockOff", &message);
        assert_eq!(judged.says("Ready").0, "True", "the chain serves");
    }
}

#[test]
fn where_most_clocks_are_off_it_may_be_the_operators() {
    let judged = with_clocks(&[Some(20), Some(40), Some(0)]).judged();
    let (_, _, message) = judged.says("ClocksInSync");
    assert!(
        message.starts_with("the clock of pod-1 is 40 s ahead of"),
        "{message}"
    );
    assert!(message.contains("1 of the other 2 are off as well"), "{message}");
    assert!(
        message.ends_with("; compare the operator's clock with others first, since most differ from it"),
        "{message}"
    );
}

#[test]
fn a_clock_that_nobody_heard_is_neither_in_step_nor_off() {
    assert_eq!(
        with_clocks(&[Some(0), None]).judged().says("ClocksInSync").0,
        "Unknown"
    );
    for heard in [0, 60] {
        let mut world = with_clocks(&[Some(0), Some(heard)]);
        let said = world.judged_at(at("2026-01-01T00:00:00Z"));
        let before = world.judged().says("ClocksInSync").0.to_owned();
        world.chain.status = Some(said);
        world.keys.as_mut().unwrap().pods[1].clock_offset = None;
        assert_eq!(
            world.judged().says("ClocksInSync").0,
            before,
            "what was said stays"
        );
        world.keys = None;
        assert_eq!(
            world.judged().says("ClocksInSync").0,
            before,
            "for a new leader, too"
        );
    }
    // One that keys do not wait for is not waited for here.
    let mut world = with_clocks(&[Some(0), None]);
    world.keys.as_mut().unwrap().pods[1].is_counted = false;
    assert_eq!(world.judged().says("ClocksInSync").0, "True");
}

#[test]
fn another_leader_that_measures_a_second_more_says_the_same() {
    let mut world = with_clocks(&[Some(0), Some(20)]);
    let first = world.judged_at(at("2026-01-01T00:00:00Z"));
    world.chain.status = Some(first.clone());
    for measured in [18, 19, 21, 22] {
        world.keys.as_mut().unwrap().pods[1].clock_offset = Some(measured);
        let later = at("2026-01-01T00:00:00Z") + 9.hours();
        assert_eq!(world.judged_at(later), first, "{measured}");
    }
    world.keys.as_mut().unwrap().pods[1].clock_offset = Some(23);
    let keys = world.judged().0.keys.unwrap();
    assert_eq!(keys.remarks[0].clock_offset_seconds, Some(23));
}

#[test]
fn only_pods_of_which_there_is_something_to_say_are_named_and_no_more_than_fit() {
    let mut world = with_clocks(&[Some(0); 50]);
    assert_eq!(world.judged().0.keys.unwrap().remarks, []);
    let pods = &mut world.keys.as_mut().unwrap().pods;
    pods[7].anchors = vec!["other".to_owned()];
    pods[8].unconfirmed = true;
    pods[9].refused = [BundleRefusal::Lower, BundleRefusal::Chain].into();
    let named = |pod: &str| RemarkStatus {
        pod: pod.to_owned(),
        generation: Some(7),
        ..RemarkStatus::default()
    };
    assert_eq!(
        world.judged().0.keys.unwrap().remarks,
        [
            RemarkStatus {
                anchors: vec!["other".to_owned()],
                ..named("pod-7")
            },
            RemarkStatus {
                unconfirmed: true,
                ..named("pod-8")
            },
            RemarkStatus {
                refused: vec!["lower".to_owned(), "chain".to_owned()],
                ..named("pod-9")
            },
        ]
    );
    for pod in &mut world.keys.as_mut().unwrap().pods {
        pod.refused.insert(BundleRefusal::Lower);
    }
    let keys = world.judged().0.keys.unwrap();
    assert_eq!((keys.remarks.len(), keys.remark_count), (32, Some(50)));
    assert_eq!(keys.remarks[0].pod, "pod-7", "those in trouble come first");
}
