//! Calls to the next hop: an address picked per try, a connection reused, the deadline, trace and id passed on.
//!
//! It is a tower service, so that a layer can add the caller's token. A request goes out a second time only if the
//! first is known not to have been sent, or if repeating it does no harm.

mod pool;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

use crate::deadline::{Deadline, DeadlinePassed};
use crate::request_context::RequestContext;
use crate::spans::{Span, SpanKind};
use crate::upstream::{Resolver, UpstreamUrl, pick};
pub use pool::PooledBody;
use pool::Pools;

/// A host on the same network that does not answer within a second will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Addresses tried for one request: the first, and two more if they refuse a connection.
const MAX_TRIES: usize = 3;

/// Calls one next hop. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// In the extensions of an answer: the address that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredBy(pub SocketAddr);

/// In the extensions of a request: it goes to any address but this one, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere(pub SocketAddr);

struct Inner {
    hop: String,
    host: HeaderValue,
    timeout: Duration,
    resolver: Arc<Resolver>,
    pools: Pools,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not sent: nothing is known of the name yet.
    #[error("the name of {0} has not been resolved")]
    Unresolved(UpstreamUrl),
    /// Not sent: no address took a connection.
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// Not sent: there is no address but the one that it must not go to.
    #[error("there is no address but {0}")]
    NowhereElse(SocketAddr),
    /// It may have been sent.
    #[error(transparent)]
    DeadlinePassed(#[from] DeadlinePassed),
    /// It was sent, and the connection broke before the answer was complete.
    #[error("the connection broke off")]
    Interrupted(#[source] hyper::Error),
}

impl CallError {
    /// Whether the next hop cannot have seen the request.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Unresolved(_) | Self::Connect { .. } | Self::NowhereElse(_)
        )
    }
}

impl Client {
    /// Calls `hop` at `url`, each request for at most `timeout` (zero: none) or what its deadline leaves.
    /// It must be called within a tokio runtime.
    #[must_use]
    pub fn new(hop: impl Into<String>, url: &UpstreamUrl, timeout: Duration) -> Self {
        Self::through(hop.into(), Resolver::start(url), timeout)
    }

    fn through(hop: String, resolver: Arc<Resolver>, timeout: Duration) -> Self {
        // A host that came out of a URL is always a header value.
        let host = HeaderValue::from_str(&resolver.url().authority())
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        Self {
            inner: Arc::new(Inner {
                hop,
                host,
                timeout,
                resolver,
                pools: Pools::default(),
            }),
        }
    }

    /// The next hop's name.
    #[must_use]
    pub fn hop(&self) -> &str {
        &self.inner.hop
    }

    #[must_use]
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.inner.resolver
    }

    async fn answer(self, mut request: Request<Full<Bytes>>) -> Result<Response<PooledBody>, CallError> {
        let inner = &*self.inner;
        let context = request.extensions().get::<RequestContext>().cloned();
        let own = Deadline::after(inner.timeout);
        let deadline = context
            .as_ref()
            .map_or(own, |context| own.earlier(context.deadline));
        let mut span = context.as_ref().map(|context| {
            context.request_id.inject(request.headers_mut());
            let mut span = Span::child_of(&context.trace, "call", SpanKind::Client);
            span.context().inject(request.headers_mut());
            span.set("server.address", inner.resolver.url().to_string());
            span.set("servicechain.hop", inner.hop.clone());
            span
        });
        deadline.inject(request.headers_mut());
        request.headers_mut().insert(header::HOST, inner.host.clone());
        if let Some(path) = request.uri().path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        let answer = match deadline.bound(inner.send(request, deadline)).await {
            Ok(answer) => answer,
            Err(passed) => Err(passed.into()),
        };
        if let (Some(span), Err(error)) = (&mut span, &answer) {
            span.fail(error.to_string());
        }
        answer
    }
}

impl Inner {
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Deadline,
    ) -> Result<Response<PooledBody>, CallError> {
        let may_repeat = request.method().is_idempotent();
        let elsewhere = request.extensions().get::<Elsewhere>();
        let shunned = elsewhere.map(|Elsewhere(address)| *address);
        let mut failed = shunned;
        let mut tries = 0;
        // A connection from the pool may have been closed at the other end meanwhile; the next one is then new.
        let mut pooled = true;
        // Only a process that has just started has not resolved the name yet.
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, self.resolver.answered()).await;
        loop {
            tries += 1;
            let endpoints = self.resolver.endpoints();
            let endpoint = pick(&endpoints, failed)
                .map(Arc::clone)
                .ok_or_else(|| CallError::Unresolved(self.resolver.url().clone()))?;
            drop(endpoints);
            let in_flight = endpoint.begin();
            let address = endpoint.address();
            if shunned == Some(address) {
                return Err(CallError::NowhereElse(address));
            }
            let reused = if pooled {
                self.pools.take(address).await
            } else {
                None
            };
            let is_reused = reused.is_some();
            let connected = match reused {
                Some(connection) => Ok(connection),
                None => connect(address).await,
            };
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(source) => {
                    endpoint.refused();
                    self.resolver.resolve_again();
                    if tries < MAX_TRIES && self.resolver.endpoints().as_slice().len() > 1 {
                        failed = Some(address);
                        continue;
                    }
                    return Err(CallError::Connect { address, source });
                }
            };
            let error = match connection.try_send_request(copy(&request)).await {
                Ok(mut response) => {
                    response.extensions_mut().insert(AnsweredBy(address));
                    return Ok(self
                        .pools
                        .lend(response, connection, address, in_flight, deadline));
                }
                Err(error) => error,
            };
            let is_unsent = error.message().is_some();
            if is_reused && (is_unsent || may_repeat) {
                pooled = false;
                continue;
            }
            self.resolver.resolve_again();
            return Err(CallError::Interrupted(error.into_error()));
        }
    }
}

impl tower::Service<Request<Full<Bytes>>> for Client {
    type Response = Response<PooledBody>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("hop", &self.inner.hop)
            .field("resolver", &self.inner.resolver)
            .finish()
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(io::Error::other)?;
    // It ends when the sender is dropped or the other side closes; errors reach whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// The request once more, without extensions, which are ours.
fn copy(request: &Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let mut copy = Request::new(request.body().clone());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
