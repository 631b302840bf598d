//! Idle connections, kept per address until they are used again or have idled too long.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, Sleep};

use super::CallError;
use crate::deadline::{Deadline, DeadlinePassed};
use crate::upstream::InFlight;

/// Shorter than any server of ours lets a connection idle, so that we are the side that ends it.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE_PER_ADDRESS: usize = 64;

type Connection = SendRequest<Full<Bytes>>;

#[derive(Clone, Default)]
pub(super) struct Pools(Arc<Mutex<HashMap<SocketAddr, Vec<Idle>>>>);

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pools {
    /// The connection that was used last, if it is still open.
    pub(super) async fn take(&self, address: SocketAddr) -> Option<Connection> {
        while let Some(idle) = self.pop(address) {
            let is_usable = idle.is_usable();
            let mut connection = idle.connection;
            // Its task may still be busy with the end of the last answer, or may learn now that it is closed.
            if is_usable && connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self, address: SocketAddr) -> Option<Idle> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&address)?
            .pop()
    }

    /// Wraps an answer so that its connection comes back once the body has been read.
    pub(super) fn lend(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        address: SocketAddr,
        in_flight: InFlight,
        deadline: Deadline,
    ) -> Response<PooledBody> {
        let lent = Lent {
            connection,
            pools: self.clone(),
            address,
            _in_flight: in_flight,
        };
        response.map(|incoming| PooledBody {
            incoming,
            lent: Some(lent),
            deadline: deadline.at().map(|at| Box::pin(tokio::time::sleep_until(at))),
        })
    }

    fn put(&self, address: SocketAddr, connection: Connection) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Addresses that are gone are forgotten as their connections close.
        pools.retain(|_, pool| {
            pool.retain(Idle::is_usable);
            !pool.is_empty()
        });
        let pool = pools.entry(address).or_default();
        if pool.len() < MAX_IDLE_PER_ADDRESS {
            pool.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl Idle {
    fn is_usable(&self) -> bool {
        !self.connection.is_closed() && self.since.elapsed() < IDLE
    }
}

struct Lent {
    connection: Connection,
    pools: Pools,
    address: SocketAddr,
    _in_flight: InFlight,
}

/// An answer's body. Read to its end it gives the connection back; dropped before, it closes it.
pub struct PooledBody {
    incoming: Incoming,
    lent: Option<Lent>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.pools.put(lent.address, lent.connection);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(deadline) = &mut self.deadline
        {
            ready!(deadline.as_mut().poll(cx));
            self.lent = None;
            return Poll::Ready(Some(Err(DeadlinePassed.into())));
        }
        let frame = ready!(polled);
        match &frame {
            None => self.give_back(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.give_back(),
            Some(Ok(_)) => (),
            Some(Err(_)) => self.lent = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(CallError::Interrupted)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        // A body that was empty from the start is never polled by those who ask first.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

impl fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBody")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}
