//! When to talk to a cache that fails: not at all for a second, then one attempt at a time, beside the requests.
//! Knows no protocol, so that its rules can be tested without one.

use std::time::Duration;

use tokio::time::Instant;

/// So many operations in a row may be too slow before the connection is given up.
const TOLERATED: u32 = 2;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Holds the connection `C` while it works.
#[derive(Debug)]
pub(super) struct Circuit<C> {
    state: State<C>,
    /// The outcome of the last attempt to connect.
    is_reachable: Option<bool>,
}

#[derive(Debug)]
enum State<C> {
    Closed {
        connection: C,
        generation: u64,
        failures: u32,
    },
    Open {
        attempt_at: Instant,
        generation: u64,
    },
    Connecting {
        generation: u64,
    },
}

/// What a request may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leave<C> {
    /// Use this connection, and report how it went under this generation.
    Use(C, u64),
    /// Go on without the cache, and let somebody else connect.
    Connect,
    /// Go on without the cache.
    Skip,
}

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is of no use any more.
    Broken,
    /// No answer in time, or an error as the answer.
    Refused,
}

impl<C: Clone> Circuit<C> {
    /// Open, with an attempt due at once.
    pub(super) fn new() -> Self {
        Self {
            state: State::Open {
                attempt_at: Instant::now(),
                generation: 0,
            },
            is_reachable: None,
        }
    }

    pub(super) fn enter(&mut self) -> Leave<C> {
        match &self.state {
            State::Closed {
                connection,
                generation,
                ..
            } => Leave::Use(connection.clone(), *generation),
            State::Open {
                attempt_at,
                generation,
            } if Instant::now() >= *attempt_at => {
                self.state = State::Connecting {
                    generation: *generation,
                };
                Leave::Connect
            }
            State::Open { .. } | State::Connecting { .. } => Leave::Skip,
        }
    }

    /// The attempt that [`Leave::Connect`] asked for has ended. True if that is news, and worth a line in the log.
    pub(super) fn connected(&mut self, connection: Option<C>) -> bool {
        let is_reachable = Some(connection.is_some());
        let is_news = std::mem::replace(&mut self.is_reachable, is_reachable) != is_reachable;
        let generation = self.generation() + 1;
        self.state = match connection {
            Some(connection) => State::Closed {
                connection,
                generation,
                failures: 0,
            },
            None => State::Open {
                attempt_at: Instant::now() + PAUSE,
                generation,
            },
        };
        is_news
    }

    pub(super) fn succeeded(&mut self, under: u64) {
        if let State::Closed {
            generation, failures, ..
        } = &mut self.state
            && *generation == under
        {
            *failures = 0;
        }
    }

    /// Opens the circuit if it was the connection's fault, or once too often. Reports about an earlier connection
    /// say nothing about this one.
    pub(super) fn failed(&mut self, under: u64, failure: Failure) {
        if let State::Closed {
            generation, failures, ..
        } = &mut self.state
            && *generation == under
        {
            *failures += 1;
            if failure == Failure::Broken || *failures > TOLERATED {
                self.state = State::Open {
                    attempt_at: Instant::now(),
                    generation: under,
                };
            }
        }
    }

    fn generation(&self) -> u64 {
        match self.state {
            State::Closed { generation, .. }
            | State::Open { generation, .. }
            | State::Connecting { generation } => generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Circuit<&'static str> {
        let mut circuit = Circuit::new();
        assert_eq!(circuit.enter(), Leave::Connect);
        assert!(circuit.connected(Some("first")));
        circuit
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_is_replaced_by_one_attempt_beside_the_requests() {
        let mut circuit = connected();
        assert_eq!(circuit.enter(), Leave::Use("first", 1));
        circuit.failed(1, Failure::Broken);
        assert_eq!(circuit.enter(), Leave::Connect);
        assert_eq!(circuit.enter(), Leave::Skip);
        assert!(!circuit.connected(Some("second")));
        assert_eq!(circuit.enter(), Leave::Use("second", 2));
        circuit.failed(1, Failure::Broken);
        assert_eq!(
            circuit.enter(),
            Leave::Use("second", 2),
            "a report about the first connection counts no more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failed_attempt_nobody_tries_for_a_second() {
        let mut circuit = connected();
        circuit.failed(1, Failure::Broken);
        assert_eq!(circuit.enter(), Leave::Connect);
        assert!(circuit.connected(None));
        assert_eq!(circuit.enter(), Leave::Skip);
        tokio::time::advance(PAUSE).await;
        assert_eq!(circuit.enter(), Leave::Connect);
        assert!(!circuit.connected(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_refusals_in_a_row_open_the_circuit_and_a_success_between_them_does_not() {
        let mut circuit = connected();
        for _ in 0..5 {
            circuit.failed(1, Failure::Refused);
            circuit.failed(1, Failure::Refused);
            circuit.succeeded(1);
        }
        assert_eq!(circuit.enter(), Leave::Use("first", 1));
        for _ in 0..=TOLERATED {
            circuit.failed(1, Failure::Refused);
        }
        assert_eq!(circuit.enter(), Leave::Connect);
    }
}
