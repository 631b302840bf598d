//! The objects of every chain: what changes anywhere calls a pass over its chain, and a pass is five steps that may be
//! interrupted anywhere and begun again. It must not know who leads.

pub mod accepted;
pub mod apply;
pub mod build;
pub mod dereference;
pub mod observed;
pub mod resources;
pub mod revocations;
pub mod rollout;
pub mod status;
mod triggers;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{self, ObjectRef};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::json;
use servicechain_crds::service_chain::status::ServiceChainStatus;
use servicechain_crds::{ServiceChain, ValidatedChain};
use servicechain_keys::ChainId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use self::accepted::Accepted;
use self::apply::{Built, Outcome, Writer};
use self::build::Given;
use self::dereference::Dereferenced;
use self::observed::{Observed, Refusal};
use self::rollout::{Gated, Held};
use self::status::Pass;
use crate::api_client::{ApiError, WRITE_TIMEOUT, within};
use crate::clock::Clock;
use crate::config::Settings;
use crate::events::{self, Events};
use crate::key_controller::{KeyChains, KeyState};
use crate::object_names::accepted_config_map;
use crate::streams::{Seen, Watches};
use crate::trace;

/// Who the API server says last set a field of a status.
pub(crate) const STATUS_MANAGER: &str = "servicechain.dev/status";
/// Chains worked on at a time: enough for a thousand after a restart, and no burden to the API server.
const CONCURRENCY: u16 = 16;
/// Changes that come together call one pass.
const GATHER: Duration = Duration::from_millis(100);
/// A pass makes some dozens of requests, each with a timeout of its own.
const PASS_TIMEOUT: Duration = Duration::from_mins(3);
/// Longer, and the process does not work any more.
const STUCK_AFTER: Duration = Duration::from_mins(4);
/// A look at every chain although nothing seems to have changed, against whatever was missed.
const RESYNC: Duration = Duration::from_mins(5);
/// The next look where something is in the way that nobody tells the end of.
const IN_THE_WAY: Duration = Duration::from_secs(10);
/// The first and the longest pause after a pass that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// What every pass works with.
pub struct Context {
    pub client: Client,
    pub settings: Settings,
    pub keys: KeyChains,
    pub watches: Watches,
    pub events: Events,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the pass took longer than {} s", PASS_TIMEOUT.as_secs())]
    TimedOut,
    /// Nothing that a person has to mend.
    #[error("the API server did not do all writes")]
    Unavailable,
}

/// Looks after every chain until `shutdown`, and returns when the passes that had begun are done.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let (chains, writer) = reflector::store();
    let changed = Arc::new(Notify::new());
    let lonely = {
        let (context, changed) = (Arc::clone(&context), Arc::clone(&changed));
        tokio::spawn(async move { revocations::run(&context, changed).await })
    };
    let _lonely = AbortOnDropHandle::new(lonely);
    let triggers = triggers::all(&context, &chains, writer, &changed);
    let triggers = triggers.take_until(shutdown.cancelled_owned());
    let failures = Arc::new(Failures::default());
    let reconcile = {
        let failures = Arc::clone(&failures);
        move |chain: Arc<Seen<ServiceChain>>, context| -> Pin<Box<dyn Future<Output = _> + Send>> {
            Box::pin(observed_pass(chain, context, Arc::clone(&failures)))
        }
    };
    let retry = move |chain: Arc<Seen<ServiceChain>>, _: &PassError, _| failures.pause(&chain);
    let config = Config::default().concurrency(CONCURRENCY).debounce(GATHER);
    let mut passes = std::pin::pin!(applier(reconcile, retry, context, chains, triggers, config));
    // What came of each was told where it happened.
    while passes.next().await.is_some() {}
}

