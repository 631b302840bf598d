//! The life of the process: what starts in which order, and what is waited for at its end.

use std::sync::Arc;

use anyhow::Context as _;
use servicechain_auth::{Verifier, VerifierConfig, keys_endpoint};
use servicechain_runtime::admin;
use servicechain_runtime::clock::Clock;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::Listeners;
use servicechain_runtime::metrics::{Metrics, RequestMetrics};
use servicechain_runtime::request_context::RequestContextLayer;
use servicechain_runtime::serve::{Limits, serve};

use crate::app::app;
use crate::cache::{CacheUrl, ItemCache, Lifetimes};
use crate::config::Config;
use crate::items::Items;
use crate::lookup::LookAside;
use crate::metrics::ItemMetrics;
use crate::next_hop::NextHop;
use crate::pause::PausePoints;
use crate::store::ItemStore;

/// Serves until the lifecycle has closed. Ready once keys are held and the database is up to date; later the
/// database's absence does not make it unready, since cached items keep answering.
///
/// # Errors
/// A sentence for whoever started it: a database that cannot be reached, a verifier that cannot start.
pub async fn run(
    config: Config,
    verifier: VerifierConfig,
    listeners: Listeners,
    lifecycle: Arc<Lifecycle>,
) -> anyhow::Result<()> {
    run_with(config, verifier, listeners, lifecycle, PausePoints::default()).await
}

/// [`run`], with moments at which a test holds readers and writers.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    verifier: VerifierConfig,
    listeners: Listeners,
    lifecycle: Arc<Lifecycle>,
    pauses: PausePoints,
) -> anyhow::Result<()> {
    let (keys_gate, database_gate) = (lifecycle.gate("keys"), lifecycle.gate("database"));
    let verifier = Verifier::start(verifier)
        .await
        .context("the verifier cannot start")?;

    let mut metrics = Metrics::new();
    let requests = RequestMetrics::register(&mut metrics, &config.hop.name);
    let item_metrics = ItemMetrics::register(&mut metrics, &config.hop.name);
    let counted = Arc::clone(&verifier);
    metrics.append(move |text| text.push_str(&counted.metrics_text()));

    // Probes are answered and keys taken while the database is still waited for.
    let admin = admin::router(Arc::clone(&lifecycle), Arc::new(metrics));
    let admin = tokio::spawn(serve(
        listeners.admin,
        admin,
        Arc::clone(&lifecycle),
        Limits::default(),
    ));
    let keys = keys_endpoint::router(Arc::clone(&verifier));
    let keys = tokio::spawn(serve(
        listeners.keys,
        keys,
        Arc::clone(&lifecycle),
        Limits::default(),
    ));
    let held = Arc::clone(&verifier);
    tokio::spawn(async move {
        held.ready().await;
        keys_gate.open();
    });

    let stores = async {
        tokio::join!(
            ItemStore::open(&config.database),
            open_cache(config.cache.as_ref())
        )
    };
    let (store, cache) = tokio::select! {
        opened = stores => opened,
        // Nothing was served yet, so there is nothing to wait for.
        () = lifecycle.draining() => {
            lifecycle.end_at_once();
            return Ok(());
        }
    };
    let store = match store {
        Ok(store) => store,
        Err(error) => {
            // What was started above serves nothing any more.
            lifecycle.end_at_once();
            return Err(error.into());
        }
    };
    database_gate.open();
    let clock = Clock::system();
    let lifetimes = Lifetimes::new(config.cache_ttl);
    let look_aside = LookAside::new(
        store,
        Arc::new(cache),
        lifetimes,
        clock.clone(),
        item_metrics.clone(),
        pauses,
    );
    let next = config.next_hop.map(|next| {
        NextHop::new(
            &next.name,
            &next.url,
            config.timeout,
            Arc::clone(&verifier),
            item_metrics,
        )
    });
    let context = RequestContextLayer::new(config.hop.name.as_str(), config.timeout, requests, clock);
    let items = Items {
        hop: config.hop.name.into(),
        look_aside: look_aside.clone(),
        next,
    };
    let router = app(items, context, verifier, config.authorization);
    tracing::info!(address = ?listeners.main.local_addr().ok(), "serving items");

    serve(listeners.main, router, lifecycle, Limits::default())
        .await
        .context("requests cannot be served")?;
    // A write whose client has gone still fills the cache.
    look_aside.finish().await;
    for served in [admin, keys] {
        served
            .await
            .context("a server was lost")?
            .context("the admin or keys port cannot be served")?;
    }
    Ok(())
}

async fn open_cache(url: Option<&CacheUrl>) -> ItemCache {
    let cache = url.map_or(ItemCache::None, CacheUrl::open);
    if let ItemCache::Redis(redis) = &cache {
        // Without it the service starts all the same, and says so.
        redis.connect().await;
    }
    cache
}
