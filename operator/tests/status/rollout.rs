//! Pods get a new template hop by hop, from the end of the chain; nothing waits for ever, and nothing else waits at all.

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::operations::RolloutOrder;
use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{NumericDate, PodId};
use servicechain_operator::controller::observed::Observed;
use servicechain_operator::controller::resources::{Prepared, Resources};
use servicechain_operator::controller::rollout::{Gated, TEMPLATE_ANNOTATION, gate};
use servicechain_operator::key_controller::KeyState;
use servicechain_operator::key_controller::state::Laggard;

use crate::world::{World, deployment, keys, pod, read, replica_set};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// In the order of rollouts.
const HOPS: [(&str, &str); 5] = [
    ("shop-issuer-platform", "issuer-platform"),
    ("shop-c", "c"),
    ("shop-b", "b"),
    ("shop-a", "a"),
    ("shop-gateway", "gateway"),
];

fn built(image: impl Fn(&str) -> String) -> Resources<Prepared> {
    let deployments = HOPS.iter().map(|(name, component)| {
        let mut built = DEPLOYMENT.clone();
        rename(&mut built.metadata, name, component);
        built.status = None;
        built.metadata.uid = None;
        built.metadata.generation = None;
        set_image(&mut built, image(name));
        built
    });
    Resources {
        deployments: deployments.collect(),
        ..Resources::default()
    }
}

fn rename(metadata: &mut ObjectMeta, name: &str, component: &str) {
    metadata.name = Some(name.to_owned());
    metadata.uid = Some(name.to_owned());
    if let Some(labels) = &mut metadata.labels {
        labels.insert("servicechain.dev/component".to_owned(), component.to_owned());
    }
}

fn own(metadata: &mut ObjectMeta, owner: &str) {
    owner.clone_into(&mut metadata.owner_references.as_mut().unwrap()[0].uid);
}

fn set_image(deployment: &mut Deployment, image: String) {
    let pod = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    pod.containers[0].image = Some(image);
}

fn template(deployment: &Deployment) -> &PodTemplateSpec {
    &deployment.spec.as_ref().unwrap().template
}

static CHAIN: LazyLock<ValidatedChain> = LazyLock::new(|| World::ready().accepted.chain().unwrap().clone());
static DEPLOYMENT: LazyLock<Deployment> = LazyLock::new(|| deployment("any", "any"));
static REPLICA_SET: LazyLock<ReplicaSet> = LazyLock::new(|| replica_set("any", "any", 0));
static POD: LazyLock<Pod> = LazyLock::new(|| pod("any", "any", "any"));

/// The cluster as it is once everything of `resources` has been applied.
fn settled(resources: Resources<Prepared>) -> Observed {
    let mut world = World::ready();
    let gated = gate(resources, &CHAIN, &Observed::default(), None);
    assert!(
        gated.held.is_empty(),
        "the first install holds nothing: {:?}",
        gated.held
    );
    for applied in gated.resources.deployments {
        let name = applied.metadata.name.clone().unwrap();
        world.deployment(&name).spec = applied.spec;
    }
    world.observed
}

fn ready() -> KeyState {
    keys(10)
}

fn held(gated: &Gated) -> Vec<&str> {
    gated.held.iter().map(|held| held.name.as_str()).collect()
}

fn new(name: &str) -> String {
    format!("{name}:new")
}

fn old(name: &str) -> String {
    format!("{name}:old")
}

#[test]
fn the_last_service_goes_first_and_the_gateway_last() {
    let mut done: Vec<&str> = Vec::new();
    for (name, _) in HOPS {
        let observed = settled(built(|hop| if done.contains(&hop) { new(hop) } else { old(hop) }));
        let gated = gate(built(new), &CHAIN, &observed, Some(&ready()));
        let rest: Vec<&str> = HOPS
            .iter()
            .map(|(hop, _)| *hop)
            .filter(|hop| !done.contains(hop) && *hop != name)
            .collect();
        assert_eq!(held(&gated), rest, "it is the turn of {name}");
        assert!(!gated.is_rolled_out);
        done.push(name);
    }
    let gated = gate(built(new), &CHAIN, &settled(built(new)), Some(&ready()));
    assert!(gated.held.is_empty() && gated.is_rolled_out);
}

