//! What keeps pods from being ready is told apart, by name, and is forgotten when it is mended.

use serde_json::{Value, json};

use crate::world::{World, read};

/// `shop-b` lacks a pod since it came up.
fn one_of_two(world: &mut World, name: &str) {
    world.counts(name, json!({"readyReplicas": 1, "availableReplicas": 1}));
}

/// None of them was ever there.
pub(crate) fn none_yet(world: &mut World, name: &str) {
    world.counts(
        name,
        json!({
            "readyReplicas": 0,
            "availableReplicas": 0,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}],
        }),
    );
}

fn crash_looping(state: Value) -> Value {
    let ended = json!({
        "exitCode": 1,
        "reason": "Error",
        "message": "2026-01-01T00:00:00Z ERROR no route to the database\n",
    });
    let mut status = json!({"restartCount": 4, "lastState": {"terminated": ended}});
    status["state"] = if state == json!("ended") {
        json!({"terminated": ended})
    } else {
        state
    };
    status
}

#[test]
fn an_image_that_does_not_pull_is_named_with_the_pod_and_why() {
    let why = r#"rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/b:4": failed to resolve reference "registry.example/b:4": registry.example/b:4: not found"#;
    for (reason, message) in [
        ("ErrImagePull", why.to_owned()),
        (
            "ImagePullBackOff",
            format!(r#"Back-off pulling image "registry.example/b:4": ErrImagePull: {why}"#),
        ),
    ] {
        let mut world = World::ready();
        none_yet(&mut world, "shop-b");
        world.container(
            "shop-b-7d9f-x1",
            json!({"state": {"waiting": {"reason": reason, "message": message}}}),
        );
        let judged = world.judged();
        let sentence = "shop-b-7d9f-x1: image registry.example/b:4 does not pull (not found); check that the image exists and spec.services[b].pod.imagePullSecrets";
        judged.names("ServicesReady", "ImageNotPulled", sentence);
        assert_eq!(judged.says("Ready"), ("False", "ImageNotPulled", sentence));
        assert_eq!(judged.service("b").message, sentence);
        assert_eq!(judged.0.summary.unwrap().services, "2/3");
    }
}

#[test]
fn a_crash_is_told_with_its_code_and_last_words_in_whichever_state_it_is_seen() {
    for state in [
        json!("ended"),
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container"}}),
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
    ] {
        let mut world = World::ready();
        none_yet(&mut world, "shop-b");
        world.container("shop-b-7d9f-x1", crash_looping(state));
        world.judged().names(
            "ServicesReady",
            "ContainerCrashes",
            "shop-b-7d9f-x1: container main ends with exit code 1, saying \"ERROR no route to the database\"; see kubectl logs shop-b-7d9f-x1 -c main --previous",
        );
    }
}

#[test]
fn a_container_that_takes_too_much_memory_is_no_mere_crash() {
    let mut world = World::ready();
    none_yet(&mut world, "shop-b");
    let ended = json!({"exitCode": 137, "reason": "OOMKilled"});
    world.container(
        "shop-b-7d9f-x1",
        json!({"restartCount": 1, "lastState": {"terminated": ended}}),
    );
    world.judged().names(
        "ServicesReady",
        "OutOfMemory",
        "shop-b-7d9f-x1: container main was ended because it took more memory than it may; raise spec.services[b].pod.resources.limits.memory",
    );
}

#[test]
fn a_pod_that_no_node_takes_is_told_with_what_the_scheduler_says() {
    let mut world = World::ready();
    none_yet(&mut world, "shop-gateway");
    let pod = world.pod("shop-gateway-7d9f-x1");
    pod.status = Some(read(json!({
        "phase": "Pending",
        "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
        }],
    })));
    world.judged().degraded(
        "PodUnschedulable",
        "shop-gateway-7d9f-x1: no node takes it (0/1 nodes are available: 1 Insufficient cpu); add nodes, or ask for less in resources.requests",
    );
    let judged = world.judged();
    assert_eq!(judged.says("GatewayReady").1, "PodUnschedulable");
    assert!(
        judged
            .0
            .gateway
            .as_ref()
            .unwrap()
            .message
            .contains("Insufficient cpu")
    );
}

#[test]
fn a_volume_that_is_not_mounted_is_told_by_the_newest_event() {
    let mut world = World::ready();
    none_yet(&mut world, "shop-b");
    world.container(
        "shop-b-7d9f-x1",
        json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
    );
    world.event(
        "shop-b-7d9f-x1",
        "FailedMount",
        r#"MountVolume.SetUp failed for volume "ca" : secret "b-ca" not found"#,
    );
    world.judged().names(
        "ServicesReady",
        "MissingSecret",
        "shop-b-7d9f-x1: the Secret b-ca does not exist; create it, or mend spec.services[b]",
    );
    world.observed.events.clear();
    world.event("shop-b-7d9f-x1", "FailedAttachVolume", "Multi-Attach error for volume \"pvc-0af1b2c3-77aa-4b4b-9c9c-1234567890ab\" Volume is already used by pod(s) other");
    assert_eq!(world.judged().says("ServicesReady").1, "VolumeNotMounted");
}

