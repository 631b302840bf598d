//! One request and its answer, from the head's arrival until the last byte of the answer is handed to the
//! connection or either side gave up. When it is dropped it is over: it is counted and recorded then, exactly once.

use std::fmt;
use std::rc::Rc;

use http::{Method, Request, StatusCode, Uri};
use servicechain_auth::{Caller, Rejected};
use servicechain_runtime::access::{AccessRecord, Verdict};
use servicechain_runtime::request_id::RequestId;
use servicechain_runtime::spans::Span;
use tokio::time::Instant;

use crate::app::Worker;
use crate::connection::{Client, Cut};
use crate::rejection::Rejection;

/// What is recorded for a client that went away before its answer began; no server sends it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is to be known about a request once it is over.
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    client: Rc<Client>,
    began: Instant,
    method: Method,
    uri: Uri,
    request_id: RequestId,
    span: Span,
    route: Option<usize>,
    verdict: Verdict,
    reason: Option<&'static str>,
    disagrees: bool,
    status: Option<StatusCode>,
    is_complete: bool,
}

impl Exchange {
    pub(crate) fn begin<B>(worker: &Rc<Worker>, client: &Rc<Client>, request: &Request<B>) -> Self {
        client.begin();
        Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            request_id: RequestId::from_headers(request.headers(), worker.gateway.clock_now()),
            span: Span::of_request(request.headers(), "gateway"),
            route: None,
            verdict: Verdict::Absent,
            reason: None,
            disagrees: false,
            status: None,
            is_complete: false,
        }
    }

    pub(crate) fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn route(&self) -> Option<usize> {
        self.route
    }

    pub(crate) fn takes_route(&mut self, route: usize) {
        self.route = Some(route);
        self.worker.metrics.route(self.route).in_flight.up();
    }

    pub(crate) fn is_of(&mut self, caller: Option<Caller>) {
        if let Some(caller) = caller {
            self.verdict = Verdict::Verified;
            self.client.is_used_by(caller);
        }
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        self.client.caller()
    }

    /// Not admitted, or no more. Who brings no token at all was not rejected.
    pub(crate) fn is_refused(&mut self, rejection: &Rejection) {
        if *rejection != Rejection::Refused(Rejected::NoToken) {
            self.verdict = Verdict::Rejected;
        }
    }

    /// The next hop refused a token that is good here.
    pub(crate) fn disagrees(&mut self) {
        self.disagrees = true;
        self.worker.metrics.route(self.route).disagreements.add(1);
    }

    /// The head of an answer came from the upstream, and whether it took a second try.
    pub(crate) fn upstream_answered(&mut self, status: StatusCode, was_repeated: bool) {
        self.status = Some(status);
        let metrics = self.worker.metrics.route(self.route);
        metrics.upstream_answered(self.began.elapsed());
        if was_repeated {
            metrics.retries.add(1);
        }
    }

    /// The gateway answers by itself.
    pub(crate) fn ends_here(&mut self, status: StatusCode, reason: &'static str) {
        self.status = Some(status);
        self.reason = Some(reason);
        self.is_complete = true;
    }

    /// The whole answer has passed.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// The answer broke off after its head was sent.
    pub(crate) fn fail(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    fn status(&self) -> u16 {
        self.status
            .map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16())
    }

    fn record(&self) {
        let gateway = &self.worker.gateway;
        let caller = self.caller().map(|caller| caller.to_string());
        let next = self
            .route
            .map(|route| gateway.config.routes[route].service.as_str());
        let interrupted =
            (!self.is_complete).then(|| self.client.was_cut().map_or("client went away", Cut::reason));
        AccessRecord {
            request_id: self.request_id.as_str(),
            trace_id: self.span.context().trace_id(),
            hop: &gateway.config.hop.name,
            method: &self.method,
            path: self.uri.path(),
            status: self.status(),
            duration: self.began.elapsed(),
            verdict: self.verdict,
            caller: caller.as_deref(),
            reason: self.reason.or(interrupted),
            source: None,
            upstream: next,
            disagrees: next.filter(|_| self.disagrees),
        }
        .emit();
    }

    fn finish_span(&mut self) {
        let gateway = &self.worker.gateway;
        let status = self.status();
        self.span.set("servicechain.hop", gateway.config.hop.name.clone());
        self.span
            .set("http.request.method", self.method.as_str().to_owned());
        self.span.set("url.path", self.uri.path().to_owned());
        self.span.set("http.response.status_code", i64::from(status));
        if let Some(route) = self.route {
            self.span
                .set("http.route", gateway.config.routes[route].name.clone());
        }
        if let Some(reason) = self.reason {
            self.span.set("servicechain.reason", reason);
        }
        if status >= 500 || !self.is_complete {
            self.span.fail(self.reason.unwrap_or("broke off"));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let metrics = self.worker.metrics.route(self.route);
        if self.route.is_some() {
            metrics.in_flight.down();
        }
        if let Some(status) = self.status {
            metrics.answered(status, self.verdict);
        }
        if !self.is_complete {
            metrics.aborted.add(1);
            if self.client.was_cut().is_some() {
                metrics.cut.add(1);
            }
        }
        if AccessRecord::is_wanted() {
            self.record();
        }
        if self.span.is_recorded() {
            self.finish_span();
        }
        self.client.end();
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("request_id", &self.request_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
