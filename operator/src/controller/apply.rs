//! From what was built to what the API server returned: each object applied where it differs, and what is no longer
//! built removed. What somebody else controls is never touched. It must not know why anything was built.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use kube::api::{
    DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};
use servicechain_keys::Digest;

use super::dereference::Live;
use super::observed::{NameTaken, Refusal, WriteFailure};
use super::resources::{Applied, Object, Prepared, Resources};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use crate::metrics::Metrics;
use crate::object_names::{
    BUILT_ANNOTATION, CHAIN_LABEL, COMPONENT_LABEL, accepted_config_map, bundle_config_map,
};

/// Who the API server says last set a field of an object.
pub const FIELD_MANAGER: &str = "servicechain.dev/objects";
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
}

enum One {
    Stands(Object),
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
                match one {
                    One::Stands(object) => outcome.applied.push(object),
                    One::Taken(taken) => outcome.name_taken.push(taken),
                    One::Ends => outcome.waits_for_an_end = true,
                    One::Failed(failure) => {
                        let namespace_ends = failure.refusal == Refusal::NamespaceEnds;
                        outcome.write_failures.push(failure);
                        if namespace_ends {
                            return outcome;
                        }
                    }
                }
            }
        }
        outcome
    }

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

    /// Stores the accepted spec, before anything is built from it.
    pub async fn keep_accepted(&self, map: Value, live: &Live) -> Result<(), WriteFailure> {
        let object = serde_json::from_value(map).map(Object::ConfigMap);
        let Ok(object) = object else {
            return Ok(());
        };
        match self.one(object, live).await {
            One::Stands(_) | One::Ends => Ok(()),
            One::Failed(failure) => Err(failure),
            One::Taken(taken) => Err(WriteFailure {
                kind: taken.kind,
                name: taken.name,
                refusal: Refusal::Invalid,
                message: "its name is taken by an object that is not this chain's".to_owned(),
            }),
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
                Ok(object) => One::Stands(object),
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

    async fn remove_secret(&self, name: &str) -> Result<(), WriteFailure> {
        let empty = k8s_openapi::api::core::v1::Secret {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        let found = self.read(&Object::Secret(empty)).await;
        let found = found.map_err(|error| self.failure("Secret", name, "get", &error))?;
        match found.filter(|found| controller(found).is_some_and(|owner| owner["uid"] == self.owner)) {
            Some(secret) => self.remove("Secret", &secret).await,
            None => Ok(()),
        }
    }

    /// `object` is as it was read, and only that one is removed.
    async fn remove(&self, kind: &'static str, object: &Value) -> Result<(), WriteFailure> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Some(resource) = removable(kind) else {
            return Ok(());
        };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), self.namespace, &resource);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: object["metadata"]["uid"].as_str().map(str::to_owned),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let what = format!("cannot delete the {kind} {name}");
        match within(WRITE_TIMEOUT, what, api.delete(name, &params)).await {
            Ok(_) => {
                tracing::info!(
                    kind,
                    name,
                    namespace = self.namespace,
                    "removed, since it is no longer built"
                );
                self.metrics.wrote(kind, "delete", "done");
                Ok(())
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(self.failure(kind, name, "delete", &error)),
        }
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

#[derive(Debug, PartialEq)]
enum Decision {
    Leave,
    Create,
    Apply {
        uid: Value,
    },
    WaitForItsEnd,
    /// By this object, or by nobody.
    Taken {
        owner: Option<String>,
    },
}

/// `built` has its digest. What was created once is left however it looks.
fn decide(built: &Value, found: Option<&Value>, owner: &str, chain: &str, is_created_once: bool) -> Decision {
    let Some(found) = found else {
        return Decision::Create;
    };
    match controller(found) {
        Some(controller) if controller["uid"] != owner => {
            let word = |name: &str| controller[name].as_str().unwrap_or_default();
            return Decision::Taken {
                owner: Some(format!("{} {}", word("kind"), word("name"))),
            };
        }
        None if !is_created_once && found["metadata"]["labels"][CHAIN_LABEL] != chain => {
            return Decision::Taken { owner: None };
        }
        _ => {}
    }
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Decision::WaitForItsEnd;
    }
    if is_created_once || contains(found, built) {
        return Decision::Leave;
    }
    Decision::Apply {
        uid: found["metadata"]["uid"].clone(),
    }
}

fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Whether everything that was built is still so. What others added stays theirs, as in server-side apply: fields, and
/// items of lists whose items have names. Other lists are compared whole.
fn contains(found: &Value, built: &Value) -> bool {
    match (found, built) {
        (Value::Object(found), Value::Object(built)) => {
            built.iter().all(|(name, built)| match found.get(name) {
                Some(found) => contains(found, built),
                None => is_empty(built),
            })
        }
        (Value::Array(found), Value::Array(built)) if built.iter().all(|item| item["name"].is_string()) => {
            built.iter().all(|built| {
                let same = found.iter().find(|found| found["name"] == built["name"]);
                same.is_some_and(|found| contains(found, built))
            }) && (!built.is_empty() || found.is_empty())
        }
        (Value::Array(found), Value::Array(built)) => {
            let mut pairs = found.iter().zip(built);
            found.len() == built.len() && pairs.all(|(found, built)| contains(found, built))
        }
        _ => found == built,
    }
}

/// The API server does not store what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
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

/// Where objects of the kind are deleted; claims never are.
fn removable(kind: &str) -> Option<kube::core::ApiResource> {
    let object = match kind {
        "ServiceAccount" => Object::ServiceAccount(Default::default()),
        "ConfigMap" => Object::ConfigMap(Default::default()),
        "Secret" => Object::Secret(Default::default()),
        "Service" => Object::Service(Default::default()),
        "NetworkPolicy" => Object::NetworkPolicy(Default::default()),
        "PodDisruptionBudget" => Object::PodDisruptionBudget(Default::default()),
        "StatefulSet" => Object::StatefulSet(Default::default()),
        "Deployment" => Object::Deployment(Default::default()),
        _ => return None,
    };
    Some(object.api_resource())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(uid: &str) -> Value {
        json!({"metadata": {
            "name": "shop-a", "uid": "7", "labels": {CHAIN_LABEL: "shop"},
            "ownerReferences": [{"kind": "ServiceChain", "name": "shop", "uid": uid, "controller": true}],
        }})
    }

    fn with(mut object: Value, path: &str, value: Value) -> Value {
        if let Some(place) = object.pointer_mut(path) {
            *place = value;
            return object;
        }
        let (parent, name) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name] = value;
        object
    }

    fn of(built: &Value, found: Option<&Value>) -> Decision {
        decide(built, found, "1", "shop", false)
    }

    #[test]
    fn an_object_is_written_only_where_it_differs_from_what_was_built() {
        let built = with(owned("1"), "/spec", json!({"replicas": 2}));
        let stored = with(built.clone(), "/spec/paused", json!(false));
        assert_eq!(of(&built, None), Decision::Create);
        assert_eq!(of(&built, Some(&stored)), Decision::Leave);
        let drifted = with(stored.clone(), "/spec/replicas", json!(3));
        assert_eq!(of(&built, Some(&drifted)), Decision::Apply { uid: json!("7") });
        // A field that is no longer built changes the digest.
        let digested = |digest: &str| {
            with(
                built.clone(),
                "/metadata/annotations",
                json!({BUILT_ANNOTATION: digest}),
            )
        };
        assert!(matches!(
            of(&digested("new"), Some(&digested("old"))),
            Decision::Apply { .. }
        ));
    }

    #[test]
    fn what_somebody_else_controls_is_never_touched() {
        let built = owned("1");
        assert_eq!(
            of(&built, Some(&owned("2"))),
            Decision::Taken {
                owner: Some("ServiceChain shop".to_owned())
            }
        );
        let unowned = with(owned("1"), "/metadata/ownerReferences", json!([]));
        assert!(
            matches!(of(&built, Some(&unowned)), Decision::Apply { .. }),
            "its owner was taken off"
        );
        let foreign = with(unowned, "/metadata/labels", json!({}));
        assert_eq!(of(&built, Some(&foreign)), Decision::Taken { owner: None });
        assert_eq!(decide(&built, Some(&foreign), "1", "shop", true), Decision::Leave);
        let ending = with(owned("1"), "/metadata/deletionTimestamp", json!("now"));
        assert_eq!(of(&built, Some(&ending)), Decision::WaitForItsEnd);
    }

    #[test]
    fn what_others_added_is_theirs_and_what_was_built_must_be_there() {
        let cases = [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
            (json!({}), json!({"a": {}, "b": [], "c": null}), true),
            (json!({"a": ["x", "y"]}), json!({"a": ["x"]}), false),
            (json!({"a": ["x"]}), json!({"a": []}), false),
            (
                json!([{"name": "istio"}, {"name": "app", "image": "1", "tty": false}]),
                json!([{"name": "app", "image": "1"}]),
                true,
            ),
            (
                json!([{"name": "app", "image": "2"}]),
                json!([{"name": "app", "image": "1"}]),
                false,
            ),
            (
                json!([{"port": 80, "protocol": "TCP"}]),
                json!([{"port": 80}]),
                true,
            ),
        ];
        for (found, built, expected) in cases {
            assert_eq!(contains(&found, &built), expected, "{found} {built}");
        }
    }
}