#[test]
fn a_secret_or_config_map_that_a_container_needs_is_named_with_its_key() {
    for (message, reason, what) in [
        (
            r#"secret "b-settings" not found"#,
            "MissingSecret",
            "the Secret b-settings does not exist",
        ),
        (
            "couldn't find key token in Secret shop/b-settings",
            "MissingSecret",
            "the Secret b-settings has no key token",
        ),
        (
            r#"configmap "b-flags" not found"#,
            "MissingConfigMap",
            "the ConfigMap b-flags does not exist",
        ),
        (
            "couldn't find key x in ConfigMap shop/b-flags",
            "MissingConfigMap",
            "the ConfigMap b-flags has no key x",
        ),
        (
            "container has runAsNonRoot and image will run as root",
            "ContainerNotCreated",
            "container main is not made (container has runAsNonRoot and image will run as root)",
        ),
    ] {
        let mut world = World::ready();
        none_yet(&mut world, "shop-b");
        let waiting = json!({"reason": "CreateContainerConfigError", "message": message});
        world.container("shop-b-7d9f-x1", json!({"state": {"waiting": waiting}}));
        let judged = world.judged();
        let (_, said, sentence) = judged.says("Degraded");
        assert_eq!(said, reason, "{sentence}");
        assert!(
            sentence.starts_with(&format!("shop-b-7d9f-x1: {what};")),
            "{sentence}"
        );
    }
}

#[test]
fn pods_that_quota_or_policy_forbid_are_told_without_the_name_of_each_try() {
    let message = |pod: &str| {
        format!(
            r#"pods "shop-b-7d9f-{pod}" is forbidden: exceeded quota: compute, requested: limits.memory=128Mi, used: limits.memory=1Gi, limited: limits.memory=1Gi"#
        )
    };
    let judged = |message: String| {
        let mut world = World::ready();
        world
            .observed
            .pods
            .retain(|pod| !pod.metadata.name.as_deref().unwrap().starts_with("shop-b-7d9f"));
        none_yet(&mut world, "shop-b");
        let failure =
            json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message});
        world.counts(
            "shop-b",
            json!({"conditions": [failure], "replicas": 0, "updatedReplicas": 0}),
        );
        world.judged()
    };
    let one = judged(message("abcde"));
    one.names(
        "ServicesReady",
        "QuotaExceeded",
        "shop-b: its pods are not made (is forbidden: exceeded quota: compute, requested: limits.memory=128Mi, used: limits.memory=1Gi, limited: limits.memory=1Gi); raise the quota, or ask for less in resources",
    );
    assert_eq!(one.0, judged(message("fghij")).0);
    let policy = judged(
        r#"pods "shop-b-1" is forbidden: violates PodSecurity "restricted:latest": seccompProfile"#
            .to_owned(),
    );
    assert_eq!(policy.says("ServicesReady").1, "AdmissionDenied");
}

#[test]
fn fewer_ready_pods_than_there_were_leave_a_service_serving_and_the_chain_degraded() {
    let mut world = World::ready();
    one_of_two(&mut world, "shop-b");
    world.container(
        "shop-b-7d9f-x1",
        json!({"started": true, "state": {"running": {}}}),
    );
    let judged = world.judged();
    let sentence = "shop-b: 1 of 2 pods are ready, shop-b-7d9f-x1 runs and is not ready; see kubectl logs shop-b-7d9f-x1";
    judged.degraded("NotEnoughReady", sentence);
    assert_eq!(judged.says("ServicesReady"), ("True", "StillServing", sentence));
    assert_eq!(judged.says("Ready"), ("True", "StillServing", ""));
    assert_eq!(judged.0.summary.as_ref().unwrap().services, "2/3");
    // With none left nobody is served.
    world.counts("shop-b", json!({"readyReplicas": 0, "availableReplicas": 0}));
    assert_eq!(world.judged().says("Ready").0, "False");
}

#[test]
fn pods_that_start_are_no_trouble() {
    let mut world = World::ready();
    none_yet(&mut world, "shop-b");
    world.container(
        "shop-b-7d9f-x1",
        json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
    );
    let judged = world.judged();
    let sentence = "shop-b: 0 of 2 pods are ready, shop-b-7d9f-x1 is starting";
    assert_eq!(judged.says("ServicesReady"), ("False", "PodsStarting", sentence));
    assert_eq!(judged.says("Progressing"), ("True", "PodsStarting", sentence));
    assert_eq!(judged.says("Degraded"), ("False", "NothingWrong", ""));
}

#[test]
fn the_first_pod_of_a_new_service_is_not_the_service() {
    let mut world = World::ready();
    none_yet(&mut world, "shop-b");
    world.counts("shop-b", json!({"readyReplicas": 1, "availableReplicas": 1}));
    assert_eq!(world.judged().says("ServicesReady").0, "False");
}
