//! One client's connection: hyper's HTTP/1.1 under the [`HeadGuard`], ended by its limits, by what the guard saw or
//! by the process' phase. Requests are answered by `app`.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use servicechain_auth::Caller;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::app::{self, Worker};
use crate::client_headers::ClientHeaders;
use crate::head_guard::{Guarded, HeadGuard, Violation};
use crate::rejection::Rejection;
use crate::small_writes::SmallWrites;

/// Between two requests, at least. It exceeds the 60 s of common load balancers, since the side that reuses a
/// connection must be the one that ends it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A connection that the kernel took just before the listener closed may say what it wants for so long.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long and how much is read and thrown away so that a client that is still sending sees our last answer: a
/// socket closed over unread bytes resets the connection, and the answer with it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;
/// hyper wants room for a whole head and what came along with it.
const LEAST_BUFFER: usize = 16 * 1024;

/// A client as long as it is connected; its requests share it.
#[derive(Debug)]
pub(crate) struct Client {
    guard: Rc<HeadGuard>,
    headers: ClientHeaders,
    is_trusted: bool,
    in_flight: Cell<u32>,
    has_asked: Cell<bool>,
    /// Since the timer last looked.
    was_active: Cell<bool>,
    closes: Cell<bool>,
    /// Who makes the request that is being worked on, where it needed a token.
    caller: RefCell<Option<Caller>>,
    /// That request was being worked on at the last look.
    was_seen: Cell<bool>,
    cut: Cell<Option<Cut>>,
    is_cut: Notify,
}

/// Why a connection is ended in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A newer bundle refuses the request's token.
    Refused,
    /// The request's token has expired.
    Expired,
}

impl Cut {
    /// As access records have it.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "token refused by newer keys",
            Self::Expired => "token expired",
        }
    }
}

impl Client {
    fn new(peer: SocketAddr, worker: &Worker) -> Self {
        let address = peer.ip().to_canonical();
        Self {
            guard: Rc::default(),
            headers: ClientHeaders::new(address),
            is_trusted: worker
                .gateway
                .config
                .trusted_proxies
                .iter()
                .any(|network| network.contains(&address)),
            in_flight: Cell::new(0),
            has_asked: Cell::new(false),
            was_active: Cell::new(false),
            closes: Cell::new(false),
            caller: RefCell::default(),
            was_seen: Cell::new(false),
            cut: Cell::new(None),
            is_cut: Notify::new(),
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.guard.violation()
    }

    pub(crate) fn headers(&self) -> &ClientHeaders {
        &self.headers
    }

    /// Whether what it says of clients before it is believed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    pub(crate) fn is_still_sending(&self) -> bool {
        self.guard.may_have_more_to_send()
    }

    /// The connection ends with the answer to the current request.
    pub(crate) fn close_after_this(&self) {
        self.closes.set(true);
    }

    pub(crate) fn must_close(&self) -> bool {
        self.closes.get() || self.guard.must_close()
    }

    /// A request began.
    pub(crate) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.has_asked.set(true);
        self.was_active.set(true);
        self.was_seen.set(false);
    }

    /// Whose the request is.
    pub(crate) fn is_used_by(&self, caller: Caller) {
        self.caller.replace(Some(caller));
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        self.caller.borrow().clone()
    }

    /// Whether the request was there at the last look as well.
    pub(crate) fn was_seen_before(&self) -> bool {
        self.was_seen.replace(true)
    }

    /// Ends the connection with what is on it: not a byte more goes either way.
    pub(crate) fn cut(&self, why: Cut) {
        self.cut.set(Some(why));
        self.is_cut.notify_one();
    }

    pub(crate) fn was_cut(&self) -> Option<Cut> {
        self.cut.get()
    }

    /// A request is over.
    pub(crate) fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if !self.is_busy() {
            self.caller.take();
        }
    }

    fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Either side closed it as HTTP has it.
    Done,
    /// The client took too long to send a head.
    SlowHead,
    /// Nothing was asked for long enough.
    Idle,
    /// Its request's token is not good any more.
    Cut,
    /// The process does not wait any longer.
    Dropped,
}

