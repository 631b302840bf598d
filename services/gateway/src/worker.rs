//! One core: a thread with a runtime of its own, which accepts, serves and forwards without another thread's help.

use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Worker;
use crate::connection;
use crate::open_requests;
use crate::pool;

/// How many tasks run between two looks at the sockets: enough to spread the cost of a look over many requests, few
/// enough that none waits for a millisecond.
const TASKS_PER_LOOK: u32 = 255;
/// After an error of `accept` other than a client that went away: most likely no file descriptors are left, and
/// asking again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves on the calling thread until the lifecycle has closed, or is closing and the last connection has ended,
/// or `stop` is cancelled. `make` builds what belongs to this core, on this core.
///
/// # Errors
/// When the thread's runtime or its listener cannot be set up.
pub(crate) fn serve(
    listener: StdListener,
    stop: &CancellationToken,
    make: impl FnOnce() -> Worker,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_LOOK)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let worker = Rc::new(make());
        tokio::select! {
            () = accept(worker, listener) => (),
            () = stop.cancelled() => (),
        }
        Ok(())
    })
}

async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let connections = TaskTracker::new();
    tokio::task::spawn_local(open_requests::watch(Rc::clone(&worker)));
    let take = |stream: TcpStream, peer: SocketAddr| {
        let hold = worker.gateway.lifecycle.hold();
        let serving = connection::serve(Rc::clone(&worker), stream, peer);
        tokio::task::spawn_local(connections.track_future(async move {
            serving.await;
            drop(hold);
        }));
    };
    let lifecycle = &worker.gateway.lifecycle;
    let mut closing = std::pin::pin!(lifecycle.closing());
    let mut close_old = tokio::time::interval(pool::ROUND);
    loop {
        tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take(stream, peer),
                Err(error) if is_of_one_client(&error) => (),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = close_old.tick() => worker.pool.close_old(),
        }
    }
    // Whoever was let in by the kernel before the socket closes is served, not reset.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                take(stream, peer);
            }
        }
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => (),
        () = lifecycle.closed() => (),
    }
}

fn is_of_one_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
