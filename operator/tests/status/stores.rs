//! What keeps a managed database or cache from being ready beside its pod: volume, password, time. And what its volume
//! makes of a spec.

use serde_json::json;

use crate::world::{Judged, World, at, read};

/// The claim is not bound, and its pod waits for it.
pub(crate) fn without_volume(world: &mut World) {
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

/// The store's only pod is not ready since then.
fn not_ready_since(world: &mut World, store: &str, time: &str) {
    world.counts(store, json!({"readyReplicas": 0, "availableReplicas": 0}));
    let pod = format!("{store}-0");
    world.container(&pod, json!({"state": {"running": {"startedAt": time}}}));
    let status = world.pod(&pod).status.as_mut().unwrap();
    let mut conditions = status.conditions.iter_mut().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready").unwrap();
    ready.last_transition_time = Some(read(json!(time)));
}

#[test]
fn a_store_that_does_not_get_ready_within_the_deadline_of_rollouts_is_a_trouble() {
    for store in ["shop-a-postgres", "shop-a-redis"] {
        let mut world = World::ready();
        not_ready_since(&mut world, store, "2026-01-01T00:00:00Z");
        let in_time = Judged(world.judged_at(at("2026-01-01T00:10:00Z")));
        assert_eq!(in_time.says("Degraded").0, "False");
        assert_eq!(in_time.says("StoresReady").1, "PodsStarting");
        let judged = Judged(world.judged_at(at("2026-01-01T00:10:01Z")));
        let sentence = format!(
            "{store}: {store}-0 is not ready for more than 10m; see kubectl describe pod {store}-0, and kubectl logs {store}-0"
        );
        judged.names("StoresReady", "NotEnoughReady", &sentence);
        assert_eq!(judged.service("a").message, sentence);
        assert_eq!(judged.says("Progressing").0, "False", "nothing is on its way");
    }
}

#[test]
fn a_store_with_another_trouble_is_not_called_late_as_well() {
    let mut world = World::ready();
    not_ready_since(&mut world, "shop-a-postgres", "2025-01-01T00:00:00Z");
    let ended = json!({"exitCode": 1, "reason": "Error"});
    world.container("shop-a-postgres-0", json!({"lastState": {"terminated": ended}}));
    let judged = world.judged();
    assert_eq!(judged.says("Degraded").1, "ContainerCrashes");
    assert_eq!(judged.says("Degraded").2.lines().count(), 1);
}

#[test]
fn a_volume_of_another_major_version_than_spec_asks_for_is_said_and_goes_on() {
    let service = json!({"name": "a", "database": {"managed": {"version": "17"}}});
    let mut world = World::of(json!({"services": [service]}));
    assert_eq!(world.judged().says("Degraded").0, "False");
    let annotations = world
        .claim("shop-a-postgres")
        .metadata
        .annotations
        .as_mut()
        .unwrap();
    annotations.insert("servicechain.dev/postgres-major".to_owned(), "15".to_owned());
    let judged = world.judged();
    judged.degraded(
        "VersionKept",
        "shop-a-postgres stays at PostgreSQL 15 as its volume is, and spec.services[a].database.managed.version is 17; \
         dump its data, delete the claim shop-a-postgres and its pod, and load the data again",
    );
    assert_eq!(judged.says("StoresReady").0, "True");
    assert_eq!(judged.says("Ready").0, "True");
    let database = judged.service("a").database.as_ref().unwrap();
    assert_eq!(database.version.as_deref(), Some("15"));
}
