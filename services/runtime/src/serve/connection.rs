//! One connection: hyper's HTTP/1.1, ended by its limits or by the process' phase.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower::Service as _;

use super::Limits;
use crate::lifecycle::Lifecycle;
use crate::problem::Problem;

/// hyper wants room for a whole head and what came along with it.
const LEAST_BUFFER: usize = 16 * 1024;

/// When the process closes, a connection that has not sent anything yet gets so long for its first request: it may
/// have been let in by the kernel a moment ago.
const NEWCOMER_GRACE: Duration = Duration::from_millis(500);

/// A connection that is closed with something unread is reset, and a client that is still sending loses the answer.
/// So what it sends is read for so long, and up to [`MOST_DISCARDED`] bytes: more than a gateway lets through by default.
const LINGER: Duration = Duration::from_secs(2);
const MOST_DISCARDED: usize = 16 * 1024 * 1024;

pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    lifecycle: &Lifecycle,
    limits: Limits,
) {
    // Without it small answers wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let head = Arc::new(Head::new());
    let answer = |request: Request<Incoming>| {
        let (router, head) = (router.clone(), Arc::clone(&head));
        head.is_complete();
        async move {
            let mut response = answer(request, peer, router, &limits).await;
            if lifecycle.is_draining() {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Answering { body, head }))
        }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(LEAST_BUFFER.max(limits.header_bytes * 2));
    let io = TokioIo::new(Watched {
        stream,
        head: Arc::clone(&head),
    });
    let mut connection = pin!(http.serve_connection(io, service_fn(answer)));
    let mut closing = pin!(lifecycle.closing());
    let mut closed = pin!(lifecycle.closed());
    let (mut is_closing, mut asked_to_close) = (false, false);
    let mut newcomer = None;
    let mut head_timer = pin!(tokio::time::sleep(limits.header_timeout));
    std::future::poll_fn(|cx| {
        if closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended");
            }
            return Poll::Ready(());
        }
        is_closing = is_closing || closing.as_mut().poll(cx).is_ready();
        if is_closing && !asked_to_close {
            let newcomer = newcomer.get_or_insert_with(|| Box::pin(tokio::time::sleep(NEWCOMER_GRACE)));
            if !head.is_first() || newcomer.as_mut().poll(cx).is_ready() {
                asked_to_close = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
        }
        if let Some(begun) = head.begun() {
            let until = begun + limits.header_timeout;
            if head_timer.deadline() != until {
                head_timer.as_mut().reset(until);
            }
            ready!(head_timer.as_mut().poll(cx));
            tracing::debug!(%peer, "a request's head took too long");
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    mut router: Router,
    limits: &Limits,
) -> Response {
    let limit = limits.request_bytes;
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    if declared
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| length > limit as u64)
    {
        tokio::spawn(tokio::time::timeout(LINGER, discard(request.into_body())));
        let refused =
            Problem::body_too_large(limit).header(header::CONNECTION, HeaderValue::from_static("close"));
        return refused.into_response();
    }
    let mut request = request.map(|body| {
        Body::new(Arriving {
            body,
            patience: Box::pin(tokio::time::sleep(limits.body_timeout)),
            timeout: limits.body_timeout,
        })
    });
    request.extensions_mut().insert(ConnectInfo(peer));
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn discard(mut body: Incoming) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MOST_DISCARDED {
            return;
        }
    }
}

/// When the head of a request began to arrive, as seen by one connection's own task.
struct Head {
    connected: Instant,
    /// Microseconds after `connected`, plus one; 0 = no head is under way; `BUSY` = a request is being answered.
    begun: AtomicU64,
    /// Until the head of a first request is complete.
    first: AtomicBool,
}

impl Head {
    const BUSY: u64 = u64::MAX;

    fn new() -> Self {
        Self {
            connected: Instant::now(),
            begun: AtomicU64::new(0),
            first: AtomicBool::new(true),
        }
    }

    fn bytes_arrived(&self) {
        let now = u64::try_from(self.connected.elapsed().as_micros()).unwrap_or(Self::BUSY - 2) + 1;
        let _ = self
            .begun
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is_complete(&self) {
        self.begun.store(Self::BUSY, Ordering::Relaxed);
        self.first.store(false, Ordering::Relaxed);
    }

    fn is_first(&self) -> bool {
        self.first.load(Ordering::Relaxed)
    }

    fn is_answered(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }

    fn begun(&self) -> Option<Instant> {
        match self.begun.load(Ordering::Relaxed) {
            0 | Self::BUSY => None,
            micros => Some(self.connected + Duration::from_micros(micros - 1)),
        }
    }
}

/// The stream, telling [`Head`] when bytes arrive.
struct Watched {
    stream: TcpStream,
    head: Arc<Head>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.head.bytes_arrived();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body, an error once nothing more of it has come for too long.
struct Arriving {
    body: Incoming,
    patience: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let next = Instant::now() + self.timeout;
            self.patience.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        ready!(self.patience.as_mut().poll(cx));
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Poll::Ready(Some(Err(axum::Error::new(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, telling [`Head`] when it has been passed on.
struct Answering {
    body: Body,
    head: Arc<Head>,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.head.is_answered();
    }
}
