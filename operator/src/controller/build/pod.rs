//! A pod as Pod Security "restricted" wants it, with what users say about it. It must not know what runs in it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, KeyToPath,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use servicechain_crds::service_chain::pod::PodSettings;

use super::metadata::{selector, some_list, some_map, some_text};
use super::{Blueprint, quantity};
use crate::object_names::{self, CONFIG_ANNOTATION, Component};

/// Files of a `ConfigMap`: everybody in the pod may read them.
const READABLE: i32 = 0o444;
/// Files of a Secret: the container's user may read them, through the pod's group.
const READABLE_BY_GROUP: i32 = 0o440;

/// Over what pods are spread where nobody says otherwise.
const SPREAD_OVER: [&str; 2] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"];

/// What makes the pods of a component different from others.
pub(super) struct Parts<'a> {
    pub(super) component: Component<'a>,
    pub(super) settings: &'a PodSettings,
    /// User and group of every process.
    pub(super) uid: i64,
    pub(super) container: Container,
    pub(super) resources: ResourceRequirements,
    pub(super) volumes: Vec<Volume>,
    /// Of what the container reads once, at its start.
    pub(super) config_digest: Option<String>,
    /// The label that tells the pods of one revision from others.
    pub(super) revision_label: &'static str,
}

pub(super) fn template(blueprint: &Blueprint<'_>, parts: Parts<'_>) -> PodTemplateSpec {
    let Parts {
        component, settings, ..
    } = parts;
    let mut labels = settings.labels.clone();
    labels.append(&mut object_names::labels(&blueprint.chain.name, component));
    let mut annotations = settings.annotations.clone();
    annotations.extend(
        parts
            .config_digest
            .map(|digest| (CONFIG_ANNOTATION.to_owned(), digest)),
    );
    let own_account = || object_names::object(&blueprint.chain.name, component);
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![hardened(parts.container, component, parts.resources)],
        // Variables named after every Service of the namespace would mix with those of the contract.
        enable_service_links: Some(false),
        image_pull_secrets: some_list(settings.image_pull_secrets.clone()),
        node_selector: some_map(settings.node_selector.clone()),
        priority_class_name: some_text(settings.priority_class_name.clone()),
        restart_policy: Some("Always".to_owned()),
        security_context: Some(PodSecurityContext {
            fs_group: Some(parts.uid),
            // A volume of gigabytes is not walked through at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            run_as_group: Some(parts.uid),
            run_as_non_root: Some(true),
            run_as_user: Some(parts.uid),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(
            some_text(settings.service_account_name.clone()).unwrap_or_else(own_account),
        ),
        termination_grace_period_seconds: settings.termination_grace_period_seconds,
        tolerations: some_list(settings.tolerations.iter().cloned().map(toleration).collect()),
        topology_spread_constraints: some_list(spread(blueprint, component, settings, parts.revision_label)),
        volumes: some_list(parts.volumes),
        ..PodSpec::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some_map(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    }
}

/// What users say of resources, else the component's own, in the notation of the API server.
pub(super) fn resources(settings: &PodSettings, default: ResourceRequirements) -> ResourceRequirements {
    let chosen = settings.resources.clone().unwrap_or(default);
    let canonical = |amounts: Option<BTreeMap<String, Quantity>>| {
        let amounts = amounts?.into_iter();
        some_map(
            amounts
                .map(|(name, amount)| (name, quantity::canonical(&amount)))
                .collect(),
        )
    };
    ResourceRequirements {
        limits: canonical(chosen.limits),
        requests: canonical(chosen.requests),
        claims: chosen.claims.and_then(some_list),
    }
}

/// CPU in thousandths and memory in MiB. There is no limit of CPU: throttling costs latency and protects nobody that
/// requests do not protect.
pub(super) fn default_resources(cpu: u32, memory: u64, memory_limit: u64) -> ResourceRequirements {
    let memory_of = |mebibytes: u64| ("memory".to_owned(), quantity::bytes(mebibytes << 20));
    ResourceRequirements {
        limits: Some([memory_of(memory_limit)].into()),
        requests: Some([("cpu".to_owned(), Quantity(format!("{cpu}m"))), memory_of(memory)].into()),
        ..ResourceRequirements::default()
    }
}

pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        container_port: number.into(),
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

pub(super) fn read_only_mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(volume, path)
    }
}

/// All keys of the `ConfigMap`, or those that are named.
pub(super) fn config_map_volume(name: &str, config_map: String, keys: &[&str], optional: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            default_mode: Some(READABLE),
            items: items(keys),
            optional: optional.then_some(true),
        }),
        ..Volume::default()
    }
}

/// All keys of the Secret, or those that are named.
pub(super) fn secret_volume(name: &str, secret: String, keys: &[&str]) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(READABLE_BY_GROUP),
            items: items(keys),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A folder that lives as long as the pod: in memory, or on the node's disk.
pub(super) fn empty_volume(name: &str, in_memory: bool, mebibytes: u64) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: in_memory.then(|| "Memory".to_owned()),
            size_limit: Some(quantity::bytes(mebibytes << 20)),
        }),
        ..Volume::default()
    }
}

fn items(keys: &[&str]) -> Option<Vec<KeyToPath>> {
    let item = |key: &&str| KeyToPath {
        key: (*key).to_owned(),
        path: (*key).to_owned(),
        mode: None,
    };
    some_list(keys.iter().map(item).collect())
}

fn hardened(container: Container, component: Component<'_>, resources: ResourceRequirements) -> Container {
    Container {
        name: component.container().to_owned(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        resources: Some(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // The last lines of a container that ended badly then stand in the pod's status, and so in the chain's.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..container
    }
}

fn spread(
    blueprint: &Blueprint<'_>,
    component: Component<'_>,
    settings: &PodSettings,
    revision_label: &str,
) -> Vec<TopologySpreadConstraint> {
    if settings.topology_spread_constraints.is_empty() {
        return SPREAD_OVER
            .map(|key| TopologySpreadConstraint {
                label_selector: Some(selector(blueprint, component)),
                // Otherwise a rollout would spread new pods around the old ones, which are about to go.
                match_label_keys: Some(vec![revision_label.to_owned()]),
                max_skew: 1,
                topology_key: key.to_owned(),
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                ..TopologySpreadConstraint::default()
            })
            .into();
    }
    let mut constraints = settings.topology_spread_constraints.clone();
    for constraint in &mut constraints {
        // Without a selector a constraint counts no pod at all, which nobody means.
        constraint
            .label_selector
            .get_or_insert_with(|| selector(blueprint, component));
        constraint.match_label_keys = constraint.match_label_keys.take().and_then(some_list);
    }
    constraints
}

fn toleration(toleration: Toleration) -> Toleration {
    Toleration {
        effect: some_text(toleration.effect),
        key: some_text(toleration.key),
        operator: some_text(toleration.operator),
        value: some_text(toleration.value),
        ..toleration
    }
}