/// A pass within its time, counted and told.
async fn observed_pass(
    chain: Arc<Seen<ServiceChain>>,
    context: Arc<Context>,
    failures: Arc<Failures>,
) -> Result<Action, PassError> {
    let (namespace, name) = (chain.namespace().unwrap_or_default(), chain.name_any());
    let _pulse = context
        .watches
        .health
        .expect(format!("the pass over chain {namespace}/{name}"), STUCK_AFTER);
    let begun = Instant::now();
    let pass = tokio::time::timeout(PASS_TIMEOUT, Box::pin(reconcile(&context, &namespace, &name)));
    let pass = async { pass.await.unwrap_or(Err(PassError::TimedOut)) };
    let result = trace::of_chain("pass", &namespace, &name, pass).await;
    let outcome = match &result {
        Ok(_) => "done",
        Err(PassError::TimedOut) => "timeout",
        Err(_) => "failed",
    };
    context.watches.metrics.reconciled(outcome, begun.elapsed());
    match result {
        Ok(next) => {
            failures.forget(&chain);
            Ok(Action::requeue(next))
        }
        Err(error) => {
            let reason = match &error {
                PassError::Api(error) => error.message(),
                PassError::TimedOut | PassError::Unavailable => String::new(),
            };
            tracing::warn!(namespace, chain = name, reason, "{error}; it is tried again");
            Err(error)
        }
    }
}

/// One pass; returns when to look again although nothing changes.
async fn reconcile(context: &Context, namespace: &str, name: &str) -> Result<Duration, PassError> {
    let root = &context.keys.roots().secret;
    // 1. What is wanted, and what stands in the cluster.
    let read = accepted::read(&context.client, root, namespace, name);
    let Some((chain, accepted)) = trace::step("read", read).await? else {
        return Ok(RESYNC);
    };
    let uid = chain.uid().unwrap_or_default();
    if chain.metadata.deletion_timestamp.is_some() {
        // The garbage collector's from now on; a bundle written now would be in its way.
        context.keys.forget(&uid);
        return Ok(RESYNC);
    }
    let find = dereference::dereference(&context.client, namespace, name, accepted.chain());
    let mut found = trace::step("read", find).await?;
    // 2. What can be built. What its keys go by is what is kept of it, whatever its spec says now.
    let is_as_written = accepted.mistakes().is_none();
    let kept = found.live.get(&("ConfigMap", accepted_config_map(name)));
    let mut kept = kept.and_then(|kept| ConfigMap::deserialize(kept).ok());
    let accepted = accepted.where_buildable(&chain, kept.as_ref(), root, |valid| {
        build::mistakes(valid, &context.settings, &found.majors)
    });
    if let Accepted::Before { chain: before, .. } = &accepted
        && is_as_written
    {
        // It has other parts than those that were looked for.
        let found_before = dereference::dereference(&context.client, namespace, name, Some(before));
        found = trace::step("read", found_before).await?;
    }
    let writer = Writer {
        client: &context.client,
        metrics: &context.watches.metrics,
        namespace,
        chain: name,
        owner: &uid,
    };
    let mut not_kept = None;
    if accepted.mistakes().is_none() && !chain.spec.paused {
        match writer
            .keep_accepted(accepted::keep(&chain, root), &found.live)
            .await
        {
            Ok(now) => kept = Some(now),
            Err(outcome) => not_kept = Some(outcome),
        }
    }
    if let Some(seal) = kept.and_then(|kept| accepted::seal(&chain, &kept, root)) {
        context.keys.track(&chain, &seal);
    }
    let keys = context.keys.state(&uid);
    // 3. and 4. Its objects, built and applied.
    let (outcome, held) = match accepted.chain() {
        _ if not_kept.is_some() => (not_kept, Vec::new()),
        Some(valid) if !chain.spec.paused => {
            bring_about(context, &writer, &chain, valid, &mut found, keys.as_deref()).await
        }
        _ => (None, Vec::new()),
    };
    // 5. What there is to say.
    let is_complete = outcome.as_ref().is_none_or(Outcome::is_complete);
    let applied = outcome.map(|outcome| {
        found.observed.name_taken = outcome.name_taken;
        found.observed.write_failures = outcome.write_failures;
        outcome.applied
    });
    let pass = Pass {
        accepted: &accepted,
        applied: applied.as_ref(),
        observed: &found.observed,
        keys: keys.as_deref(),
        held: &held,
        settings: &context.settings,
    };
    let status = status::status(&chain, &pass, now(&context.clock));
    trace::step("status", say(context, &chain, status)).await?;
    let mut failures = found.observed.write_failures.iter();
    if failures.any(|failure| failure.refusal == Refusal::Unavailable) {
        return Err(PassError::Unavailable);
    }
    // Events are not watched, and they alone say why a volume or a pod is not made.
    let Observed {
        claims,
        pods,
        stateful_sets,
        ..
    } = &found.observed;
    let told_by_events = !observed::eventful(claims, pods, stateful_sets).is_empty();
    let awaits_a_secret =
        (accepted.chain()).is_some_and(|valid| status::awaits_a_secret(valid, &found.observed));
    Ok(if is_complete && !told_by_events && !awaits_a_secret {
        RESYNC
    } else {
        IN_THE_WAY
    })
}

