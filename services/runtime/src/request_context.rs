//! What accompanies a request through a service and on to the next hop: its id, its place in a trace, its deadline.
//!
//! [`RequestContextLayer`] is a service's outermost layer. It also counts the request, ends it at its deadline and
//! writes its access record from what the service noted in the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{Request, header};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::access::{AccessNotes, AccessRecord};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::metrics::RequestMetrics;
use crate::problem::Problem;
use crate::request_id::RequestId;
use crate::spans::Span;
use crate::trace_context::TraceContext;

/// In the extensions of every request that a service works on, and of those it sends through
/// [`crate::http_client::Client`].
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub request_id: RequestId,
    /// This hop's own span.
    pub trace: TraceContext,
    pub deadline: Deadline,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RequestContextLayer {
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    hop: String,
    timeout: Duration,
    metrics: RequestMetrics,
    clock: Clock,
}

impl RequestContextLayer {
    /// `timeout` bounds each request that does not come with less (zero: none).
    #[must_use]
    pub fn new(hop: impl Into<String>, timeout: Duration, metrics: RequestMetrics, clock: Clock) -> Self {
        Self {
            settings: Arc::new(Settings {
                hop: hop.into(),
                timeout,
                metrics,
                clock,
            }),
        }
    }
}

impl<S> Layer<S> for RequestContextLayer {
    type Service = WithRequestContext<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithRequestContext {
            inner,
            settings: Arc::clone(&self.settings),
        }
    }
}

/// Middleware of [`RequestContextLayer`].
#[derive(Clone, Debug)]
pub struct WithRequestContext<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Service<Request<Body>> for WithRequestContext<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits for its own turn.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(answer(Arc::clone(&self.settings), inner, request))
    }
}

async fn answer<S>(
    settings: Arc<Settings>,
    mut inner: S,
    mut request: Request<Body>,
) -> Result<Response, Infallible>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let begun = Instant::now();
    let _in_flight = settings.metrics.begin();
    let headers = request.headers();
    let mut span = Span::of_request(headers, "request");
    let context = RequestContext {
        request_id: RequestId::from_headers(headers, settings.clock.now()),
        trace: span.context().clone(),
        deadline: Deadline::from_headers(headers, settings.timeout),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(context.clone());

    let mut response = if let Ok(answered) = context.deadline.bound(inner.call(request)).await {
        answered?
    } else {
        // The rest of a body that comes too slowly is not waited for.
        let late = Problem::slow_hop(&settings.hop);
        late.header(header::CONNECTION, http::HeaderValue::from_static("close"))
            .into_response()
    };

    context.request_id.inject(response.headers_mut());
    let (status, duration) = (response.status(), begun.elapsed());
    settings.metrics.answered(status.as_u16(), duration);
    let notes = response
        .extensions_mut()
        .remove::<AccessNotes>()
        .unwrap_or_default();
    if AccessRecord::is_wanted() {
        AccessRecord {
            request_id: context.request_id.as_str(),
            trace_id: context.trace.trace_id(),
            hop: &settings.hop,
            method: &method,
            path: &path,
            status: status.as_u16(),
            duration,
            verdict: notes.verdict,
            caller: notes.caller.as_deref(),
            reason: notes.reason,
            source: notes.source,
            upstream: notes.upstream.as_deref(),
            disagrees: notes.disagrees.as_deref(),
        }
        .emit();
    }
    if span.is_recorded() {
        span.set("servicechain.hop", settings.hop.clone());
        span.set("http.request.method", method.as_str().to_owned());
        span.set("url.path", path);
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if let Some(reason) = notes.reason {
            span.set("servicechain.rejected", reason);
        }
        if status.is_server_error() {
            span.fail(status.as_str().to_owned());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use axum::Router;
    use axum::routing::get;
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use std::sync::Mutex;
    use tower::ServiceExt as _;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};

    fn app(handler: axum::routing::MethodRouter) -> Router {
        let metrics = RequestMetrics::register(&mut Metrics::new(), "b");
        let layer = RequestContextLayer::new("b", Duration::from_secs(5), metrics, Clock::system());
        Router::new().route("/items/1", handler).layer(layer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_ended_with_504_naming_the_hop() {
        let app = app(get(async || std::future::pending::<()>().await));
        let request = Request::get("/items/1").header("servicechain-remaining-ms", "700");
        let begun = Instant::now();
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(begun.elapsed().as_millis(), 665);
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()["hop"],
            "b"
        );
    }

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<(String, String)>>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Seen {
        fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
            if event.metadata().target() == crate::access::TARGET {
                let mut fields = Vec::new();
                event.record(&mut Fields(&mut fields));
                if fields.contains(&("request_id".to_owned(), "r-1".to_owned())) {
                    self.0.lock().unwrap().extend(fields);
                }
            }
        }
    }

    struct Fields<'a>(&'a mut Vec<(String, String)>);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.push((field.name().to_owned(), format!("{value:?}")));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.push((field.name().to_owned(), value.to_owned()));
        }
    }

    #[tokio::test]
    async fn the_access_record_says_who_asked_what_without_the_query() {
        let seen = Seen::default();
        // For all threads: where only one thread listens, another that reaches the event first switches it off for good.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(seen.clone())).unwrap();
        let notes = AccessNotes {
            verdict: crate::access::Verdict::Verified,
            caller: Some("client:demo".into()),
            source: Some("cache"),
            ..AccessNotes::default()
        };
        let app = app(get(move || {
            std::future::ready(axum::Extension(notes).into_response())
        }));
        let request = Request::get("/items/1?token=secret").header("x-request-id", "r-1");
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "r-1");
        let seen = seen.0.lock().unwrap();
        let field = |name: &str| {
            seen.iter()
                .find(|(field, _)| field == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        assert_eq!(
            [field("hop"), field("path"), field("status")],
            ["b", "/items/1", "200"]
        );
        assert_eq!(
            [field("caller"), field("verdict"), field("source")],
            ["client:demo", "verified", "cache"]
        );
        assert_eq!(field("request_id"), "r-1");
        assert!(seen.iter().all(|(_, value)| !value.contains("secret")));
        assert!(!seen.iter().any(|(name, _)| name == "reason"));
    }
}
