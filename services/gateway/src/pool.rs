//! Idle connections to upstreams, those of one core: no lock, no other thread. The one used last is used first,
//! so that what is not needed grows old and is closed.
//!
//! It knows addresses; which address a request goes to is chosen elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use servicechain_runtime::upstream::InFlight;
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::small_writes::SmallWrites;

/// Within a cluster a connection takes a millisecond; a second leaves room for one lost packet elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a worker closes what has grown old. Age is counted in these rounds, which spares a look at the clock
/// for each request.
pub(crate) const ROUND: Duration = Duration::from_secs(5);
/// Idle connections live for 30 s, less than any server we know grants, so that it is we who end them.
const MAX_IDLE_ROUNDS: u32 = 6;
/// More idle connections than this per address and core would only be file descriptors.
const MAX_IDLE_PER_ADDRESS: usize = 512;
/// How long an answered connection may take to finish with its request, before it is given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// One core's idle connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    round: Cell<u32>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: u32,
}

/// A connection of one request, and the request's place in the count of its address.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<Pool>,
    sender: SendRequest<RequestBody>,
    in_flight: InFlight,
    is_reused: bool,
}

/// An address did not take a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    #[error("connection refused")]
    Tcp(#[source] std::io::Error),
    #[error("connection ended at once")]
    Http(#[source] hyper::Error),
}

impl Pool {
    /// An idle connection to the address that is counted in, if there is one.
    pub(crate) fn reuse(self: &Rc<Self>, in_flight: InFlight) -> Result<Lease, InFlight> {
        let mut idle = self.idle.borrow_mut();
        let Some(connections) = idle.get_mut(&in_flight.endpoint().address()) else {
            return Err(in_flight);
        };
        while let Some(Idle { sender, since }) = connections.pop() {
            if sender.is_ready() && self.is_fresh(since) {
                return Ok(Lease {
                    pool: Rc::clone(self),
                    sender,
                    in_flight,
                    is_reused: true,
                });
            }
        }
        Err(in_flight)
    }

    /// A new connection to the address that is counted in.
    pub(crate) async fn connect(self: &Rc<Self>, in_flight: InFlight) -> Result<Lease, ConnectError> {
        let connecting = TcpStream::connect(in_flight.endpoint().address());
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Err(_elapsed) => return Err(ConnectError::Timeout),
            Ok(stream) => stream.map_err(ConnectError::Tcp)?,
        };
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let (sender, connection) = http1::handshake(TokioIo::new(SmallWrites(stream)))
            .await
            .map_err(ConnectError::Http)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an upstream ended");
            }
        });
        Ok(Lease {
            pool: Rc::clone(self),
            sender,
            in_flight,
            is_reused: false,
        })
    }

    /// Closes what nobody used for too long. The worker calls it every [`ROUND`].
    pub(crate) fn close_old(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| !idle.sender.is_closed() && self.is_fresh(idle.since));
            !connections.is_empty()
        });
    }

    fn is_fresh(&self, since: u32) -> bool {
        self.round.get().wrapping_sub(since) <= MAX_IDLE_ROUNDS
    }

    fn keep(&self, address: SocketAddr, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < MAX_IDLE_PER_ADDRESS {
            connections.push(Idle {
                sender,
                since: self.round.get(),
            });
        }
    }
}

impl Lease {
    pub(crate) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.in_flight.endpoint().address()
    }

    /// True if other requests went before this one, so that the upstream may have closed it just now.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Its response has been read to the end. An answer may come before the request was read; such a connection
    /// is idle only once that is over.
    pub(crate) fn give_back(self) {
        let address = self.address();
        let Self {
            pool,
            mut sender,
            in_flight: _,
            ..
        } = self;
        if sender.is_ready() {
            pool.keep(address, sender);
        } else if !sender.is_closed() {
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE_TIMEOUT, sender.ready()).await {
                    pool.keep(address, sender);
                }
            });
        }
    }
}
