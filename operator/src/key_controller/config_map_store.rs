//! The newest bundle in the chain's `ConfigMap`: created, or replaced whole in the version that was read. Never applied:
//! a merge or a forced write could take a newer bundle back. It must not know what is in it.

use std::collections::BTreeMap;
use std::str;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};

use super::place::{Claim, PlaceError, Stored};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use crate::object_names::{BUNDLE_KEY, CHAIN_LABEL, chain_labels};

/// The one writer of bundles, as the API server knows it.
pub const FIELD_MANAGER: &str = "servicechain.dev/keys";

#[derive(Clone, Debug)]
pub(super) struct ConfigMapStore {
    api: Api<ConfigMap>,
    name: String,
    owner: OwnerReference,
    labels: BTreeMap<String, String>,
}

impl ConfigMapStore {
    pub(super) fn new(api: Api<ConfigMap>, name: String, owner: OwnerReference, chain: &str) -> Self {
        Self {
            api,
            name,
            owner,
            labels: chain_labels(chain),
        }
    }

    pub(super) async fn read(&self) -> Result<Option<Stored>, PlaceError> {
        let what = format!("cannot read ConfigMap {}", self.name);
        let Some(map) = within(READ_TIMEOUT, what, self.api.get_opt(&self.name)).await? else {
            return Ok(None);
        };
        Ok(Some(Stored {
            version: map.metadata.resource_version.clone().unwrap_or_default(),
            claim: self.claim(&map)?,
            bytes: map
                .data
                .and_then(|mut data| data.remove(BUNDLE_KEY))
                .unwrap_or_default()
                .into_bytes(),
        }))
    }

    /// What it is now, without its content.
    pub(super) async fn version(&self) -> Result<Option<String>, ApiError> {
        let what = format!("cannot read ConfigMap {}", self.name);
        let map = within(READ_TIMEOUT, what, self.api.get_metadata_opt(&self.name)).await?;
        Ok(map.and_then(|map| map.metadata.resource_version))
    }

    pub(super) async fn replace(&self, read: Option<&str>, bytes: &[u8]) -> Result<String, PlaceError> {
        let map = self.config_map(read, bytes);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let what = format!("cannot write ConfigMap {}", self.name);
        let mut written = match read {
            None => within(WRITE_TIMEOUT, what.clone(), self.api.create(&params, &map)).await,
            Some(_) => {
                within(
                    WRITE_TIMEOUT,
                    what.clone(),
                    self.api.replace(&self.name, &params, &map),
                )
                .await
            }
        };
        if let (Some(read), Err(error)) = (read, &written)
            && error.code() == Some(422)
            && self.remove_immutable(read).await?
        {
            // Where this does not happen, the bundle is adopted from pods (ADR 3).
            let new = self.config_map(None, bytes);
            written = within(WRITE_TIMEOUT, what, self.api.create(&params, &new)).await;
        }
        match written {
            Ok(map) => Ok(map.metadata.resource_version.unwrap_or_default()),
            Err(error) if error.code() == Some(409) => Err(PlaceError::Conflict),
            // It was deleted since it was read.
            Err(error) if read.is_some() && error.code() == Some(404) => Err(PlaceError::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the map that was read was one that nobody can write any more, and is gone now.
    async fn remove_immutable(&self, read: &str) -> Result<bool, PlaceError> {
        let what = format!("cannot read ConfigMap {}", self.name);
        let map = within(READ_TIMEOUT, what, self.api.get_opt(&self.name)).await?;
        let map = map.ok_or(PlaceError::Conflict)?;
        if map.metadata.resource_version.as_deref() != Some(read) {
            return Err(PlaceError::Conflict);
        }
        if map.immutable != Some(true) {
            return Ok(false);
        }
        if map.metadata.finalizers.is_some_and(|all| !all.is_empty()) {
            return Err(PlaceError::Immutable(self.name.clone()));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: map.metadata.uid,
                resource_version: Some(read.to_owned()),
            }),
            ..DeleteParams::default()
        };
        let what = format!("cannot delete ConfigMap {}, which is immutable", self.name);
        match within(WRITE_TIMEOUT, what, self.api.delete(&self.name, &params)).await {
            Ok(_) => {
                tracing::warn!(
                    name = self.name,
                    "somebody made the chain's keys immutable: their ConfigMap is made anew"
                );
                Ok(true)
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => Err(PlaceError::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    fn config_map(&self, version: Option<&str>, bytes: &[u8]) -> ConfigMap {
        // A compact JWS is ASCII.
        let bundle = str::from_utf8(bytes).unwrap_or_default().to_owned();
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle)])),
            ..ConfigMap::default()
        }
    }

    fn claim(&self, map: &ConfigMap) -> Result<Claim, PlaceError> {
        let owners = map.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true));
        if let Some(other) = controller.filter(|owner| owner.uid != self.owner.uid) {
            return Err(PlaceError::NameTaken {
                name: self.name.clone(),
                owner: format!("{} {}", other.kind, other.name),
            });
        }
        let labels = map.metadata.labels.as_ref();
        let has =
            |(name, value): (&String, &String)| labels.is_some_and(|labels| labels.get(name) == Some(value));
        let is_ours = controller.is_some()
            || self
                .labels
                .iter()
                .filter(|(name, _)| *name == CHAIN_LABEL)
                .any(has);
        let is_alone = map.data.as_ref().is_some_and(|data| data.len() == 1)
            && map.binary_data.as_ref().is_none_or(BTreeMap::is_empty)
            && map.immutable != Some(true);
        Ok(match is_ours {
            true if controller.is_some() && is_alone && self.labels.iter().all(has) => Claim::Intact,
            true => Claim::Changed,
            false => Claim::Unclaimed,
        })
    }
}
