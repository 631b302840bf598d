//! Kubernetes Events, for people: what changed in a chain's conditions that somebody may want to act on. Told once, when
//! it changes. An Event that cannot be written harms nothing, least of all in a namespace that is being deleted.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use servicechain_crds::ServiceChain;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::api_client::{WRITE_TIMEOUT, within};
use crate::key_controller::news::KeyEvent;

const CONTROLLER: &str = "servicechain-operator";
/// Longer notes are refused (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

/// Tells people about chains.
#[derive(Clone)]
pub struct Events(Recorder);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    #[must_use]
    pub fn new(client: Client, pod_name: &str) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(pod_name.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Tells what `news` found.
    pub async fn tell(&self, chain: &ServiceChain, news: Vec<Event>) {
        if chain.metadata.deletion_timestamp.is_some() {
            return;
        }
        let chain = chain.object_ref(&());
        for event in news {
            self.publish(&event, &chain).await;
        }
    }

    /// Tells what happens to keys, for as long as somebody may say so.
    pub async fn tell_of_keys(self, mut keys: broadcast::Receiver<KeyEvent>) {
        loop {
            match keys.recv().await {
                Ok(event) => {
                    let about = event.chain.clone().into();
                    self.publish(&key_event(&event), &about).await;
                }
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "Events of keys were not told"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn publish(&self, event: &Event, about: &ObjectReference) {
        let publish = self.0.publish(event, about);
        if let Err(error) = within(WRITE_TIMEOUT, "cannot write an Event", publish).await {
            tracing::debug!(error = %error.message(), reason = event.reason, "{error}");
        }
    }
}

fn key_event(event: &KeyEvent) -> Event {
    Event {
        type_: if event.is_warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: event.reason.to_owned(),
        note: Some(bounded(event.message.clone())),
        action: "DistributeKeys".to_owned(),
        secondary: None,
    }
}

fn bounded(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    note
}

/// Conditions whose reason changed and that somebody may act on: bad news as warnings, and that they are over.
#[must_use]
pub fn news(before: &[Condition], now: &[Condition]) -> Vec<Event> {
    let changed = now.iter().filter(|condition| {
        let known = before.iter().find(|known| known.type_ == condition.type_);
        known.is_none_or(|known| (&known.status, &known.reason) != (&condition.status, &condition.reason))
    });
    changed.filter_map(|condition| event(condition, before)).collect()
}

fn event(condition: &Condition, before: &[Condition]) -> Option<Event> {
    let was = |status: &str| {
        let known = before.iter().find(|known| known.type_ == condition.type_);
        known.is_some_and(|known| known.status == status)
    };
    let type_ = match (condition.type_.as_str(), condition.status.as_str()) {
        ("Accepted", "False") | ("Degraded", "True") => EventType::Warning,
        ("Ready", "True") => EventType::Normal,
        ("Accepted", "True") if was("False") => EventType::Normal,
        _ => return None,
    };
    let note = if condition.message.is_empty() {
        format!("{} is {}", condition.type_, condition.status)
    } else {
        condition.message.clone()
    };
    Some(Event {
        type_,
        reason: condition.reason.clone(),
        note: Some(bounded(note)),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn people_are_told_of_a_change_once() {
        let good = [
            condition("Accepted", "True", "Valid", ""),
            condition("Ready", "False", "Progressing", "2 of 3"),
        ];
        let bad = [
            condition("Accepted", "False", "Invalid", "spec.services[0].next: nobody"),
            condition("Ready", "False", "Progressing", "1 of 3"),
        ];
        assert!(news(&[], &good).is_empty());
        let told = news(&good, &bad);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].type_, told[0].reason.as_str()),
            (EventType::Warning, "Invalid")
        );
        assert!(news(&bad, &bad).is_empty());
        let told = news(&bad, &good);
        assert_eq!(
            (told[0].type_, told[0].reason.as_str()),
            (EventType::Normal, "Valid")
        );
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let told = news(
            &[],
            &[condition("Degraded", "True", "ImagePull", &"é".repeat(1000))],
        );
        assert_eq!(told[0].note.as_deref().map(str::len), Some(LONGEST_NOTE));
    }
}
