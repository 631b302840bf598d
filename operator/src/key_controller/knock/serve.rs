//! The connections of the knock port: anybody may open one, so their number is bounded, and so is the time that one may
//! take to say something. It must not know what is said.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::places::Places;

/// Verifiers keep theirs for 30 s.
const MOST_CONNECTIONS: usize = 4096;
/// One pod needs one. Some networks hide all pods of a node behind the node's own address.
const MOST_OF_AN_ADDRESS: usize = 256;
/// From one request's end to the end of the next one's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(35);
/// After an accept that failed: too many open files pass.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until shut down; what is under way then is cut off, since whoever knocks knocks again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Places::new(MOST_CONNECTIONS, MOST_OF_AN_ADDRESS);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        // One too many is hung up on, and knocks again.
        let Some(place) = places.take(peer.ip()) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}
