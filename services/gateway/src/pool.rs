//! Idle connections to upstreams, those of one core: no lock, no other thread. The one used last is used first,
//! so that what is not needed grows old and is closed.
//!
//! It knows addresses; which address a request goes to is chosen elsewhere.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use servicechain_runtime::upstream::InFlight;
use tokio::net::TcpStream;

/// Within a cluster a connection takes a millisecond; a second leaves room for one lost packet elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a worker closes what has grown old. Age is counted in these rounds, which spares a look at the clock
/// for each request.
pub(crate) const ROUND: Duration = Duration::from_secs(5);
/// Idle connections live for 30 s, less than any server we know grants, so that it is we who end them.
const MAX_IDLE_ROUNDS: u32 = 6;
/// More idle connections than this per address and core would only be file descriptors.
const MAX_IDLE_PER_ADDRESS: usize = 512;
/// What one read takes at most.
const SCRATCH: usize = 64 * 1024;

/// One core's idle connections.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    round: Cell<u32>,
    scratch: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: u32,
}

/// A connection's place in the pool while a request has it, and the request's in the count of its address.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<Pool>,
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
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            round: Cell::new(0),
            scratch: RefCell::new(vec![0; SCRATCH]),
        }
    }
}

impl Pool {
    /// An idle connection to the address that is counted in, if there is one.
    pub(crate) fn reuse(self: &Rc<Self>, in_flight: InFlight) -> Result<(TcpStream, Lease), InFlight> {
        let mut idle = self.idle.borrow_mut();
        let Some(connections) = idle.get_mut(&in_flight.endpoint().address()) else {
            return Err(in_flight);
        };
        while let Some(connection) = connections.pop() {
            if self.is_fresh(connection.since) && connection.is_quiet() {
                return Ok((connection.stream, self.lease(in_flight, true)));
            }
        }
        Err(in_flight)
    }

    /// A new connection to the address that is counted in.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        in_flight: InFlight,
    ) -> Result<(TcpStream, Lease), ConnectError> {
        let connecting = TcpStream::connect(in_flight.endpoint().address());
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Err(_elapsed) => return Err(ConnectError::Timeout),
            Ok(stream) => stream.map_err(ConnectError::Tcp)?,
        };
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        Ok((stream, self.lease(in_flight, false)))
    }

    /// Room for one read, until the next await.
    pub(crate) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    fn lease(self: &Rc<Self>, in_flight: InFlight, is_reused: bool) -> Lease {
        Lease {
            pool: Rc::clone(self),
            in_flight,
            is_reused,
        }
    }

    /// Closes what nobody used for too long. The worker calls it every [`ROUND`].
    pub(crate) fn close_old(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| self.is_fresh(idle.since) && idle.is_quiet());
            !connections.is_empty()
        });
    }

    fn is_fresh(&self, since: u32) -> bool {
        self.round.get().wrapping_sub(since) <= MAX_IDLE_ROUNDS
    }

    fn keep(&self, address: SocketAddr, stream: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < MAX_IDLE_PER_ADDRESS {
            connections.push(Idle {
                stream,
                since: self.round.get(),
            });
        }
    }
}

impl Idle {
    /// Nothing has come, not even its end: what comes unasked answers no request. It is a system call only where the
    /// runtime has seen something.
    fn is_quiet(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl Lease {
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.in_flight.endpoint().address()
    }

    /// True if other requests went before this one, so that the upstream may have closed it just now.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Its connection is idle now.
    pub(crate) fn give_back(self, stream: TcpStream) {
        self.pool.keep(self.in_flight.endpoint().address(), stream);
    }
}