#[test]
fn a_held_deployment_keeps_its_live_template_byte_for_byte_and_is_scaled_all_the_same() {
    let mut observed = settled(built(old));
    for live in &mut observed.deployments {
        // What the API server and others add.
        let template = &mut live.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().dns_policy = Some("ClusterFirst".to_owned());
        let annotations = template.metadata.as_mut().unwrap().annotations.as_mut().unwrap();
        annotations.insert(
            "kubectl.kubernetes.io/restartedAt".to_owned(),
            "2026-01-01".to_owned(),
        );
    }
    let mut wanted = built(new);
    for deployment in &mut wanted.deployments {
        deployment.spec.as_mut().unwrap().replicas = Some(5);
    }
    let gated = gate(wanted, &CHAIN, &observed, Some(&ready()));
    let gateway = gated.resources.deployments.last().unwrap();
    let live = observed
        .deployments
        .iter()
        .find(|live| live.metadata.name == gateway.metadata.name)
        .unwrap();
    let bytes = |deployment| serde_json::to_vec(template(deployment)).unwrap();
    assert_eq!(bytes(gateway), bytes(live));
    assert_eq!(gateway.spec.as_ref().unwrap().replicas, Some(5));
    assert_eq!(held(&gated).len(), 4);
}

#[test]
fn in_parallel_nothing_waits() {
    let mut chain = CHAIN.clone();
    chain.rollout.order = RolloutOrder::Parallel;
    let gated = gate(built(new), &chain, &settled(built(old)), Some(&ready()));
    assert!(gated.held.is_empty());
}

#[test]
fn what_is_not_there_is_made_at_once() {
    let mut observed = settled(built(old));
    observed
        .deployments
        .retain(|live| live.metadata.name.as_deref() != Some("shop-a"));
    let gated = gate(built(new), &CHAIN, &observed, Some(&ready()));
    assert_eq!(held(&gated), ["shop-c", "shop-b", "shop-gateway"]);
}

#[test]
fn the_same_template_waits_for_nothing_whatever_else_was_added_to_it() {
    let mut observed = settled(built(old));
    observed
        .deployments
        .iter_mut()
        .for_each(|live| live.status = None);
    let gated = gate(built(old), &CHAIN, &observed, None);
    assert!(gated.held.is_empty());
    let marks = |deployments: &[Deployment]| -> Vec<String> {
        let mark = |one: &Deployment| {
            template(one)
                .metadata
                .as_ref()
                .unwrap()
                .annotations
                .as_ref()
                .unwrap()[TEMPLATE_ANNOTATION]
                .clone()
        };
        deployments.iter().map(mark).collect()
    };
    let again = gate(built(old), &CHAIN, &observed, None);
    assert_eq!(
        marks(&gated.resources.deployments),
        marks(&again.resources.deployments)
    );
}

/// The gateway changes, and `shop-c` before it is not done.
fn held_because(unfinished: impl FnOnce(&mut World, &mut KeyState)) -> String {
    let wanted = || built(|hop| if hop == "shop-gateway" { new(hop) } else { old(hop) });
    let mut world = World::ready();
    world.observed = settled(built(old));
    let mut keys = ready();
    assert!(
        gate(wanted(), &CHAIN, &world.observed, Some(&keys))
            .held
            .is_empty()
    );
    unfinished(&mut world, &mut keys);
    let gated = gate(wanted(), &CHAIN, &world.observed, Some(&keys));
    let [held] = gated.held.as_slice() else {
        panic!("{:?}", gated.held);
    };
    assert_eq!(
        (held.name.as_str(), held.behind.as_str()),
        ("shop-gateway", "shop-c")
    );
    held.because.clone()
}

