//! What is no longer built is removed: only what the chain controls, and never what holds or opens data.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Preconditions, PropagationPolicy};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::decide::controller;
use super::{Writer, kind};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use crate::controller::dereference::Live;
use crate::controller::observed::WriteFailure;
use crate::controller::resources::{Prepared, Resources};
use crate::object_names::{COMPONENT_LABEL, accepted_config_map, bundle_config_map};

/// What was built, by kind and name, and the components that it was built for.
#[derive(Debug, Default)]
pub struct Built {
    objects: BTreeSet<(&'static str, String)>,
    components: BTreeSet<String>,
}

impl Built {
    #[must_use]
    pub fn of(prepared: &Resources<Prepared>) -> Self {
        let mut built = Self::default();
        for object in prepared.clone().into_objects() {
            let labels = object.metadata().labels.iter().flatten();
            let component = labels
                .filter(|(name, _)| *name == COMPONENT_LABEL)
                .map(|(_, value)| value.clone());
            built.components.extend(component);
            built.objects.insert((kind(&object), object.name().to_owned()));
        }
        built
    }
}

impl Writer<'_> {
    /// Removes what the chain controls and is no longer built; what runs, and what leads to it, only `once_rolled_out`.
    /// Volumes' claims are no candidates, and what opens them has no owner.
    pub async fn prune(&self, live: &Live, built: &Built, once_rolled_out: bool) -> Vec<WriteFailure> {
        let mut failures = Vec::new();
        for ((kind, name), object) in live {
            let is_candidate = *kind != "PersistentVolumeClaim"
                && *name != accepted_config_map(self.chain)
                && *name != bundle_config_map(self.chain)
                && controller(object).is_some_and(|owner| owner["uid"] == self.owner)
                && object["metadata"]["deletionTimestamp"].is_null();
            if !is_candidate || built.objects.contains(&(*kind, name.clone())) {
                continue;
            }
            let component = component(object).filter(|component| !built.components.contains(*component));
            if let Some(component) = component {
                if !once_rolled_out {
                    continue;
                }
                // Secrets cannot be listed, so they go before what tells of them.
                for secret in secrets_of(self.chain, component) {
                    failures.extend(self.remove_secret(&secret).await.err());
                }
            }
            failures.extend(self.remove(kind, object).await.err());
        }
        failures
    }

    async fn remove_secret(&self, name: &str) -> Result<(), WriteFailure> {
        let api = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        let what = format!("cannot read the Secret {name}");
        let found = within(READ_TIMEOUT, what, api.get_metadata_opt(name)).await;
        let found = found.map_err(|error| self.failure("Secret", name, "get", &error))?;
        let found = found.map(|found| json!(found));
        match found.filter(|found| controller(found).is_some_and(|owner| owner["uid"] == self.owner)) {
            Some(secret) => self.remove("Secret", &secret).await,
            None => Ok(()),
        }
    }

    /// `object` is as it was read, and only that one is removed.
    async fn remove(&self, kind: &'static str, object: &Value) -> Result<(), WriteFailure> {
        let name = word(object, "name");
        match self.delete(kind, object, None).await {
            Ok(()) => {
                tracing::info!(
                    kind,
                    name,
                    namespace = self.namespace,
                    "removed, since it is no longer built"
                );
                Ok(())
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(self.failure(kind, name, "delete", &error)),
        }
    }

    /// Removes what can be written no more, in the very version that was read.
    pub(super) async fn remove_immutable(&self, kind: &'static str, object: &Value) -> Result<(), ApiError> {
        let name = word(object, "name");
        match self
            .delete(kind, object, Some(word(object, "resourceVersion")))
            .await
        {
            Err(error) if error.code() != Some(404) => return Err(error),
            _ => {}
        }
        tracing::warn!(
            kind,
            name,
            namespace = self.namespace,
            "somebody made it immutable: it is made anew"
        );
        Ok(())
    }

    async fn delete(
        &self,
        kind: &'static str,
        object: &Value,
        version: Option<&str>,
    ) -> Result<(), ApiError> {
        let Some(resource) = removable(kind) else {
            return Ok(());
        };
        let name = word(object, "name");
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), self.namespace, &resource);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: Some(word(object, "uid").to_owned()),
                resource_version: version.map(str::to_owned),
            }),
            ..DeleteParams::default()
        };
        let what = format!("cannot delete the {kind} {name}");
        within(WRITE_TIMEOUT, what, api.delete(name, &params)).await?;
        self.metrics.wrote(kind, "delete", "done");
        Ok(())
    }
}

fn word<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"][name].as_str().unwrap_or_default()
}

/// The owned Secrets of a component. What opens a database is not among them: it goes with the volume, or never.
fn secrets_of(chain: &str, component: &str) -> Vec<String> {
    let mut ends = vec!["-ack", "-config"];
    if component.ends_with("-redis") {
        ends.push("");
    }
    ends.iter()
        .map(|end| format!("{chain}-{component}{end}"))
        .collect()
}

fn component(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][COMPONENT_LABEL].as_str()
}

/// Where objects of the kind are deleted; claims never are.
fn removable(kind: &str) -> Option<ApiResource> {
    Some(match kind {
        "ServiceAccount" => ApiResource::erase::<ServiceAccount>(&()),
        "ConfigMap" => ApiResource::erase::<ConfigMap>(&()),
        "Secret" => ApiResource::erase::<Secret>(&()),
        "Service" => ApiResource::erase::<Service>(&()),
        "NetworkPolicy" => ApiResource::erase::<NetworkPolicy>(&()),
        "PodDisruptionBudget" => ApiResource::erase::<PodDisruptionBudget>(&()),
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        "Deployment" => ApiResource::erase::<Deployment>(&()),
        _ => return None,
    })
}
