//! The volume of each managed database: an object of its own, so that it outlives its `StatefulSet` and its chain.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};

use super::metadata::{kept, owned};
use super::{Blueprint, quantity};
use crate::object_names::{self, POSTGRES_MAJOR_ANNOTATION};
use servicechain_crds::service_chain::stores::DeletionPolicy;

pub(super) fn persistent_volume_claims(blueprint: &Blueprint<'_>) -> Vec<PersistentVolumeClaim> {
    let databases = blueprint.databases.iter();
    databases
        .map(|(component, database)| {
            let name = object_names::object(&blueprint.chain.name, *component);
            let mut metadata = match database.spec.deletion_policy {
                DeletionPolicy::Retain => kept(blueprint, *component, name),
                DeletionPolicy::Delete => owned(blueprint, *component, name),
            };
            metadata.annotations =
                Some([(POSTGRES_MAJOR_ANNOTATION.to_owned(), database.major.clone())].into());
            PersistentVolumeClaim {
                metadata,
                spec: Some(PersistentVolumeClaimSpec {
                    access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                    resources: Some(VolumeResourceRequirements {
                        requests: Some(
                            [("storage".to_owned(), quantity::bytes(database.spec.storage_bytes))].into(),
                        ),
                        ..VolumeResourceRequirements::default()
                    }),
                    storage_class_name: database.spec.storage_class.clone(),
                    volume_mode: Some("Filesystem".to_owned()),
                    ..PersistentVolumeClaimSpec::default()
                }),
                ..PersistentVolumeClaim::default()
            }
        })
        .collect()
}