#[test]
fn a_step_is_done_only_when_all_of_it_is() {
    let because = held_because(|world, _| world.deployment("shop-c").metadata.generation = Some(3));
    assert_eq!(because, "2 of 2 pods have its newest template");
    let because =
        held_because(|world, _| world.counts("shop-c", json!({"replicas": 3, "updatedReplicas": 1})));
    assert_eq!(because, "1 of 2 pods have its newest template");
    let because = held_because(|world, _| world.counts("shop-c", json!({"availableReplicas": 1})));
    assert_eq!(because, "1 of 2 pods are available");
    let because = held_because(|world, _| {
        world
            .observed
            .replica_sets
            .push(replica_set("shop-c-6b7c", "shop-c", 0));
        let mut older = pod("shop-c-6b7c-x1", "c", "shop-c-6b7c");
        older.metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
        world.observed.pods.push(older);
    });
    assert_eq!(because, "its older pod shop-c-6b7c-x1 is still there");
    let because = held_because(|_, keys| keys.laggards.push(laggard("shop-c-7d9f-x2")));
    assert_eq!(because, "its pod shop-c-7d9f-x2 does not hold the newest keys");
    let because = held_because(|world, _| {
        world.counts("shop-c", json!({"readyReplicas": 1, "availableReplicas": 1}));
        world.container(
            "shop-c-7d9f-x1",
            json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}),
        );
    });
    assert_eq!(
        because,
        "shop-c-7d9f-x1: image registry.example/b:4 does not pull (denied)"
    );
}

#[test]
fn an_older_pod_on_a_lost_node_holds_nothing() {
    let mut world = World::ready();
    world.observed = settled(built(old));
    world
        .observed
        .replica_sets
        .push(replica_set("shop-c-6b7c", "shop-c", 0));
    let mut lost = pod("shop-c-6b7c-x1", "c", "shop-c-6b7c");
    lost.metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
    let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"});
    lost.status
        .as_mut()
        .unwrap()
        .conditions
        .as_mut()
        .unwrap()
        .push(read(target));
    world.observed.pods.push(lost);
    let gated = gate(
        built(|hop| if hop == "shop-gateway" { new(hop) } else { old(hop) }),
        &CHAIN,
        &world.observed,
        Some(&ready()),
    );
    assert!(gated.held.is_empty(), "{:?}", gated.held);
}

#[test]
fn what_mends_a_stuck_hop_goes_there_at_once() {
    let mut world = World::ready();
    world.observed = settled(built(old));
    world.counts("shop-a", json!({"replicas": 3, "updatedReplicas": 1}));
    let waiting = json!({"reason": "ErrImagePull", "message": "denied"});
    world.container("shop-a-7d9f-x1", json!({"state": {"waiting": waiting}}));
    let gated = gate(built(new), &CHAIN, &world.observed, Some(&ready()));
    // And nothing else beside it, until it is mended or stuck again.
    assert_eq!(
        held(&gated),
        ["shop-issuer-platform", "shop-c", "shop-b", "shop-gateway"]
    );
    assert!(
        gated.held[0].to_string().contains("until shop-a is done"),
        "{}",
        gated.held[0]
    );
}

#[test]
fn while_nobody_knows_who_holds_the_keys_what_is_held_says_so() {
    let gated = gate(built(new), &CHAIN, &settled(built(old)), None);
    assert_eq!(held(&gated), ["shop-c", "shop-b", "shop-a", "shop-gateway"]);
    let observed = settled(built(|hop| {
        if hop == "shop-issuer-platform" {
            new(hop)
        } else {
            old(hop)
        }
    }));
    let gated = gate(built(new), &CHAIN, &observed, None);
    assert_eq!(gated.held[0].name, "shop-c");
    assert_eq!(
        gated.held[0].because,
        "its pods are being asked which keys they hold"
    );
}

fn laggard(pod: &str) -> Laggard {
    Laggard {
        name: pod.to_owned(),
        pod: PodId::new(pod).unwrap(),
        generation: None,
        reason: LaggardReason::Behind,
        falsehood: None,
        since: NumericDate::from_seconds(0),
    }
}

/// A Deployment and its pods, as its controller treats them: a new pod at a time, and an old one goes when it is ready.
struct Simulated {
    live: Deployment,
    pods: Vec<SimulatedPod>,
    made: u32,
    /// It was stuck when it or another began, so the two may overlap.
    is_excused: bool,
}

#[derive(Clone)]
struct SimulatedPod {
    name: String,
    image: String,
    is_ready: bool,
    holds_keys: bool,
}

struct Cluster {
    hops: Vec<Simulated>,
    wanted: Vec<u32>,
    /// Images that do not pull, just now.
    broken: Vec<String>,
    random: StdRng,
}

const REPLICAS: usize = 2;

impl Simulated {
    fn image(&self) -> &str {
        template(&self.live).spec.as_ref().unwrap().containers[0]
            .image
            .as_deref()
            .unwrap()
    }

    fn newest(&self) -> usize {
        self.pods.iter().filter(|pod| pod.image == self.image()).count()
    }

