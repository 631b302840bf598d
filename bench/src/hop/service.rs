//! The service of the section `hop`, as a process of its own: it calls on, with the two layers or without. There is no
//! such switch in what is deployed: this program verifies nothing for anybody.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, body::Body};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use servicechain_auth::propagate_token::PropagateToken;
use servicechain_auth::{Caller, Hop, PropagateTokenLayer, RequireTokenLayer, Verifier, VerifierArgs};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::http_client::{CallError, Client, PooledBody};
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::metrics::{Metrics, RequestMetrics};
use servicechain_runtime::request_context::{RequestContext, RequestContextLayer};
use servicechain_runtime::serve::{Limits, serve};
use servicechain_runtime::telemetry::{self, TelemetryArgs};
use servicechain_runtime::upstream::UpstreamUrl;
use tower::{Layer as _, Service, ServiceExt as _};

const TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct HopArgs {
    #[command(flatten)]
    way: Way,
    /// Whom it calls
    #[arg(long)]
    next: UpstreamUrl,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Whether it verifies; one of them must be said.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Way {
    #[arg(long)]
    with_layers: bool,
    #[arg(long)]
    without_layers: bool,
}

impl Way {
    pub(crate) const fn verifies(self) -> bool {
        self.with_layers
    }
}

/// On one thread, as on a pod with one core.
pub(crate) fn run(args: HopArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(serve_hop(args))
}

async fn serve_hop(args: HopArgs) -> Result<()> {
    let _telemetry = telemetry::init(&args.telemetry, "hop")?;
    let listeners = args.server.listen()?;
    let mut metrics = Metrics::new();
    let requests = RequestMetrics::register(&mut metrics, "hop");
    let context = RequestContextLayer::new("hop", TIMEOUT, requests, Clock::system());
    let client = Client::new("next", &args.next, TIMEOUT);
    let router = if args.way.verifies() {
        let config = args
            .verifier
            .into_config(Hop::new("a"), Clock::system().as_fn())?;
        let verifier = Verifier::start(config).await?;
        verifier.ready().await;
        Router::new()
            .route("/items/{id}", get(call_on_verified))
            .with_state(PropagateTokenLayer.layer(client))
            .layer(RequireTokenLayer::new(verifier))
    } else {
        Router::new()
            .route("/items/{id}", get(call_on))
            .with_state(client)
    };
    let lifecycle: Arc<Lifecycle> = args.server.lifecycle();
    serve(
        listeners.main,
        router.layer(context),
        lifecycle,
        Limits::default(),
    )
    .await?;
    Ok(())
}

async fn call_on(State(client): State<Client>, Extension(context): Extension<RequestContext>) -> Response {
    let mut request = Request::new(Full::default());
    request.extensions_mut().insert(context);
    answer(client, request).await
}

async fn call_on_verified(
    State(client): State<PropagateToken<Client>>,
    caller: Caller,
    Extension(context): Extension<RequestContext>,
) -> Response {
    let mut request = Request::new(Full::default());
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(caller);
    answer(client, request).await
}

async fn answer<S>(client: S, mut request: Request<Full<Bytes>>) -> Response
where
    S: Service<Request<Full<Bytes>>, Response = Response<PooledBody>, Error = CallError>,
{
    *request.uri_mut() = http::Uri::from_static("/items/1");
    let Ok(answered) = client.oneshot(request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (head, body) = answered.into_parts();
    match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(body) => (head.status, Body::from(body.to_bytes())).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
