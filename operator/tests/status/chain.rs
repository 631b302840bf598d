//! What is said of a chain as a whole: where all is well, in which order causes are named, rollouts, refused specs, the URL.

use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::ServiceChainStatus;
use servicechain_operator::controller::accepted::judge;
use servicechain_operator::controller::rollout::Held;

use crate::pods::none_yet;
use crate::stores::without_volume;
use crate::world::{World, gateway_service, read};

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
