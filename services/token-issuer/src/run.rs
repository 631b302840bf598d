//! The issuer's process, from its first key to its last request. It must not know where configuration comes from.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use servicechain_auth::{Verifier, VerifierConfig, keys_endpoint};
use servicechain_runtime::admin;
use servicechain_runtime::clock::Clock;
use servicechain_runtime::lifecycle::{Lifecycle, ReadinessGate};
use servicechain_runtime::listeners::Listeners;
use servicechain_runtime::metrics::Metrics;
use servicechain_runtime::serve::{Limits, serve};

use crate::app::app;
use crate::config::Config;
use crate::signing_keys::SigningKeys;

/// How late a key that has passed its end is noticed by readiness; signing itself looks every time.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Serves until the lifecycle has closed.
///
/// # Errors
/// Where it cannot start: no keys directory, no usable verifier configuration, no socket.
pub async fn run(
    config: Config,
    verifier: VerifierConfig,
    listeners: Listeners,
    lifecycle: Arc<Lifecycle>,
) -> anyhow::Result<()> {
    let bundle_gate = lifecycle.gate("key bundle");
    let signing_gate = lifecycle.gate("signing key");
    let verifier = Verifier::start(verifier)
        .await
        .context("the verifier cannot start")?;
    let keys = {
        let (issuer, verifier) = (config.issuer.clone(), Arc::clone(&verifier));
        let directory = config.keys_directory.clone();
        tokio::task::spawn_blocking(move || SigningKeys::start(issuer, verifier, directory)).await??
    };

    let mut metrics = Metrics::new();
    let main = app(
        config,
        Arc::clone(&verifier),
        Arc::clone(&keys),
        &mut metrics,
        Clock::system(),
    );
    let counted = Arc::clone(&verifier);
    metrics.append(move |text| text.push_str(&counted.metrics_text()));
    let admin = admin::router(Arc::clone(&lifecycle), Arc::new(metrics));
    let offers = Arc::clone(&keys);
    let keys_port = keys_endpoint::router_with_offers(Arc::clone(&verifier), offers);
    let limits = Limits::default();

    let served = async {
        tokio::try_join!(
            serve(listeners.main, main, Arc::clone(&lifecycle), limits),
            serve(listeners.admin, admin, Arc::clone(&lifecycle), limits),
            serve(listeners.keys, keys_port, Arc::clone(&lifecycle), limits),
        )
    };
    let kept = async {
        tokio::join!(
            open_when_ready(&verifier, &bundle_gate),
            keep_keys(&verifier, &keys, &signing_gate)
        )
    };
    tokio::select! {
        served = served => served.map(drop).context("cannot serve"),
        _ = kept => Ok(()),
    }
}

async fn open_when_ready(verifier: &Verifier, gate: &ReadinessGate) {
    gate.close("waiting for a key bundle and the operator's word");
    verifier.ready().await;
    gate.open();
}

/// After every bundle: keeps up with it, and says whether the pod can sign. Goes on for ever.
async fn keep_keys(verifier: &Verifier, keys: &Arc<SigningKeys>, gate: &ReadinessGate) {
    let mut generations = verifier.subscribe();
    loop {
        generations.borrow_and_update();
        let kept = Arc::clone(keys);
        match tokio::task::spawn_blocking(move || kept.keep_up()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the next signing key could not be made"),
            Err(error) => tracing::error!(%error, "keeping up with the key bundle was interrupted"),
        }
        match keys.can_sign() {
            Ok(()) => gate.open(),
            Err(why) => gate.close(why.to_string()),
        }
        // Ends with a generation, or when it is time to look whether the key has passed its end.
        let _ = tokio::time::timeout(BETWEEN_LOOKS, generations.changed()).await;
    }
}