    fn is_complete(&self) -> bool {
        self.newest() == REPLICAS && self.pods.len() == REPLICAS && self.pods.iter().all(|pod| pod.is_ready)
    }

    fn is_stuck(&self, broken: &[String]) -> bool {
        let failing = |pod: &SimulatedPod| !pod.is_ready && broken.contains(&pod.image);
        self.pods.iter().any(failing) || !self.pods.iter().any(|pod| pod.is_ready)
    }

    fn step(&mut self, broken: &[String], random: &mut StdRng) {
        let image = self.image().to_owned();
        match random.random_range(0..4) {
            0 if self.pods.len() <= REPLICAS && self.newest() < REPLICAS => {
                self.made += 1;
                let name = format!("{}-{}", self.live.metadata.name.as_ref().unwrap(), self.made);
                self.pods.push(SimulatedPod {
                    name,
                    image,
                    is_ready: false,
                    holds_keys: false,
                });
            }
            1 => {
                let mut pods = self.pods.iter_mut();
                if let Some(pod) = pods.find(|pod| !pod.is_ready && !broken.contains(&pod.image)) {
                    pod.is_ready = true;
                }
            }
            2 => {
                if let Some(pod) = self.pods.iter_mut().find(|pod| !pod.holds_keys) {
                    pod.holds_keys = true;
                }
            }
            _ => {
                let ready = self.pods.iter().filter(|pod| pod.is_ready).count();
                let old = self
                    .pods
                    .iter()
                    .position(|pod| pod.image != image && (ready > REPLICAS || !pod.is_ready));
                if let Some(index) = old {
                    self.pods.remove(index);
                }
            }
        }
    }

