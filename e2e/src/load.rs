//! Clients that ask all the time and never repeat a request by themselves: what they are answered is what a change under
//! load costs. Bounded: few clients, a pause between two requests of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use servicechain_fixtures::await_condition;
use tokio::task::JoinSet;

use crate::client::{DEADLINE, Kept, Unanswered, request};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// Running clients; dropped, they end.
#[derive(Debug)]
pub struct Load {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Failure>>,
}

/// A request that was not answered as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection broke after something of the request was sent.
    Broken(String),
    /// No connection came about.
    Refused(String),
    /// An answer, but not the right one.
    Wrong(String),
}

/// What all clients saw together.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    pub failures: Vec<Failure>,
}

impl Load {
    /// `clients` clients that GET `path` with `token`, each on a connection of its own that is kept for as long as the
    /// gateway wants. Right is a 200 from `hops` hops.
    #[must_use]
    pub fn start(clients: usize, address: SocketAddr, path: &str, token: &str, hops: usize) -> Self {
        let bearer = format!("Bearer {token}");
        let request: Arc<[u8]> = request("GET", path, &[("authorization", &bearer)], "").into();
        let mut load = Self {
            answered: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..clients {
            let (answered, stop) = (Arc::clone(&load.answered), Arc::clone(&load.stop));
            let request = Arc::clone(&request);
            load.clients.spawn(async move {
                let mut failures = Vec::new();
                let mut connection = Kept::to(address);
                let mut pace = tokio::time::interval(PAUSE);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    match ask(&mut connection, &request, hops).await {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            });
        }
        load
    }

    /// Waits until `count` more requests were answered.
    pub async fn await_answers(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        await_condition(&format!("{count} more answers"), DEADLINE, async || {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= goal {
                Ok(())
            } else {
                Err(format!("{answered} of {goal}"))
            }
        })
        .await
    }

    /// Lets every client finish its request.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.unwrap_or_else(|error| vec![Failure::Wrong(error.to_string())]));
        }
        Tally {
            answered: self.answered.load(Ordering::Relaxed),
            failures,
        }
    }
}

async fn ask(connection: &mut Kept, request: &[u8], hops: usize) -> Result<(), Failure> {
    let answer = connection.ask(request).await.map_err(|error| match error {
        Unanswered::Broken(why) => Failure::Broken(why),
        Unanswered::Refused(why) => Failure::Refused(why),
    })?;
    let answered = answer
        .json()
        .ok()
        .and_then(|body| Some(body["hops"].as_array()?.len()));
    if answer.status != 200 || answered != Some(hops) {
        let body = String::from_utf8_lossy(&answer.body);
        return Err(Failure::Wrong(format!("{} {body}", answer.status)));
    }
    Ok(())
}
