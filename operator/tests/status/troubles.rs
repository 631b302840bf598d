//! Each thing that can be wrong is told apart from the others, by name, and is forgotten when it is mended.

use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::ServiceChainStatus;
use servicechain_operator::controller::accepted::judge;
use servicechain_operator::controller::observed::{NameTaken, Refusal, WriteFailure};
use servicechain_operator::controller::rollout::Held;

use crate::world::{World, gateway_service, read};

/// `shop-b` lacks a pod since it came up.
fn one_of_two(world: &mut World, name: &str) {
    world.counts(name, json!({"readyReplicas": 1, "availableReplicas": 1}));
}

/// None of them was ever there.
fn none_yet(world: &mut World, name: &str) {
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
fn where_all_is_well_every_condition_says_so() {
    let judged = World::ready().judged();
    assert_eq!(judged.says("Accepted"), ("True", "Accepted", ""));
    assert_eq!(judged.says("IssuersReady"), ("True", "AllReady", ""));
    assert_eq!(judged.says("ServicesReady"), ("True", "AllReady", ""));
    assert_eq!(judged.says("KeysInSync"), ("True", "InSync", ""));
    assert_eq!(judged.says("Progressing"), ("False", "UpToDate", ""));
    assert_eq!(judged.says("Degraded"), ("False", "NothingWrong", ""));
    assert_eq!(judged.says("Ready"), ("True", "AllReady", ""));
    let summary = judged.0.summary.clone().unwrap();
    assert_eq!(
        (summary.services.as_str(), summary.keys.as_str()),
        ("3/3", "10/10@7")
    );
    assert_eq!(judged.0.observed_generation, Some(3));
    assert_eq!(judged.0.issuers[0].state, "Signing");
    assert_eq!(
        judged.service("a").database.as_ref().unwrap().version.as_deref(),
        Some("17")
    );
}

#[test]
fn tokens_in_clear_text_and_stores_without_a_second_instance_are_said_even_when_all_is_well() {
    let judged = World::ready().judged();
    let (status, reason, message) = judged.says("GatewayReady");
    assert_eq!((status, reason), ("True", "TokensInClear"));
    assert!(message.contains("in clear text"), "{message}");
    let (status, reason, message) = judged.says("StoresReady");
    assert_eq!((status, reason), ("True", "SingleInstance"));
    assert!(message.contains("no HA, no backup"), "{message}");
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

/// The claim is not bound, and its pod waits for it.
fn without_volume(world: &mut World) {
    world.counts(
        "shop-a-postgres",
        json!({"readyReplicas": 0, "availableReplicas": 0}),
    );
    let claim = world.claim("shop-a-postgres");
    claim.status = Some(read(json!({"phase": "Pending"})));
    claim.spec.as_mut().unwrap().storage_class_name = Some("fast".to_owned());
    world.pod("shop-a-postgres-0").status = Some(read(json!({
        "phase": "Pending",
        "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
        }],
    })));
}

#[test]
fn a_volume_that_does_not_bind_is_told_once_with_the_claim_and_why() {
    let mut world = World::ready();
    without_volume(&mut world);
    world.event(
        "shop-a-postgres-pvc",
        "ProvisioningFailed",
        r#"storageclass.storage.k8s.io "fast" not found"#,
    );
    let judged = world.judged();
    judged.names(
        "StoresReady",
        "VolumeNotBound",
        "the claim shop-a-postgres has no volume of class fast (storageclass.storage.k8s.io \"fast\" not found); see kubectl describe pvc shop-a-postgres, and kubectl get storageclass",
    );
    assert!(judged.service("a").message.contains("\"fast\" not found"));
    assert!(!judged.service("a").database.as_ref().unwrap().ready);
    assert_eq!(judged.says("Ready").0, "False");
}

#[test]
fn without_events_the_pod_tells_that_its_volume_does_not_bind() {
    let mut world = World::ready();
    without_volume(&mut world);
    let judged = world.judged();
    let (_, reason, message) = judged.says("StoresReady");
    assert_eq!(reason, "VolumeNotBound");
    assert!(
        message.starts_with("the claim shop-a-postgres has no volume of class fast ("),
        "{message}"
    );
}

