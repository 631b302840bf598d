//! Requests that are open while what let them in changes: at each bundle they are judged again, before the pod acknowledges
//! it, and those that live on are ended when their token does (key protocol, "Streams").
//!
//! One task a core looks at all of them. A request itself does nothing for it but leave its caller at its connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::app::Worker;
use crate::connection::{Client, Cut};

/// How late a stream may end after its token. A request that is younger is let finish: it was admitted in time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The clients that are connected to one core.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests {
    clients: RefCell<HashMap<*const Client, Rc<Client>>>,
}

impl OpenRequests {
    pub(crate) fn connected(&self, client: &Rc<Client>) {
        self.clients
            .borrow_mut()
            .insert(Rc::as_ptr(client), Rc::clone(client));
    }

    pub(crate) fn disconnected(&self, client: &Rc<Client>) {
        self.clients.borrow_mut().remove(&Rc::as_ptr(client));
    }

    /// How many requests that `cut` speaks of were ended for that.
    fn end(&self, why: Cut, cut: impl Fn(&Client) -> bool) -> usize {
        let clients = self.clients.borrow();
        let ended = clients.values().filter(|client| cut(client));
        ended.map(|client| client.cut(why)).count()
    }
}

/// Follows the verifier for as long as the core runs.
pub(crate) async fn watch(worker: Rc<Worker>) {
    let verifier = &worker.gateway.verifier;
    let mut follower = verifier.follow();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            generation = follower.newer() => {
                let is_refused = |client: &Client| client.caller().is_some_and(|caller| !verifier.is_still_good(&caller));
                let ended = worker.open_requests.end(Cut::Refused, is_refused);
                follower.judged(generation);
                if ended > 0 {
                    tracing::info!(generation = generation.number(), ended, "ended the open requests of tokens that the new keys refuse");
                }
            }
            _ = looks.tick() => {
                let now = verifier.now();
                let has_expired = |client: &Client| {
                    client.was_seen_before()
                        && client
                            .caller()
                            .is_some_and(|caller| !caller.is_in_time(now) && !verifier.is_still_good(&caller))
                };
                let ended = worker.open_requests.end(Cut::Expired, has_expired);
                if ended > 0 {
                    tracing::info!(ended, "ended streams with their tokens");
                }
            }
        }
    }
}
