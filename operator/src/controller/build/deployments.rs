//! What verifies tokens: issuers, services, the gateway, with everything their processes are told.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use servicechain_crds::service_chain::services::ProbesSpec;

use super::config_maps::{GATEWAY_FILE, SERVICE_FILE};
use super::metadata::{owned, selector, some_list};
use super::pod::{
    self, Parts, config_map_volume, default_resources, empty_volume, mount, read_only_mount, resources,
    secret_volume,
};
use super::secrets::{ACK_KEY, ISSUER_FILE};
use super::{ADMIN_PORT, Blueprint, KEYS_PORT, MAIN_PORT, environment, probe};
use crate::object_names::{self, BUNDLE_KEY, Component};

/// Where a container of ours finds what is mounted for it.
pub(super) const CONFIG_FOLDER: &str = "/etc/servicechain";
pub(super) const ACK_FOLDER: &str = "/run/servicechain/ack";
pub(super) const BUNDLE_FOLDER: &str = "/run/servicechain/bundle";
pub(super) const STATE_FOLDER: &str = "/var/lib/servicechain";
pub(super) const KEYS_FOLDER: &str = "/run/servicechain/keys";

/// User of our images.
const UID: i64 = 65532;

/// In the order in which new templates are rolled out: issuers, services from the end of the chain, the gateway.
pub(super) fn deployments(blueprint: &Blueprint<'_>) -> Vec<Deployment> {
    let issuers = blueprint
        .chain
        .managed_issuers()
        .map(|(issuer, _)| Component::Issuer(&issuer.name));
    let mut services: Vec<_> = blueprint
        .chain
        .services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    services.sort_by_key(|name| blueprint.chain.path_from(name).count());
    let services = services.into_iter().map(Component::Service);
    issuers
        .chain(services)
        .chain([Component::Gateway])
        .map(|component| deployment(blueprint, component))
        .collect()
}

fn deployment(blueprint: &Blueprint<'_>, component: Component<'_>) -> Deployment {
    let deadline = blueprint.chain.rollout.progress_deadline.as_secs();
    Deployment {
        metadata: owned(
            blueprint,
            component,
            object_names::object(&blueprint.chain.name, component),
        ),
        spec: Some(DeploymentSpec {
            progress_deadline_seconds: i32::try_from(deadline).ok(),
            replicas: i32::try_from(blueprint.replicas(component)).ok(),
            revision_history_limit: Some(super::REVISIONS_KEPT),
            selector: selector(blueprint, component),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                    // No pod goes before its successor serves.
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: pod::template(blueprint, parts(blueprint, component)),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn parts<'a>(blueprint: &Blueprint<'a>, component: Component<'a>) -> Parts<'a> {
    let settings = blueprint.pod_settings(component);
    let images = &blueprint.settings.images;
    let service = match component {
        Component::Service(name) => blueprint.chain.service(name),
        _ => None,
    };
    let image = match component {
        Component::Gateway => &images.gateway,
        Component::Issuer(_) => &images.token_issuer,
        _ => &images.item_service,
    };
    let default_probes = ProbesSpec::default();
    let probes = service.map_or(&default_probes, |service| &service.probes);
    let (volumes, volume_mounts) = files(blueprint, component).into_iter().unzip();
    let container = Container {
        image: Some(image.clone()),
        env: Some(environment::variables(blueprint, component)),
        env_from: service.and_then(|service| some_list(environment::sources(service))),
        ports: Some(vec![
            pod::port("http", service.map_or(MAIN_PORT, |service| service.port)),
            pod::port("admin", ADMIN_PORT),
            pod::port("keys", KEYS_PORT),
        ]),
        startup_probe: Some(probe::over(
            probe::http("/livez", "admin", 1, 60),
            probes.startup.as_ref(),
        )),
        liveness_probe: Some(probe::over(
            probe::http("/livez", "admin", 10, 3),
            probes.liveness.as_ref(),
        )),
        readiness_probe: Some(probe::over(
            probe::http("/readyz", "admin", 2, 2),
            probes.readiness.as_ref(),
        )),
        volume_mounts: Some(volume_mounts),
        ..Container::default()
    };
    Parts {
        component,
        settings,
        uid: UID,
        container,
        resources: resources(settings, default_resources(20, 32, 128)),
        volumes,
        config_digest: Some(blueprint.config_digest(component)),
        revision_label: "pod-template-hash",
    }
}

fn files(blueprint: &Blueprint<'_>, component: Component<'_>) -> Vec<(Volume, VolumeMount)> {
    let chain = &blueprint.chain.name;
    let config = object_names::config(chain, component);
    let config = match component {
        Component::Issuer(_) => secret_volume("config", config, &[ISSUER_FILE]),
        Component::Gateway => config_map_volume("config", config, &[GATEWAY_FILE], false),
        _ => config_map_volume("config", config, &[SERVICE_FILE], false),
    };
    let ack = secret_volume("ack", object_names::ack_secret(chain, component), &[ACK_KEY]);
    // Without it a pod starts all the same, and is brought its keys.
    let bundle = config_map_volume(
        "bundle",
        object_names::bundle_config_map(chain),
        &[BUNDLE_KEY],
        true,
    );
    let mut files = vec![
        (config, read_only_mount("config", CONFIG_FOLDER)),
        (ack, read_only_mount("ack", ACK_FOLDER)),
        (bundle, read_only_mount("bundle", BUNDLE_FOLDER)),
        (empty_volume("state", false, 16), mount("state", STATE_FOLDER)),
    ];
    if matches!(component, Component::Issuer(_)) {
        // Private keys touch no disk.
        files.push((empty_volume("keys", true, 1), mount("keys", KEYS_FOLDER)));
    }
    files
}