    fn observe(&self, broken: &[String], observed: &mut Observed) {
        let name = self.live.metadata.name.clone().unwrap();
        let component = self.live.metadata.labels.as_ref().unwrap()["servicechain.dev/component"].clone();
        let mut images: Vec<&str> = self
            .pods
            .iter()
            .map(|pod| pod.image.as_str())
            .chain([self.image()])
            .collect();
        images.sort_unstable();
        images.dedup();
        for image in images {
            let revision = u32::from(image == self.image());
            let mut set = REPLICA_SET.clone();
            rename(&mut set.metadata, &format!("{name}-{image}"), &component);
            own(&mut set.metadata, &name);
            let annotations = set.metadata.annotations.as_mut().unwrap();
            annotations.insert(REVISION.to_owned(), revision.to_string());
            observed.replica_sets.push(set);
        }
        for simulated in &self.pods {
            let mut pod = POD.clone();
            rename(&mut pod.metadata, &simulated.name, &component);
            own(&mut pod.metadata, &format!("{name}-{}", simulated.image));
            let status = pod.status.as_mut().unwrap();
            if !simulated.is_ready {
                "False".clone_into(&mut status.conditions.as_mut().unwrap()[1].status);
                let container = &mut status.container_statuses.as_mut().unwrap()[0];
                container.ready = false;
                container.started = Some(false);
                let is_broken = broken.contains(&simulated.image);
                let reason = if is_broken {
                    "ErrImagePull"
                } else {
                    "ContainerCreating"
                };
                container.state = Some(read(json!({"waiting": {"reason": reason}})));
            }
            observed.pods.push(pod);
        }
        let mut live = self.live.clone();
        let count = |number: usize| Some(i32::try_from(number).unwrap());
        let ready = self.pods.iter().filter(|pod| pod.is_ready).count();
        let status = live.status.as_mut().unwrap();
        status.replicas = count(self.pods.len());
        status.updated_replicas = count(self.newest());
        status.ready_replicas = count(ready);
        status.available_replicas = count(ready);
        status.conditions = None;
        observed.deployments.push(live);
    }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let gated = gate(
            built(|hop| format!("{hop}:0")),
            &CHAIN,
            &Observed::default(),
            None,
        );
        let hops = gated.resources.deployments.into_iter().map(|applied| {
            let name = applied.metadata.name.clone().unwrap();
            let component = HOPS.iter().find(|(hop, _)| *hop == name).unwrap().1;
            let mut live = deployment(&name, component);
            live.spec = applied.spec;
            let pods = (0..REPLICAS).map(|index| SimulatedPod {
                name: format!("{name}-old-{index}"),
                image: format!("{name}:0"),
                is_ready: true,
                holds_keys: true,
            });
            Simulated {
                pods: pods.collect(),
                live,
                made: 0,
                is_excused: false,
            }
        });
        Self {
            hops: hops.collect(),
            wanted: vec![0; HOPS.len()],
            broken: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// One pass of the operator, as `apply` would do it. It returns the held.
    fn pass(&mut self) -> Vec<String> {
        let mut observed = Observed::default();
        let mut state = ready();
        for hop in &self.hops {
            hop.observe(&self.broken, &mut observed);
            let lagging = hop.pods.iter().filter(|pod| !pod.holds_keys);
            state.laggards.extend(lagging.map(|pod| laggard(&pod.name)));
        }
        let knows_keys = self.random.random_range(0..5) > 0;
        let wanted = built(|name| {
            let index = HOPS.iter().position(|(hop, _)| *hop == name).unwrap();
            format!("{name}:{}", self.wanted[index])
        });
        let marked = gate(wanted.clone(), &CHAIN, &Observed::default(), None).resources;
        let gated = gate(wanted, &CHAIN, &observed, knows_keys.then_some(&state));
        let stuck: Vec<bool> = self.hops.iter().map(|hop| hop.is_stuck(&self.broken)).collect();
        let mut began = Vec::new();
        for (index, applied) in gated.resources.deployments.into_iter().enumerate() {
            if template(&applied) != template(&self.hops[index].live) {
                assert_eq!(template(&applied), template(&marked.deployments[index]));
                if !stuck[index] {
                    let wanted = self.wanted.iter().zip(HOPS);
                    for (earlier, (wanted, (name, _))) in self.hops.iter().zip(wanted).take(index) {
                        let image = format!("{name}:{wanted}");
                        assert!(
                            earlier.is_complete() && earlier.image() == image,
                            "{} went before its turn",
                            HOPS[index].0
                        );
                    }
                }
                self.hops[index].live.spec = applied.spec;
                began.push(index);
            }
        }
        if !began.is_empty() {
            for (hop, is_stuck) in self.hops.iter_mut().zip(stuck) {
                hop.is_excused |= is_stuck;
            }
        }
        for hop in &mut self.hops {
            hop.is_excused &= !hop.is_complete();
        }
        let rolling = self
            .hops
            .iter()
            .filter(|hop| !hop.is_complete() && !hop.is_excused);
        assert!(rolling.count() <= 1, "two hops roll at once");
        gated.held.into_iter().map(|held| held.to_string()).collect()
    }

    fn move_on(&mut self) {
        let (broken, random) = (&self.broken, &mut self.random);
        self.hops.iter_mut().for_each(|hop| hop.step(broken, random));
    }

    fn edit(&mut self) {
        for (wanted, (name, _)) in self.wanted.iter_mut().zip(HOPS) {
            if self.random.random_range(0..2) == 0 {
                *wanted += 1;
                if self.random.random_range(0..4) == 0 {
                    self.broken.push(format!("{name}:{wanted}"));
                }
            }
        }
    }

    fn mend(&mut self) {
        for (wanted, (name, _)) in self.wanted.iter_mut().zip(HOPS) {
            if self.broken.contains(&format!("{name}:{wanted}")) {
                *wanted += 1;
            }
        }
    }

    fn is_done(&self) -> bool {
        let mut hops = self.hops.iter().zip(&self.wanted).zip(HOPS);
        hops.all(|((hop, wanted), (name, _))| hop.is_complete() && hop.image() == format!("{name}:{wanted}"))
    }
}

#[test]
fn whatever_happens_at_most_one_hop_rolls_and_the_rollout_ends_when_pods_are_well() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..120 {
            match cluster.random.random_range(0..24) {
                0 => cluster.edit(),
                1 => cluster.broken.clear(),
                2..8 => drop(cluster.pass()),
                _ => cluster.move_on(),
            }
        }
        // Pods become well by themselves, or by a change of what they are.
        if seed % 2 == 0 {
            cluster.broken.clear();
        } else {
            cluster.mend();
        }
        let mut held = Vec::new();
        for _ in 0..2_000 {
            if cluster.is_done() && held.is_empty() {
                break;
            }
            cluster.move_on();
            held = cluster.pass();
        }
        assert!(cluster.is_done() && held.is_empty(), "seed {seed}: {held:?}");
    }
}
