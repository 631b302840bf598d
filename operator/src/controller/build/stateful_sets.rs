//! The stores: one pod each, that is never run twice at once.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use servicechain_crds::validated::Cache;

use super::metadata::{owned, selector};
use super::pod::{self, Parts};
use super::{Blueprint, postgres, redis};
use crate::object_names::{self, Component};

pub(super) fn stateful_sets(blueprint: &Blueprint<'_>) -> Vec<StatefulSet> {
    let databases = blueprint
        .databases
        .iter()
        .filter_map(|(component, database)| postgres::parts(blueprint, *component, database));
    let caches = blueprint.chain.services.iter().filter_map(|service| {
        let Cache::Managed {
            max_memory_bytes,
            pod,
        } = service.cache.as_ref()?;
        Some(redis::parts(
            blueprint,
            Component::Cache {
                service: &service.name,
            },
            *max_memory_bytes,
            pod,
        ))
    });
    databases
        .chain(caches)
        .map(|parts| stateful_set(blueprint, parts))
        .collect()
}

fn stateful_set(blueprint: &Blueprint<'_>, parts: Parts<'_>) -> StatefulSet {
    let component = parts.component;
    let name = object_names::object(&blueprint.chain.name, component);
    StatefulSet {
        metadata: owned(blueprint, component, name.clone()),
        spec: Some(StatefulSetSpec {
            // With OrderedReady, a pod that never becomes Ready is not replaced when its template is mended.
            pod_management_policy: Some("Parallel".to_owned()),
            replicas: Some(1),
            revision_history_limit: Some(super::REVISIONS_KEPT),
            selector: selector(blueprint, component),
            service_name: Some(name),
            template: pod::template(blueprint, parts),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}
