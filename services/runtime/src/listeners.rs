//! The ports of a process, and what to say when one cannot be had.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::duration;
use crate::lifecycle::Lifecycle;
use std::sync::Arc;

/// Connections that may wait to be accepted: enough for a burst of clients reconnecting at once.
const BACKLOG: i32 = 1024;

/// Addresses and times of a process, the same flags for every service.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address that all ports listen on
    #[arg(long, env = "LISTEN_ADDRESS", default_value = "0.0.0.0")]
    pub listen_address: IpAddr,
    /// Port for requests; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Port for /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// Port on which key bundles are delivered
    #[arg(long, env = "KEYS_PORT", default_value_t = 9091)]
    pub keys_port: u16,
    /// How long to keep accepting after SIGTERM, so that load balancers notice
    #[arg(long, env = "DRAIN_DELAY", default_value = "5s", value_parser = duration::parse)]
    pub drain_delay: Duration,
    /// How long requests in flight may take after that
    #[arg(long, env = "DRAIN_GRACE", default_value = "20s", value_parser = duration::parse)]
    pub drain_grace: Duration,
}

impl ServerArgs {
    /// # Errors
    /// [`CannotListen`] for the first port that cannot be had.
    pub fn listen(&self) -> Result<Listeners, CannotListen> {
        Ok(Listeners {
            main: listen(SocketAddr::new(self.listen_address, self.port))?,
            admin: listen(SocketAddr::new(self.listen_address, self.admin_port))?,
            keys: listen(SocketAddr::new(self.listen_address, self.keys_port))?,
        })
    }

    #[must_use]
    pub fn lifecycle(&self) -> Arc<Lifecycle> {
        Lifecycle::new(self.drain_delay, self.drain_grace)
    }
}

/// The three bound ports of a service.
#[derive(Debug)]
pub struct Listeners {
    pub main: TcpListener,
    pub admin: TcpListener,
    pub keys: TcpListener,
}

impl Listeners {
    /// Three free ports on the loopback interface.
    ///
    /// # Errors
    /// [`CannotListen`] when there are none.
    pub fn on_loopback() -> Result<Self, CannotListen> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            main: listen(any)?,
            admin: listen(any)?,
            keys: listen(any)?,
        })
    }
}

/// A port that could not be had, as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum CannotListen {
    #[error("{0} is in use by another process: stop that one or choose another port (0 picks a free one)")]
    InUse(SocketAddr),
    #[error("may not listen on {0}: choose a port above 1023 or an address of this machine")]
    Forbidden(SocketAddr),
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] std::io::Error),
}

/// A listening, non-blocking TCP socket.
///
/// # Errors
/// [`CannotListen`], a sentence that names the address.
pub fn listen(address: SocketAddr) -> Result<TcpListener, CannotListen> {
    let bind = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of a process that has just ended must not keep its successor from the port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => CannotListen::InUse(address),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::AddrNotAvailable => {
            CannotListen::Forbidden(address)
        }
        _ => CannotListen::Other(address, error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_said_in_a_sentence() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("is in use by another process"),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_another_machine_is_said_in_a_sentence() {
        let error = listen("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().starts_with("may not listen on 192.0.2.1:0"),
            "{error}"
        );
    }
}