/// Builds what was accepted, and applies it. Before the first bundle exists nothing that runs pods is made.
async fn bring_about(
    context: &Context,
    writer: &Writer<'_>,
    chain: &ServiceChain,
    valid: &ValidatedChain,
    found: &mut Dereferenced,
    keys: Option<&KeyState>,
) -> (Option<Outcome>, Vec<Held>) {
    let uid = chain.uid().unwrap_or_default();
    let roots = context.keys.roots();
    let Ok(chain_id) = ChainId::new(uid.clone()) else {
        return (None, Vec::new());
    };
    let building = trace::begin("build");
    let prepared = build::build(
        valid,
        &mut Given {
            owner: accepted::owner(chain),
            chain_id,
            anchors: &roots.anchors(),
            root: &roots.secret,
            settings: &context.settings,
            client_secrets: &found.client_secrets,
            store_secrets: &found.store_secrets,
            majors: &found.majors,
            new_password: &mut new_password,
        },
    );
    drop(building);
    let built = Built::of(&prepared);
    let Gated {
        resources: mut prepared,
        held,
        is_rolled_out,
    } = rollout::gate(prepared, valid, &found.observed, keys);
    let may_run = context.keys.bundle_exists(&uid);
    if !may_run {
        prepared.stateful_sets.clear();
        prepared.deployments.clear();
    }
    let mut outcome = trace::step("apply", writer.apply(prepared, &found.live)).await;
    let nobody_calls_it = may_run && is_rolled_out && outcome.is_complete();
    let prune = writer.prune(&found.live, &built, nobody_calls_it);
    let failures = trace::step("prune", prune).await;
    outcome.write_failures.extend(failures);
    (Some(outcome), held)
}

/// One patch, where there is something new to say; then Events of it.
async fn say(context: &Context, chain: &ServiceChain, status: ServiceChainStatus) -> Result<(), ApiError> {
    if chain.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let (namespace, name) = (chain.namespace().unwrap_or_default(), chain.name_any());
    let api = Api::<ServiceChain>::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        // Of this very chain, not of one that was made anew.
        "metadata": {"name": name, "uid": chain.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(&patch);
    let write = api.patch_status(&name, &params, &patch);
    match within(WRITE_TIMEOUT, "cannot write the status", write).await {
        Ok(_) => context.watches.metrics.wrote("ServiceChain", "status", "done"),
        // Gone, or another one by now.
        Err(error) if matches!(error.code(), Some(404 | 409)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let before = chain.status.as_ref().map_or(&[][..], |before| &before.conditions);
    let news = events::news(before, &status.conditions);
    context.events.tell(chain, news).await;
    Ok(())
}

/// 256 bits, in letters that need no quoting anywhere.
fn new_password() -> Zeroizing<String> {
    let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

/// Whole seconds, as Kubernetes writes times.
fn now(clock: &Clock) -> Timestamp {
    let now = Timestamp::try_from(clock()).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How often each chain's passes failed in a row.
#[derive(Debug, Default)]
struct Failures(Mutex<HashMap<ObjectRef<Seen<ServiceChain>>, u32>>);

impl Failures {
    fn pause(&self, chain: &Seen<ServiceChain>) -> Action {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(ObjectRef::from_obj(chain)).or_default();
        *count = (*count + 1).min(16);
        let pause = (PAUSE.0 * 2_u32.pow(*count - 1)).min(PAUSE.1);
        Action::requeue(pause.mul_f64(rand::random_range(0.5..1.0)))
    }

    fn forget(&self, chain: &Seen<ServiceChain>) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&ObjectRef::from_obj(chain));
    }
}
