//! The whole path of a request through the gateway, on one screen: [`answer`], and the steps of [`pass`].

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use servicechain_auth::Verifier;
use servicechain_runtime::deadline::Deadline;
use servicechain_runtime::lifecycle::Lifecycle;

use crate::admit::admit;
use crate::body::{Forwarded, RequestBody, ResponseBody, UploadState};
use crate::config::Config;
use crate::connection::Client;
use crate::exchange::Exchange;
use crate::forward::{self, Answer, ForwardError, Upstream};
use crate::headers::{self, HeaderFault};
use crate::metrics::WorkerMetrics;
use crate::open_requests::OpenRequests;
use crate::pool::Pool;
use crate::rejection::Rejection;
use crate::request_head::{self, Passed, Said};
use crate::request_line::Target;
use crate::route_table::RouteTable;
use crate::second_opinion;

/// What all cores share. Nothing in it changes but what its parts swap by themselves.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) routes: RouteTable,
    /// In the order of the configuration's routes.
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

/// What one core has for itself.
pub(crate) struct Worker {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) open_requests: OpenRequests,
    /// `Via` for requests of HTTP/1.0 and HTTP/1.1 clients (RFC 9110 section 7.6.3).
    pub(crate) via: [HeaderValue; 2],
}

/// Answers one request: with what its upstream says, or with a problem that says whose fault it is.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut exchange = Box::new(Exchange::begin(&worker, &client, &request));
    let request_id = exchange.request_id().as_header().clone();
    let mut response = match pass(&worker, &client, request, &mut exchange).await {
        Ok((answer, deadline)) => forwarded(answer, deadline, exchange),
        Err(rejection) => refused(&worker.gateway, &client, &rejection, exchange),
    };
    let headers = response.headers_mut();
    headers.insert(servicechain_runtime::request_id::X_REQUEST_ID, request_id);
    if worker.gateway.lifecycle.is_draining() || client.must_close() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Every step a request must pass, in this order: the later ones may trust what the earlier ones let through.
async fn pass(
    worker: &Worker,
    client: &Client,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<(Answer, Deadline), Rejection> {
    let gateway = &*worker.gateway;
    let (mut head, incoming) = request.into_parts();

    // One reading of the head, or none: framing, target, headers.
    client.violation().map_or(Ok(()), |violation| {
        Err(Rejection::Malformed(violation.sentence()))
    })?;
    let target = Target::of(&head)?;
    headers::screen_request(&mut head.headers, client.is_trusted())?;

    // What is matched here is what is forwarded below.
    let index = gateway
        .routes
        .find(target.host(), target.uri.path())
        .ok_or(Rejection::NoRoute)?;
    let route = &gateway.config.routes[index];
    exchange.takes_route(index);
    let deadline = Deadline::after(route.timeout);

    // Who is calling, and whether they may. The token stays as it is.
    match admit(&gateway.verifier, route, &mut head, deadline).await {
        Ok(caller) => exchange.is_of(caller),
        Err(rejection) => {
            exchange.is_refused(&rejection);
            return Err(rejection);
        }
    }

    // The body passes as it comes, up to its limit.
    let limit = gateway.config.limits.request_bytes;
    if incoming.size_hint().lower() > limit {
        return Err(Rejection::BodyTooLarge(limit));
    }
    let upload = (!incoming.is_end_stream()).then(Rc::<Cell<UploadState>>::default);
    let body = RequestBody::new(incoming, limit, upload.clone());
    let upload = || upload.as_ref().map_or(UploadState::Idle, |upload| upload.get());

    // What only the gateway may say.
    let is_trusted = client.is_trusted();
    if is_trusted {
        client.headers().add_to(&mut head.headers);
    }
    let said = Said {
        client_lines: if is_trusted { "" } else { client.headers().lines() },
        via: &worker.via[usize::from(head.version != Version::HTTP_10)],
        request_id: exchange.request_id(),
        trace: exchange.span().context(),
    };
    let passed = Passed {
        method: &head.method,
        target: &target.uri,
        headers: &head.headers,
    };
    let sent = request_head::encode(passed, &said, deadline, body);

    // Pinned here, since a future that is passed on by value is kept twice.
    let sent = pin!(forward::send(
        &gateway.upstreams[index],
        &worker.pool,
        &head.method,
        sent,
        deadline,
        None
    ));
    match deadline.bound(sent).await {
        Ok(Ok(mut answer)) => {
            if answer.response.status() == StatusCode::UNAUTHORIZED {
                // Rare and large, so not a part of every request's future.
                let heeded = second_opinion::heed(worker, index, &head.method, answer, deadline, exchange);
                answer = Box::pin(heeded).await?;
            }
            exchange.upstream_answered(answer.response.status(), answer.was_repeated);
            Ok((answer, deadline))
        }
        Ok(Err(error)) => Err(why_unanswered(error, upload(), limit)),
        Err(_passed) if upload() == UploadState::Waiting => Err(Rejection::SlowClient),
        Err(_passed) => Err(Rejection::SlowUpstream),
    }
}

/// A broken upload breaks the upstream's connection too; the client is told what came first.
fn why_unanswered(error: ForwardError, upload: UploadState, limit: u64) -> Rejection {
    match (upload, error) {
        (UploadState::TooLarge, _) => Rejection::BodyTooLarge(limit),
        (UploadState::BrokeOff, _) => Rejection::BodyBrokeOff,
        (_, ForwardError::Unreachable) => Rejection::Unreachable,
        (_, ForwardError::BrokeOff) => Rejection::BrokeOff,
    }
}

fn forwarded(answer: Answer, deadline: Deadline, exchange: Box<Exchange>) -> Response<ResponseBody> {
    let (mut head, body) = answer.response.into_parts();
    headers::screen_response(&mut head.headers);
    let mut response = Response::new(ResponseBody::Upstream(Forwarded::new(body, deadline, exchange)));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

fn refused(
    gateway: &Gateway,
    client: &Client,
    rejection: &Rejection,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let service = exchange
        .route()
        .map(|route| gateway.config.routes[route].service.as_str());
    let (head, text) = rejection.response(&gateway.config.hop.name, service).into_parts();
    exchange.ends_here(head.status, rejection.reason());
    if client.is_still_sending() {
        client.close_after_this();
    }
    Response::from_parts(
        head,
        ResponseBody::Problem {
            text,
            _exchange: exchange,
        },
    )
}

impl Gateway {
    pub(crate) fn clock_now(&self) -> SystemTime {
        (self.verifier.config().clock)()
    }
}

impl From<HeaderFault> for Rejection {
    fn from(fault: HeaderFault) -> Self {
        match fault {
            HeaderFault::Malformed(sentence) => Self::Malformed(sentence),
            HeaderFault::Upgrade => {
                Self::NotSupportedYet("Upgrade is not served: WebSocket is not supported yet")
            }
            HeaderFault::Expectation => Self::Expectation,
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