/// Serves one connection until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    // Without it small answers wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let client = Rc::new(Client::new(peer, &worker));
    worker.metrics.connections.up();
    worker.open_requests.connected(&client);
    let header_bytes = worker.gateway.config.limits.header_bytes;
    let answer = {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        service_fn(move |request| app::answer(Rc::clone(&worker), Rc::clone(&client), request))
    };
    let io = TokioIo::new(Guarded::new(SmallWrites(stream), Rc::clone(&client.guard)));
    // The guard's timers stand in for hyper's, which would be armed anew for each request.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(header_bytes)
        .max_buf_size(LEAST_BUFFER.max(header_bytes * 2))
        .serve_connection(io, answer);
    let end = {
        let mut closing = pin!(worker.gateway.lifecycle.closing());
        let mut closed = pin!(worker.gateway.lifecycle.closed());
        let mut cut = pin!(client.is_cut.notified());
        let mut limits = pin!(TimeLimits::new(worker.gateway.config.limits.header_timeout));
        let mut is_closing = false;
        let mut watches_phases = false;
        std::future::poll_fn(|cx| {
            if client.was_cut().is_some() {
                return Poll::Ready(End::Cut);
            }
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return Poll::Ready(End::Done);
            }
            // Once registered, the phases need no look before the process drains.
            if !watches_phases || worker.gateway.lifecycle.is_draining() {
                watches_phases = true;
                // Nobody is cut while this is polled: whoever cuts runs on the same core.
                let _ = cut.as_mut().poll(cx);
                if closed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(End::Dropped);
                }
                if !is_closing && closing.as_mut().poll(cx).is_ready() {
                    is_closing = true;
                    if client.has_asked.get() {
                        Pin::new(&mut connection).graceful_shutdown();
                        cx.waker().wake_by_ref();
                    } else {
                        limits.as_mut().reset(Instant::now() + LAST_WORD_TIMEOUT);
                    }
                }
            }
            limits.as_mut().poll(&client, cx)
        })
        .await
    };
    let parts = connection.into_parts();
    let SmallWrites(stream) = parts.io.into_inner().into_inner();
    match end {
        End::SlowHead => {
            let hop = &worker.gateway.config.hop.name;
            refuse_slow_head(stream, Rejection::SlowClient.response(hop, None)).await;
        }
        End::Done if client.is_still_sending() => linger(stream).await,
        // A reset: an answer that ends with its connection must not look whole, and what the kernel still holds is dropped.
        End::Cut => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        End::Done | End::Idle | End::Dropped => (),
    }
    worker.open_requests.disconnected(&client);
    worker.metrics.connections.down();
}

/// One timer for a connection's two limits. It is set when it fires, not when a request begins or ends.
struct TimeLimits {
    header_timeout: Duration,
    timer: Pin<Box<Sleep>>,
    head_began: Option<Instant>,
}

impl TimeLimits {
    fn new(header_timeout: Duration) -> Self {
        Self {
            header_timeout,
            timer: Box::pin(tokio::time::sleep(header_timeout)),
            head_began: None,
        }
    }

    fn reset(mut self: Pin<&mut Self>, until: Instant) {
        self.timer.as_mut().reset(until);
    }

    fn poll(mut self: Pin<&mut Self>, client: &Client, cx: &mut Context<'_>) -> Poll<End> {
        if client.guard.is_inside_head() && !client.is_busy() {
            if self.head_began.is_none() {
                let now = Instant::now();
                self.head_began = Some(now);
                let until = now + self.header_timeout;
                self.timer.as_mut().reset(until);
            }
        } else {
            self.head_began = None;
        }
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.head_began.is_some() {
                return Poll::Ready(End::SlowHead);
            }
            // Looking now and then costs nothing per request; a connection may idle for up to twice its limit.
            let was_active = client.was_active.take() || client.is_busy();
            if !was_active {
                return Poll::Ready(End::Idle);
            }
            self.timer.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
    }
}

/// hyper has no answer to a head that never ends, so this one is written by hand.
async fn refuse_slow_head(mut stream: TcpStream, response: Response<Bytes>) {
    let (head, body) = response.into_parts();
    let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(&body);
    if stream.write_all(&text).await.is_ok() && stream.shutdown().await.is_ok() {
        linger(stream).await;
    }
}

/// Waits until the client has seen that our side is closed, or has sent far too much.
async fn linger(stream: TcpStream) {
    let mut rest = stream.take(LINGER_BYTES);
    let _ = tokio::time::timeout(LINGER_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
