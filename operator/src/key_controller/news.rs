//! What the rounds of all chains tell the rest of the operator: whose state changed, and what happened to keys. Nothing
//! is kept for somebody who does not listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, stream};
use kube::runtime::reflector::ObjectRef;
use servicechain_crds::ServiceChain;
use servicechain_keys::rotation::Event;
use tokio::sync::{Notify, broadcast};

use super::incident::Incident;
use super::state::IssuerStanding;

/// Most events that a slow listener may be behind; older ones are in the log.
const EVENTS: usize = 256;

/// Something that people should hear of: it becomes an event of the chain.
#[derive(Clone, Debug)]
pub struct KeyEvent {
    /// With its uid.
    pub chain: ObjectRef<ServiceChain>,
    /// In `UpperCamelCase`, as Kubernetes' events have it.
    pub reason: &'static str,
    pub is_warning: bool,
    pub message: String,
}

#[derive(Debug)]
pub(super) struct News {
    changed: Mutex<BTreeSet<(String, String)>>,
    has_changed: Notify,
    events: broadcast::Sender<KeyEvent>,
}

impl News {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            changed: Mutex::default(),
            has_changed: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    pub(super) fn change(&self, chain: &ObjectRef<ServiceChain>) {
        let namespace = chain.namespace.clone().unwrap_or_default();
        self.lock().insert((namespace, chain.name.clone()));
        self.has_changed.notify_one();
    }

    /// `message` is what the event says to people.
    pub(super) fn tell(&self, chain: &ObjectRef<ServiceChain>, event: &Event, message: String) {
        // Nobody may be listening.
        let _ = self.events.send(KeyEvent {
            chain: chain.clone(),
            reason: reason(event),
            is_warning: matches!(
                event,
                Event::OfferRefused { .. } | Event::RevocationsLeftOut { .. }
            ),
            message,
        });
    }

    pub(super) fn tell_of_incident(&self, chain: &ObjectRef<ServiceChain>, incident: &Incident) {
        // Nobody may be listening.
        let _ = self.events.send(KeyEvent {
            chain: chain.clone(),
            reason: incident.reason(),
            is_warning: incident.is_warning(),
            message: incident.to_string(),
        });
    }

    /// Says what is wrong with issuers that the chain does not run, where that was not so before.
    pub(super) fn tell_of_issuers(
        &self,
        chain: &ObjectRef<ServiceChain>,
        before: &BTreeMap<String, IssuerStanding>,
        now: &BTreeMap<String, IssuerStanding>,
    ) {
        for (name, standing) in now {
            let before = before.get(name).cloned().unwrap_or_default();
            let problem = standing
                .problem
                .iter()
                .filter(|_| before.problem != standing.problem);
            let problems = problem.map(|problem| ("KeysNotRead", problem.says()));
            let refused = standing
                .refused
                .iter()
                .filter(|refused| !before.refused.contains(refused));
            let refused = refused.map(|refused| ("KeyLeftOut", refused.as_str()));
            for (reason, says) in problems.chain(refused) {
                // Nobody may be listening.
                let _ = self.events.send(KeyEvent {
                    chain: chain.clone(),
                    reason,
                    // An encryption key beside the others is as it should be.
                    is_warning: reason == "KeysNotRead",
                    message: format!("issuer {name}: {says}"),
                });
            }
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<KeyEvent> {
        self.events.subscribe()
    }

    /// Each chain whose state changed, once for all of its changes since it was last taken. For one listener.
    pub(super) fn changes(self: Arc<Self>) -> impl Stream<Item = ObjectRef<ServiceChain>> + Send + 'static {
        stream::unfold(self, |news: Arc<Self>| async move {
            loop {
                let next = news.lock().pop_first();
                if let Some((namespace, name)) = next {
                    return Some((ObjectRef::new(&name).within(&namespace), news));
                }
                news.has_changed.notified().await;
            }
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(event: &Event) -> &'static str {
    match event {
        Event::Key { change, .. } => match change.as_str() {
            "Staged" => "KeyStaged",
            "Active" => "KeyActive",
            "Retiring" => "KeyRetiring",
            "Withdrawn" => "KeyWithdrawn",
            "revoked" => "KeyRevoked",
            change if change.starts_with("removed") => "KeyRemoved",
            _ => "KeyLeftOut",
        },
        Event::OfferRefused { .. } => "OfferRefused",
        Event::RevocationsLeftOut { .. } => "RevocationsLeftOut",
        Event::RotationNotYet { .. } => "RotationNotYet",
    }
}
