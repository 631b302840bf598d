//! What calls a pass over a chain: a change of the chain, of an object or a pod with its label, of a `Revocation` of its
//! namespace, or of what is known about its keys. Secrets are not among them: they are never listed or watched.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use servicechain_crds::{Revocation, ServiceChain};
use tokio::sync::Notify;

use super::Context;
use crate::key_controller::KeyChains;
use crate::object_names::CHAIN_LABEL;
use crate::streams::Seen;

type Chain = Seen<ServiceChain>;
type Triggers = BoxStream<'static, Result<ObjectRef<Chain>, Infallible>>;

/// All of them; `chains` is filled through `writer` on the way. `revoked` is told that a chain or a `Revocation` changed.
pub(super) fn all(
    context: &Arc<Context>,
    chains: &Store<Chain>,
    writer: Writer<Chain>,
    revoked: &Arc<Notify>,
) -> Triggers {
    /// Objects of a kind call the chain that their label names.
    macro_rules! labelled {
        ($kind:ty) => {{
            let chains = chains.clone();
            let events = context
                .watches
                .follow::<$kind>(stringify!($kind), Some(CHAIN_LABEL));
            let called = move |event: &Event<Seen<$kind>>| of_label(event, &chains);
            refs(events, called)
        }};
    }
    let keys = context.keys.changes();
    let keys = keys.map(|chain| {
        ObjectRef::<Chain>::new(&chain.name).within(chain.namespace.as_deref().unwrap_or_default())
    });
    stream::select_all([
        of_chains(context, chains, writer, Arc::clone(revoked)),
        labelled!(Deployment),
        labelled!(StatefulSet),
        labelled!(Service),
        labelled!(ServiceAccount),
        labelled!(ConfigMap),
        labelled!(PersistentVolumeClaim),
        labelled!(NetworkPolicy),
        labelled!(PodDisruptionBudget),
        of_pods(context, chains),
        of_revocations(context, chains, Arc::clone(revoked)),
        keys.map(Ok).boxed(),
    ])
    .boxed()
}

fn of_chains(
    context: &Arc<Context>,
    chains: &Store<Chain>,
    mut writer: Writer<Chain>,
    revoked: Arc<Notify>,
) -> Triggers {
    let (chains, context) = (chains.clone(), Arc::clone(context));
    let events = context.watches.follow::<ServiceChain>("ServiceChain", None);
    refs(events, move |event| {
        let known = uids(&chains);
        writer.apply_watcher_event(event);
        let left = uids(&chains);
        known.difference(&left).for_each(|uid| context.keys.forget(uid));
        context.watches.metrics.chains(left.len());
        if known != left {
            revoked.notify_one();
        }
        match event {
            Event::Apply(chain) | Event::InitApply(chain) => vec![ObjectRef::from_obj(chain)],
            Event::Delete(_) | Event::Init => Vec::new(),
            Event::InitDone => everyone(&chains),
        }
    })
}

/// Pods that come and go are asked for their keys at once.
fn of_pods(context: &Arc<Context>, chains: &Store<Chain>) -> Triggers {
    let (chains, keys) = (chains.clone(), context.keys.clone());
    let events = context.watches.follow::<Pod>("Pod", Some(CHAIN_LABEL));
    refs(events, move |event| {
        let called = of_label(event, &chains);
        wake(&keys, &chains, &called);
        called
    })
}

/// They name their chain where it is not seen, so every chain of the namespace is woken.
fn of_revocations(context: &Arc<Context>, chains: &Store<Chain>, revoked: Arc<Notify>) -> Triggers {
    let (chains, keys) = (chains.clone(), context.keys.clone());
    let events = context.watches.follow::<Revocation>("Revocation", None);
    refs(events, move |event| {
        let namespace = match event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => object.namespace(),
            Event::Init | Event::InitDone => return Vec::new(),
        };
        revoked.notify_one();
        let mut called = everyone(&chains);
        called.retain(|chain| chain.namespace == namespace);
        wake(&keys, &chains, &called);
        called
    })
}

fn refs<K: 'static>(
    events: impl Stream<Item = Event<Seen<K>>> + Send + 'static,
    mut called: impl FnMut(&Event<Seen<K>>) -> Vec<ObjectRef<Chain>> + Send + 'static,
) -> Triggers
where
    Seen<K>: Send,
{
    let refs = events.flat_map(move |event| stream::iter(called(&event)));
    refs.map(Ok).boxed()
}

/// After a list everybody is called: what vanished while nobody watched is told by nothing else.
fn of_label<K>(event: &Event<Seen<K>>, chains: &Store<Chain>) -> Vec<ObjectRef<Chain>> {
    let labelled = |object: &Seen<K>| {
        let chain = object.metadata.labels.as_ref()?.get(CHAIN_LABEL)?;
        Some(ObjectRef::new(chain).within(object.metadata.namespace.as_deref()?))
    };
    match event {
        Event::Apply(object) | Event::Delete(object) => labelled(object).into_iter().collect(),
        Event::Init | Event::InitApply(_) => Vec::new(),
        Event::InitDone => everyone(chains),
    }
}

fn everyone(chains: &Store<Chain>) -> Vec<ObjectRef<Chain>> {
    chains
        .state()
        .iter()
        .map(|chain| ObjectRef::from_obj(&**chain))
        .collect()
}

fn uids(chains: &Store<Chain>) -> BTreeSet<String> {
    chains.state().iter().filter_map(|chain| chain.uid()).collect()
}

fn wake(keys: &KeyChains, chains: &Store<Chain>, called: &[ObjectRef<Chain>]) {
    for chain in called {
        if let Some(uid) = chains.get(chain).and_then(|chain| chain.uid()) {
            keys.wake(&uid);
        }
    }
}
