//! A cache: one Redis that keeps nothing. Its configuration holds its password, so all of it is in a Secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use servicechain_crds::service_chain::pod::PodSettings;
use servicechain_keys::Workload;
use zeroize::Zeroizing;

use super::pod::{
    self, Parts, default_resources, empty_volume, mount, read_only_mount, resources, secret_volume,
};
use super::{Blueprint, REDIS_PORT, digest, probe, quantity};
use crate::object_names::{self, Component};

/// Keys of its Secret.
pub(super) const CONFIG_KEY: &str = "redis.conf";
pub(super) const URL_KEY: &str = "url";

/// User of the official image.
const UID: i64 = 999;
const CONFIG_FOLDER: &str = "/etc/redis";

/// Derived: a Secret that was deleted comes back as it was, and pods that run still fit. No workload is called so: names
/// are DNS labels, without dots.
pub(super) fn password(blueprint: &Blueprint<'_>, component: Component<'_>) -> Zeroizing<String> {
    let workload = Workload::new(format!("{}.password", component.label()));
    workload
        .map(|workload| blueprint.root.ack_key(&blueprint.chain_id, &workload).to_text())
        .unwrap_or_default()
}

pub(super) fn config(password: &str, max_memory_bytes: u64) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "# Nothing is written to disk: what it forgets is read from the database again.\n\
         port {REDIS_PORT}\n\
         protected-mode no\n\
         requirepass {password}\n\
         maxmemory {max_memory_bytes}\n\
         maxmemory-policy allkeys-lru\n\
         save \"\"\n\
         appendonly no\n\
         dir /data\n"
    ))
}

pub(super) fn parts<'a>(
    blueprint: &Blueprint<'_>,
    component: Component<'a>,
    max_memory_bytes: u64,
    settings: &'a PodSettings,
) -> Parts<'a> {
    let container = Container {
        image: Some(blueprint.settings.images.redis.clone()),
        args: Some(vec![
            "redis-server".to_owned(),
            format!("{CONFIG_FOLDER}/{CONFIG_KEY}"),
        ]),
        ports: Some(vec![pod::port("redis", REDIS_PORT)]),
        startup_probe: Some(probe::tcp("redis", 1, 60)),
        liveness_probe: Some(probe::tcp("redis", 10, 3)),
        readiness_probe: Some(probe::tcp("redis", 5, 2)),
        volume_mounts: Some(vec![
            read_only_mount("config", CONFIG_FOLDER),
            mount("data", "/data"),
        ]),
        ..Container::default()
    };
    let secret = object_names::store_secret(&blueprint.chain.name, component);
    Parts {
        component,
        settings,
        uid: UID,
        container,
        resources: memory(settings, max_memory_bytes),
        volumes: vec![
            secret_volume("config", secret, &[CONFIG_KEY]),
            empty_volume("data", false, 16),
        ],
        config_digest: Some(digest(&[&config(
            &password(blueprint, component),
            max_memory_bytes,
        )])),
        revision_label: "controller-revision-hash",
    }
}

/// The limit lies above what Redis may fill with items, whatever is said of resources: buffers and fragmentation come on
/// top, and a Redis that is killed for them starts empty.
fn memory(settings: &PodSettings, max_memory_bytes: u64) -> ResourceRequirements {
    let mebibytes = max_memory_bytes.div_ceil(1 << 20);
    let needed = mebibytes + mebibytes / 2 + 32;
    let mut resources = resources(settings, default_resources(10, mebibytes + 16, needed));
    let said = |amounts: Option<&BTreeMap<String, Quantity>>| {
        amounts
            .and_then(|amounts| quantity::whole(amounts.get("memory")?))
            .unwrap_or_default()
    };
    let (limit, request) = (said(resources.limits.as_ref()), said(resources.requests.as_ref()));
    let least = request.max(needed << 20);
    if limit < least {
        let limits = resources.limits.get_or_insert_default();
        limits.insert("memory".to_owned(), quantity::bytes(least));
    }
    resources
}
