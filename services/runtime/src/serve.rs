//! Serves a router over HTTP/1.1 from a listening socket, through the phases of a [`Lifecycle`].
//!
//! Nothing that a client does or leaves undone holds a connection for ever: heads, idle connections and sizes are
//! limited here, what a handler may take is limited by [`crate::request_context`].

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::lifecycle::Lifecycle;

/// After an error of `accept` other than a client that went away: most likely no file descriptors are left, and
/// asking again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client may use. More is answered with 431 or 413, or by closing the connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of request line and headers; above: 431.
    pub header_bytes: usize,
    /// Bytes of a body that a handler reads whole; above: 413.
    pub request_bytes: usize,
    /// From the first byte of a head to its last; above: the connection is closed.
    pub header_timeout: Duration,
    /// Between two pieces of a body that a handler reads; above, reading fails.
    pub body_timeout: Duration,
    /// Between two requests, and before the first. It exceeds the 60 s of common load balancers, since the side
    /// that reuses a connection must be the one that ends it.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            request_bytes: 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// Serves until the lifecycle has closed, or is closing and the last connection has ended.
///
/// While it drains every answer says `Connection: close`; once it closes, idle connections end at once and the
/// others with the answer they are working on.
///
/// # Errors
/// Only when the socket cannot be used at all.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    lifecycle: Arc<Lifecycle>,
    limits: Limits,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = router.layer(DefaultBodyLimit::max(limits.request_bytes));
    let connections = TaskTracker::new();
    let take = |(stream, peer): (TcpStream, SocketAddr)| {
        let hold = lifecycle.hold();
        let lifecycle = Arc::clone(&lifecycle);
        let router = router.clone();
        connections.spawn(async move {
            connection::serve(stream, peer, router, &lifecycle, limits).await;
            drop(hold);
        });
    };
    loop {
        tokio::select! {
            biased;
            () = lifecycle.closing() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => take(accepted),
                Err(error) if is_of_one_client(&error) => (),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Whoever was let in by the kernel before the socket closes is served, not reset.
    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take((stream, peer));
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => (),
        () = lifecycle.closed() => (),
    }
    Ok(())
}

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
