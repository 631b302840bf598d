//! The item service's parts (store, cache, look-aside, client, server, request layers) under a handler of this crate, as
//! a process of its own, with the two layers that verify and pass on, or without. What is deployed has no such switch;
//! this program only shows what the layers cost there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use servicechain_auth::{Caller, Hop, PropagateTokenLayer, RequireTokenLayer, Verifier, VerifierArgs};
use servicechain_item_service::cache::{CacheUrl, ItemCache, Lifetimes};
use servicechain_item_service::item::{ItemId, ItemKey, Owner};
use servicechain_item_service::lookup::LookAside;
use servicechain_item_service::metrics::ItemMetrics;
use servicechain_item_service::pause::PausePoints;
use servicechain_item_service::store::{DatabaseUrl, ItemStore};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::http_client::{CallError, Client, PooledBody};
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::metrics::{Metrics, RequestMetrics};
use servicechain_runtime::request_context::{RequestContext, RequestContextLayer};
use servicechain_runtime::serve::{Limits, serve};
use servicechain_runtime::telemetry::{self, TelemetryArgs};
use servicechain_runtime::upstream::UpstreamUrl;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::full_chain::{CACHE_TTL, SUBJECT};
use crate::hop::service::Way;

const TIMEOUT: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct ItemsArgs {
    #[command(flatten)]
    way: Way,
    #[arg(long)]
    hop: String,
    /// Whose items they are where nobody is verified
    #[arg(long)]
    issuer: String,
    /// Whom it calls
    #[arg(long)]
    next: Option<UpstreamUrl>,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

struct Items<C> {
    hop: String,
    look_aside: LookAside,
    next: Option<C>,
    /// Of items that are asked for by nobody: its `iss`.
    issuer: String,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    id: String,
    hops: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    service: String,
    source: String,
    version: u64,
    item: Option<Box<RawValue>>,
}

/// With a thread a core, as the service has.
pub(crate) fn run(args: ItemsArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_items(args))
}

async fn serve_items(args: ItemsArgs) -> Result<()> {
    let _telemetry = telemetry::init(&args.telemetry, &args.hop)?;
    let listeners = args.server.listen()?;
    let mut metrics = Metrics::new();
    let requests = RequestMetrics::register(&mut metrics, &args.hop);
    let item_metrics = ItemMetrics::register(&mut metrics, &args.hop);
    let context = RequestContextLayer::new(args.hop.as_str(), TIMEOUT, requests, Clock::system());
    let store = ItemStore::open(&DatabaseUrl::new(args.database_url)?).await?;
    let cache = CacheUrl::new(args.redis_url)?.open();
    if let ItemCache::Redis(redis) = &cache {
        redis.connect().await;
    }
    let look_aside = LookAside::new(
        store,
        Arc::new(cache),
        Lifetimes::new(CACHE_TTL),
        Clock::system(),
        item_metrics,
        PausePoints::default(),
    );
    let client = args.next.as_ref().map(|url| Client::new("next", url, TIMEOUT));
    let (hop, issuer) = (args.hop.clone(), args.issuer);
    let router = if args.way.verifies() {
        let config = args
            .verifier
            .into_config(Hop::new(args.hop), Clock::system().as_fn())?;
        let verifier = Verifier::start(config)
            .await
            .context("the verifier cannot start")?;
        verifier.ready().await;
        let next = client.map(|client| PropagateTokenLayer.layer(client));
        routes(Items {
            hop,
            look_aside,
            next,
            issuer,
        })
        .layer(RequireTokenLayer::new(verifier))
    } else {
        routes(Items {
            hop,
            look_aside,
            next: client,
            issuer,
        })
    };
    let lifecycle = args.server.lifecycle();
    serve(
        listeners.main,
        router.layer(context),
        lifecycle,
        Limits::default(),
    )
    .await?;
    Ok(())
}

fn routes<C>(items: Items<C>) -> Router
where
    C: Service<Request<Full<Bytes>>, Response = Response<PooledBody>, Error = CallError>,
    C: Clone + Send + Sync + 'static,
    C::Future: Send,
{
    Router::new()
        .route("/items/{id}", get(get_item::<C>))
        .with_state(Arc::new(items))
}

async fn get_item<C>(
    State(items): State<Arc<Items<C>>>,
    Path(id): Path<String>,
    caller: Option<Extension<Caller>>,
    Extension(context): Extension<RequestContext>,
) -> Response
where
    C: Service<Request<Full<Bytes>>, Response = Response<PooledBody>, Error = CallError>,
    C: Clone + Send + Sync + 'static,
    C::Future: Send,
{
    let caller = caller.map(|Extension(caller)| caller);
    match items.fold(id, caller, context).await {
        Some(reply) => Json(reply).into_response(),
        None => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl<C> Items<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<PooledBody>, Error = CallError> + Clone,
{
    /// Own item first, then what the next hop answers; nothing where anything goes wrong.
    async fn fold(&self, id: String, caller: Option<Caller>, context: RequestContext) -> Option<Reply> {
        let key = ItemKey {
            owner: match &caller {
                Some(caller) => Owner::new(caller.issuer(), caller.subject()),
                None => Owner::new(&self.issuer, SUBJECT),
            },
            id: ItemId::new(&id).ok()?,
        };
        let found = self.look_aside.get(&key, &context.trace).await.ok()?;
        let item = found.stored.item.as_ref()?;
        let own = Entry {
            service: self.hop.clone(),
            source: found.source.as_str().to_owned(),
            version: found.stored.version.number(),
            item: RawValue::from_string(item.as_json().to_owned()).ok(),
        };
        let mut hops = vec![own];
        if let Some(next) = &self.next {
            let mut request = Request::new(Full::default());
            *request.uri_mut() = format!("/items/{id}").parse().ok()?;
            request.extensions_mut().insert(context);
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let (head, body) = next.clone().oneshot(request).await.ok()?.into_parts();
            let body = Limited::new(Body::new(body), LARGEST_ANSWER)
                .collect()
                .await
                .ok()?;
            if head.status != StatusCode::OK {
                return None;
            }
            let behind: Reply = serde_json::from_slice(&body.to_bytes()).ok()?;
            hops.extend(behind.hops);
        }
        Some(Reply { id, hops })
    }
}
