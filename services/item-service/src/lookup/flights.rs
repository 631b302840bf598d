//! Database reads under way, by key, so that those who miss together read once. A local write ends the sharing:
//! who asks after it must not be handed what was read before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::item::{ItemKey, Stored};
use crate::store::StoreError;

type Outcome = Result<Stored, Arc<StoreError>>;
type Landed = watch::Receiver<Option<Outcome>>;

#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<ItemKey, Landed>>,
}

/// Reads for all who join it.
pub(super) struct Flight(watch::Sender<Option<Outcome>>);

pub(super) enum Boarding {
    /// Somebody reads already.
    Joined(Landed),
    /// The caller reads, and lands the flight.
    Started(Flight, Landed),
}

impl Flights {
    pub(super) fn board(&self, key: &ItemKey) -> Boarding {
        let mut flying = self.lock();
        // A flight whose sender is gone will never land.
        if let Some(landed) = flying.get(key).filter(|landed| landed.has_changed().is_ok()) {
            return Boarding::Joined(landed.clone());
        }
        let (sender, landed) = watch::channel(None);
        flying.insert(key.clone(), landed.clone());
        Boarding::Started(Flight(sender), landed)
    }

    /// Nobody joins it any more; those aboard get the outcome.
    pub(super) fn land(&self, key: &ItemKey, Flight(flight): Flight, outcome: Outcome) {
        let mut flying = self.lock();
        if flying
            .get(key)
            .is_some_and(|landed| flight.subscribe().same_channel(landed))
        {
            flying.remove(key);
        }
        drop(flying);
        flight.send_replace(Some(outcome));
    }

    /// Nobody joins what is under way for this key any more.
    pub(super) fn end(&self, key: &ItemKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ItemKey, Landed>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{ItemId, Owner};

    fn key(id: &str) -> ItemKey {
        ItemKey {
            owner: Owner::new("iss", "sub"),
            id: ItemId::new(id).unwrap(),
        }
    }

    fn start(flights: &Flights, id: &str) -> Flight {
        let Boarding::Started(flight, _) = flights.board(&key(id)) else {
            panic!("somebody reads {id}")
        };
        flight
    }

    #[tokio::test]
    async fn those_who_ask_while_a_read_is_under_way_share_it_and_those_after_it_do_not() {
        let flights = Flights::default();
        let flight = start(&flights, "1");
        let Boarding::Joined(mut landed) = flights.board(&key("1")) else {
            panic!("a second read")
        };
        let _other = start(&flights, "2");
        flights.land(&key("1"), flight, Ok(Stored::MISSING));
        assert_eq!(
            landed
                .wait_for(Option::is_some)
                .await
                .unwrap()
                .as_ref()
                .unwrap()
                .as_ref()
                .unwrap(),
            &Stored::MISSING
        );
        start(&flights, "1");
    }

    #[test]
    fn after_a_write_nobody_joins_and_the_old_flight_does_not_end_the_new_one() {
        let flights = Flights::default();
        let old = start(&flights, "1");
        flights.end(&key("1"));
        let _new = start(&flights, "1");
        flights.land(&key("1"), old, Ok(Stored::MISSING));
        assert!(matches!(flights.board(&key("1")), Boarding::Joined(_)));
    }

    #[test]
    fn a_read_whose_task_was_lost_is_begun_anew() {
        let flights = Flights::default();
        drop(start(&flights, "1"));
        start(&flights, "1");
    }
}