#[test]
fn a_claim_that_waits_for_its_pod_is_no_trouble() {
    let mut world = World::ready();
    world.counts(
        "shop-a-postgres",
        json!({"readyReplicas": 0, "availableReplicas": 0}),
    );
    world.claim("shop-a-postgres").status = Some(read(json!({"phase": "Pending"})));
    world.container(
        "shop-a-postgres-0",
        json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
    );
    world.event(
        "shop-a-postgres-pvc",
        "WaitForFirstConsumer",
        "waiting for first consumer to be created before binding",
    );
    let judged = world.judged();
    assert_eq!(judged.says("StoresReady").1, "PodsStarting");
    assert_eq!(judged.says("Degraded").0, "False");
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

fn with_given_secret() -> World {
    World::of(json!({"issuers": [{
        "name": "platform",
        "managed": {"clients": [{"id": "demo", "secretRef": {"name": "shop-demo"}}]},
    }]}))
}

#[test]
fn a_clients_secret_that_is_not_there_is_named_with_the_keys_it_needs() {
    let mut world = with_given_secret();
    let judged = world.judged();
    judged.names(
        "IssuersReady",
        "MissingSecret",
        "the Secret shop-demo of client demo does not exist; create it with the keys clientID and clientSecret, or mend spec.issuers[platform].managed.clients[demo].secretRef",
    );
    assert_eq!(judged.0.issuers[0].state, "MissingSecret");

    world
        .observed
        .secrets
        .insert("shop-demo".to_owned(), ["clientID".to_owned()].into());
    let judged = world.judged();
    assert!(
        judged
            .says("IssuersReady")
            .2
            .starts_with("the Secret shop-demo of client demo lacks clientSecret; ")
    );

    let keys = ["clientID", "clientSecret"].map(str::to_owned);
    world.observed.secrets.insert("shop-demo".to_owned(), keys.into());
    world
        .observed
        .client_ids
        .insert("shop-demo".to_owned(), "demo".to_owned());
    assert_eq!(world.judged().says("IssuersReady"), ("True", "AllReady", ""));

    world
        .observed
        .client_ids
        .insert("shop-demo".to_owned(), "other".to_owned());
    world.judged().names(
        "IssuersReady",
        "MissingSecret",
        "the Secret shop-demo of client demo is of another, its clientID is not demo; let its clientID be demo, or mend spec.issuers[platform].managed.clients[demo].secretRef",
    );
}

#[test]
fn a_volume_whose_password_is_lost_is_no_missing_secret() {
    let mut world = World::ready();
    world.observed.secrets.remove("shop-a-postgres");
    world.judged().names(
        "StoresReady",
        "PasswordLost",
        "the volume of shop-a-postgres is there, and the Secret shop-a-postgres that opens it is gone; restore the Secret from a backup, or delete the claim shop-a-postgres and all its data",
    );
    // Before its volume there is nothing to lose.
    world
        .observed
        .claims
        .retain(|claim| claim.metadata.name.as_deref() != Some("shop-a-postgres"));
    assert_eq!(world.judged().says("Degraded").0, "False");
}

#[test]
fn a_name_that_is_somebody_elses_is_named_with_its_owner() {
    let mut world = World::ready();
    world
        .observed
        .deployments
        .retain(|one| one.metadata.name.as_deref() != Some("shop-b"));
    world.observed.name_taken.push(NameTaken {
        kind: "Deployment",
        name: "shop-b".to_owned(),
        owner: Some("Application other".to_owned()),
    });
    let judged = world.judged();
    judged.names(
        "ServicesReady",
        "NameTaken",
        "Deployment shop-b is not touched, since it belongs to Application other; rename or delete it, or give the chain or its part another name",
    );
    assert!(judged.service("b").message.contains("Application other"));
    assert!(judged.service("a").message.is_empty());
}

#[test]
fn what_keeps_every_part_from_being_made_is_why_the_chain_is_not_ready() {
    let mut world = World::ready();
    world.observed.deployments.clear();
    world.observed.write_failures.push(WriteFailure {
        kind: "ConfigMap",
        name: "shop-accepted".to_owned(),
        refusal: Refusal::Quota,
        message: "exceeded quota: narrow".to_owned(),
    });
    let judged = world.judged();
    let (status, reason, message) = judged.says("Ready");
    assert_eq!((status, reason), ("False", "QuotaExceeded"));
    assert!(
        message.starts_with("ConfigMap shop-accepted is not written (exceeded quota: narrow); "),
        "{message}"
    );
}

#[test]
fn refused_writes_are_told_apart() {
    for (refusal, message, reason) in [
        (Refusal::Quota, "exceeded quota: storage", "QuotaExceeded"),
        (
            Refusal::Admission,
            "admission webhook \"x\" denied the request",
            "AdmissionDenied",
        ),
        (
            Refusal::Forbidden,
            "User \"x\" cannot patch resource",
            "Forbidden",
        ),
        (
            Refusal::Invalid,
            "spec.ports[0].nodePort: provided port is already allocated",
            "WriteRefused",
        ),
        (
            Refusal::NamespaceEnds,
            "because it is being terminated",
            "NamespaceEnding",
        ),
        (Refusal::Unavailable, "etcdserver: leader changed", "WriteFailed"),
    ] {
        let mut world = World::ready();
        let service = ("Service", "shop-a-postgres".to_owned());
        world.observed.standing.insert(service.clone());
        world.observed.write_failures.push(WriteFailure {
            kind: "Service",
            name: "shop-a-postgres".to_owned(),
            refusal,
            message: message.to_owned(),
        });
        let judged = world.judged();
        let (status, said, sentence) = judged.says("Degraded");
        assert_eq!((status, said), ("True", reason), "{sentence}");
        assert!(
            sentence.starts_with(&format!("Service shop-a-postgres is not written ({message}); ")),
            "{sentence}"
        );
        assert_eq!(
            judged.says("Ready"),
            ("True", "StillServing", ""),
            "what stands goes on"
        );
        world.observed.standing.remove(&service);
        assert_eq!(
            world.judged().says("StoresReady").1,
            reason,
            "what was never made does not"
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
fn a_store_whose_pod_is_not_made_is_told_by_its_event() {
    let mut world = World::ready();
    world
        .observed
        .pods
        .retain(|pod| pod.metadata.name.as_deref() != Some("shop-a-redis-0"));
    world.counts(
        "shop-a-redis",
        json!({"replicas": 0, "readyReplicas": 0, "availableReplicas": 0}),
    );
    let message = r#"create Pod shop-a-redis-0 in StatefulSet shop-a-redis failed error: pods "shop-a-redis-0" is forbidden: exceeded quota: compute"#;
    world.event("shop-a-redis-sts", "FailedCreate", message);
    assert_eq!(world.judged().says("StoresReady").1, "QuotaExceeded");
    assert_eq!(world.judged().says("Degraded").1, "QuotaExceeded");
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

#[test]
fn a_rollout_is_told_while_old_pods_serve_and_is_stuck_past_its_deadline() {
    let mut world = World::ready();
    world.counts("shop-b", json!({"replicas": 3, "updatedReplicas": 1}));
    world.held.push(Held {
        name: "shop-a".to_owned(),
        behind: "shop-b".to_owned(),
        because: "1 of 2 pods have its newest template".to_owned(),
    });
    let judged = world.judged();
    assert_eq!(
        judged.says("Progressing"),
        (
            "True",
            "RollingOut",
            "shop-b: 1 of 2 pods have the new template\nshop-a keeps its template until shop-b is done (1 of 2 pods have its newest template)"
        )
    );
    assert_eq!(judged.says("Ready").0, "True");
    assert_eq!(judged.says("Degraded").0, "False");

    let condition = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
    world.counts("shop-b", json!({"conditions": [condition]}));
    let judged = world.judged();
    assert_eq!(judged.says("Progressing").0, "False");
    assert_eq!(judged.says("Progressing").1, "ProgressDeadlineExceeded");
    assert_eq!(judged.says("Degraded").1, "ProgressDeadlineExceeded");
    assert_eq!(judged.says("Ready").0, "True", "the old pods serve");
}

#[test]
fn a_spec_that_its_controller_has_not_seen_is_a_rollout() {
    let mut world = World::ready();
    world.deployment("shop-b").metadata.generation = Some(3);
    assert_eq!(world.judged().says("Progressing").1, "RollingOut");
}

#[test]
fn causes_come_before_effects_and_all_is_bounded() {
    let mut world = World::ready();
    for name in ["shop-a", "shop-b", "shop-c", "shop-gateway"] {
        none_yet(&mut world, name);
        for pod in ["x1", "x2"] {
            let message = format!("{} is not there", "x".repeat(400));
            let waiting = json!({"reason": "ErrImagePull", "message": message});
            world.container(
                &format!("{name}-7d9f-{pod}"),
                json!({"state": {"waiting": waiting}}),
            );
        }
    }
    without_volume(&mut world);
    let judged = world.judged();
    let (_, reason, message) = judged.says("Degraded");
    assert_eq!(reason, "VolumeNotBound");
    assert!(message.ends_with("and 4 more"), "{message}");
    assert!(message.len() <= 1024);
}

fn edited(world: &World, next: &str) -> ServiceChain {
    let mut chain = world.chain.clone();
    chain.spec.services[0].next = Some(vec![next.to_owned()]);
    chain.metadata.generation = Some(4);
    chain
}

#[test]
fn a_spec_that_is_refused_says_why_and_what_goes_on() {
    let mut world = World::ready();
    world.chain.status = Some(world.judged().0);
    let chain = edited(&world, "nobody");
    world.accepted = judge(&chain, Some(&world.chain.spec));
    world.chain = ServiceChain {
        status: world.chain.status.clone(),
        ..chain
    };
    let judged = world.judged();
    let (status, reason, message) = judged.says("Accepted");
    assert_eq!((status, reason), ("False", "Invalid"));
    assert!(
        message.starts_with("spec is refused, and the chain goes on as it was accepted before:\n"),
        "{message}"
    );
    assert!(message.contains("nobody"), "{message}");
    assert_eq!(judged.says("Ready").0, "True");
    let generation = |status: &ServiceChainStatus, kind: &str| {
        status
            .conditions
            .iter()
            .find(|one| one.type_ == kind)
            .unwrap()
            .observed_generation
    };
    assert_eq!(generation(&judged.0, "Accepted"), Some(4));
    assert_eq!(
        generation(&judged.0, "Ready"),
        Some(3),
        "what runs is the older spec"
    );
}

#[test]
fn a_spec_that_was_never_accepted_leaves_nothing_to_judge() {
    let mut world = World::ready();
    world.chain = edited(&world, "nobody");
    world.accepted = judge(&world.chain, None);
    let judged = world.judged();
    assert_eq!(judged.says("Accepted").1, "Invalid");
    assert_eq!(judged.says("ServicesReady").0, "Unknown");
    let (status, reason, message) = judged.says("Ready");
    assert_eq!((status, reason), ("False", "NotAccepted"));
    assert!(message.contains("nobody"), "{message}");
}

#[test]
fn what_cannot_be_done_yet_is_no_mistake() {
    let mut world = World::ready();
    world.chain.spec.gateway.ingress = Some(read(json!({"hosts": ["shop.example.com"]})));
    world.accepted = judge(&world.chain, None);
    let judged = world.judged();
    assert_eq!(judged.says("Accepted").1, "NotSupportedYet");
}

#[test]
fn a_pause_is_said() {
    let mut world = World::ready();
    world.chain.spec.paused = true;
    let judged = world.judged();
    assert_eq!(judged.says("Progressing").1, "Paused");
    assert_eq!(judged.says("Ready").0, "True");
}

#[test]
fn the_gateways_url_is_told_by_the_kind_of_its_service() {
    let url = |service: Value, live: Value| {
        let mut world = World::of(json!({"gateway": {"service": service}}));
        world.observed.gateway_service = Some(gateway_service(live));
        world.judged().0.gateway.unwrap().url
    };
    let node_port = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}]}});
    assert_eq!(
        url(json!({"type": "NodePort"}), node_port).as_deref(),
        Some("http://127.0.0.1:8080")
    );
    let other_port = json!({"spec": {"ports": [{"port": 80, "nodePort": 31999}]}});
    assert_eq!(
        url(json!({"type": "NodePort"}), other_port),
        None,
        "nobody told where it is reached"
    );
    let none = json!({"type": "ClusterIP", "nodePort": null});
    assert_eq!(
        url(none, json!({})).as_deref(),
        Some("http://shop-gateway.shop.svc")
    );
    let balanced = json!({"type": "LoadBalancer", "port": 8080});
    let ingress = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
    assert_eq!(
        url(balanced.clone(), ingress(json!({"hostname": "lb.example.com"}))).as_deref(),
        Some("http://lb.example.com:8080")
    );
    assert_eq!(
        url(balanced.clone(), ingress(json!({"ip": "fd00::1"}))).as_deref(),
        Some("http://[fd00::1]:8080")
    );
    assert_eq!(url(balanced, json!({})), None);
}
