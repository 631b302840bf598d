//! From what was built to what the API server returned: each object applied where it differs, and what is no longer
//! built removed. What somebody else controls is never touched. It must not know why anything was built.

mod decide;
mod prune;

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};
use servicechain_keys::Digest;

use self::decide::{Decision, decide};
pub use self::prune::Built;
use super::dereference::Live;
use super::observed::{NameTaken, Refusal, WriteFailure};
use super::resources::{Applied, Object, Prepared, Resources};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use crate::metrics::Metrics;
use crate::object_names::BUILT_ANNOTATION;

/// Who the API server says last set a field of an object.
pub const FIELD_MANAGER: &str = "servicechain.dev/objects";
const STUCK_SAYS: &str = "it is immutable, and finalizers keep it from being made anew: remove them";
/// Objects written at a time.
const CONCURRENCY: usize = 8;

/// Writes the objects of one chain.
pub struct Writer<'a> {
    pub client: &'a Client,
    pub metrics: &'a Metrics,
    pub namespace: &'a str,
    /// Name of the chain.
    pub chain: &'a str,
    /// Its uid.
    pub owner: &'a str,
}

/// What came of a pass.
#[derive(Debug, Default)]
pub struct Outcome {
    pub applied: Resources<Applied>,
    pub name_taken: Vec<NameTaken>,
    pub write_failures: Vec<WriteFailure>,
    /// An object of ours is still being deleted, so it could not be made anew yet.
    pub waits_for_an_end: bool,
}

impl Outcome {
    /// Everything that was prepared stands in the cluster.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.name_taken.is_empty() && self.write_failures.is_empty() && !self.waits_for_an_end
    }

    fn take_in(&mut self, one: One) {
        match one {
            One::Stands(object) => self.applied.push(*object),
            One::Taken(taken) => self.name_taken.push(taken),
            One::Failed(failure) => self.write_failures.push(failure),
            One::Ends => self.waits_for_an_end = true,
        }
    }
}

enum One {
    Stands(Box<Object>),
    Taken(NameTaken),
    Failed(WriteFailure),
    Ends,
}

