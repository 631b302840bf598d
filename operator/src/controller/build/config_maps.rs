//! The files that pods read at their start, as far as they hold no secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use servicechain_crds::validated::Database;

use super::metadata::owned;
use super::{Blueprint, configuration, postgres};
use crate::object_names::{self, Component};

/// Names of the files, as the programs expect them.
pub(super) const GATEWAY_FILE: &str = "gateway.yaml";
pub(super) const SERVICE_FILE: &str = "service.yaml";

pub(super) fn config_maps(blueprint: &Blueprint<'_>) -> Vec<ConfigMap> {
    let gateway = (
        Component::Gateway,
        vec![(
            GATEWAY_FILE,
            configuration::gateway(blueprint.chain, &blueprint.places()),
        )],
    );
    let services = blueprint.chain.services.iter().flat_map(|service| {
        let file = (SERVICE_FILE, configuration::service(blueprint.chain, service));
        let database = service.database.as_ref().map(|Database::Managed(_)| {
            let component = Component::Database {
                service: &service.name,
            };
            (
                component,
                postgres::FILES.map(|(name, text)| (name, text.to_owned())).into(),
            )
        });
        [Some((Component::Service(&service.name), vec![file])), database]
            .into_iter()
            .flatten()
    });
    services
        .chain([gateway])
        .map(|(component, files)| config_map(blueprint, component, files))
        .collect()
}

fn config_map(blueprint: &Blueprint<'_>, component: Component<'_>, files: Vec<(&str, String)>) -> ConfigMap {
    let data: BTreeMap<_, _> = files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect();
    ConfigMap {
        metadata: owned(
            blueprint,
            component,
            object_names::config(&blueprint.chain.name, component),
        ),
        data: Some(data),
        ..ConfigMap::default()
    }
}