impl Writer<'_> {
    /// Applies what differs, in the order of application, and what was chosen once before all else. A failure stops
    /// nothing but itself, since the objects do not need each other to be stored; but no claim is made before what opens
    /// its volume, and a namespace that is being deleted ends it all.
    pub async fn apply(&self, prepared: Resources<Prepared>, live: &Live) -> Outcome {
        let (workloads, rest): (Vec<Object>, Vec<Object>) = prepared
            .into_objects()
            .partition(|object| matches!(object, Object::StatefulSet(_) | Object::Deployment(_)));
        let (chosen, rest): (Vec<Object>, Vec<Object>) = rest
            .into_iter()
            .partition(|object| matches!(object, Object::CreatedOnce(_)));
        let opening: BTreeSet<String> = chosen.iter().map(|object| object.name().to_owned()).collect();
        let mut outcome = Outcome::default();
        for (objects, at_a_time) in [(chosen, CONCURRENCY), (rest, CONCURRENCY), (workloads, 1)] {
            let opened = &outcome.applied.created_once;
            // A claim is called as the Secret that opens its volume; without that, the volume would stay closed for ever.
            let may_stand = |object: &Object| {
                let is_open = || {
                    opened
                        .iter()
                        .any(|secret| secret.metadata.name.as_deref() == Some(object.name()))
                };
                !matches!(object, Object::PersistentVolumeClaim(_))
                    || !opening.contains(object.name())
                    || is_open()
            };
            let objects = objects.into_iter().filter(may_stand);
            let writes: Vec<_> = objects.map(|object| self.one(object, live)).collect();
            let mut written = stream::iter(writes).buffered(at_a_time);
            while let Some(one) = written.next().await {
                outcome.take_in(one);
                let last = outcome.write_failures.last();
                if last.is_some_and(|failure| failure.refusal == Refusal::NamespaceEnds) {
                    return outcome;
                }
            }
        }
        outcome
    }

    /// Stores the accepted spec, before anything goes by it: as it is stored, or what came of it where it is not.
    pub async fn keep_accepted(&self, map: ConfigMap, live: &Live) -> Result<ConfigMap, Outcome> {
        let mut outcome = Outcome::default();
        outcome.take_in(self.one(Object::ConfigMap(map), live).await);
        match outcome.applied.config_maps.pop() {
            Some(kept) => Ok(kept),
            None => Err(outcome),
        }
    }

    async fn one(&self, object: Object, live: &Live) -> One {
        let kind = kind(&object);
        let mut built = object.to_json();
        let digest = Digest::of(built.to_string().as_bytes()).to_string();
        built["metadata"]["annotations"][BUILT_ANNOTATION] = digest.into();
        let key = (kind, object.name().to_owned());
        let found = match live.get(&key) {
            Some(found) => Some(found.clone()),
            // A Secret, or an object without the chain's label, which may be somebody else's.
            None => match self.read(&object).await {
                Ok(found) => found,
                Err(error) => return One::Failed(self.failure(kind, object.name(), "get", &error)),
            },
        };
        let is_created_once = matches!(object, Object::CreatedOnce(_));
        let written = match decide(&built, found.as_ref(), self.owner, self.chain, is_created_once) {
            Decision::Leave => Ok(found.unwrap_or_default()),
            Decision::WaitForItsEnd => return One::Ends,
            Decision::Stuck => {
                return One::Failed(WriteFailure {
                    kind,
                    name: object.name().to_owned(),
                    refusal: Refusal::Invalid,
                    message: STUCK_SAYS.to_owned(),
                });
            }
            Decision::MakeAnew => match self.remove_immutable(kind, &found.unwrap_or_default()).await {
                Ok(()) => {
                    self.patch(&object, &built, PatchParams::apply(FIELD_MANAGER))
                        .await
                }
                Err(error) => Err(error),
            },
            Decision::Taken { owner } => {
                return One::Taken(NameTaken {
                    kind,
                    name: object.name().to_owned(),
                    owner,
                });
            }
            Decision::Create if is_created_once => self.create(&object, &built).await,
            // Not by force: whoever made one meanwhile keeps it, and is judged in the next pass.
            Decision::Create => {
                self.patch(&object, &built, PatchParams::apply(FIELD_MANAGER))
                    .await
            }
            Decision::Apply { uid } => {
                // Not another object than the one that was judged.
                built["metadata"]["uid"] = uid;
                let params = PatchParams::apply(FIELD_MANAGER).force();
                self.patch(&object, &built, params).await
            }
        };
        match written {
            Ok(json) => match object.read(json) {
                Ok(object) => One::Stands(Box::new(object)),
                Err(error) => One::Failed(WriteFailure {
                    kind,
                    name: object.name().to_owned(),
                    refusal: Refusal::Unavailable,
                    message: error.to_string(),
                }),
            },
            Err(error) => One::Failed(self.failure(kind, object.name(), "apply", &error)),
        }
    }

    fn api(&self, object: &Object) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace, &object.api_resource())
    }

    async fn read(&self, object: &Object) -> Result<Option<Value>, ApiError> {
        let what = format!("cannot read the {} {}", kind(object), object.name());
        let found = within(READ_TIMEOUT, what, self.api(object).get_opt(object.name())).await?;
        Ok(found.map(|found| json!(found)))
    }

    async fn create(&self, object: &Object, built: &Value) -> Result<Value, ApiError> {
        let what = format!("cannot create the {} {}", kind(object), object.name());
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let create = async {
            let built = DynamicObject::deserialize(built).map_err(kube::Error::SerdeError)?;
            self.api(object).create(&params, &built).await
        };
        let created = within(WRITE_TIMEOUT, what, create).await?;
        self.metrics.wrote(kind(object), "create", "done");
        Ok(json!(created))
    }

    async fn patch(&self, object: &Object, built: &Value, params: PatchParams) -> Result<Value, ApiError> {
        let what = format!("cannot apply the {} {}", kind(object), object.name());
        let api = self.api(object);
        let patch = Patch::Apply(built);
        let patched = within(WRITE_TIMEOUT, what, api.patch(object.name(), &params, &patch)).await?;
        tracing::info!(
            kind = kind(object),
            name = object.name(),
            namespace = self.namespace,
            "applied"
        );
        self.metrics.wrote(kind(object), "apply", "done");
        Ok(json!(patched))
    }

    fn failure(&self, kind: &'static str, name: &str, verb: &'static str, error: &ApiError) -> WriteFailure {
        self.metrics.wrote(kind, verb, "refused");
        let message = error.message();
        let refusal = error
            .code()
            .map_or(Refusal::Unavailable, |code| Refusal::of(code, &message));
        if refusal == Refusal::NamespaceEnds {
            tracing::debug!(
                kind,
                name,
                namespace = self.namespace,
                "the namespace is being deleted"
            );
        } else {
            tracing::warn!(kind, name, namespace = self.namespace, error = message, "{error}");
        }
        WriteFailure {
            kind,
            name: name.to_owned(),
            refusal,
            message,
        }
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("namespace", &self.namespace)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

fn kind(object: &Object) -> &'static str {
    match object {
        Object::ServiceAccount(_) => "ServiceAccount",
        Object::ConfigMap(_) => "ConfigMap",
        Object::Secret(_) | Object::CreatedOnce(_) => "Secret",
        Object::PersistentVolumeClaim(_) => "PersistentVolumeClaim",
        Object::Service(_) => "Service",
        Object::NetworkPolicy(_) => "NetworkPolicy",
        Object::PodDisruptionBudget(_) => "PodDisruptionBudget",
        Object::StatefulSet(_) => "StatefulSet",
        Object::Deployment(_) => "Deployment",
    }
}
