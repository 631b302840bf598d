//! Watches of the operator's own, one stream a kind, each with its own pause after a failure: a kind that cannot be watched
//! never delays another. Only names, labels and owners are kept of what is seen. They say that they get on, so that a
//! watch that hangs ends the process. They must not know what follows from a change.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::api::{ListParams, WatchParams};
use kube::core::{PartialObjectMeta, WatchEvent};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::health::{Health, Pulse};
use crate::metrics::Metrics;
use crate::pages::Pages;

/// The API server ends a watch after this. Balancers between us and it cut idle connections at 240 s and later, often
/// without telling.
const WATCH_SECONDS: u32 = 180;
/// A watch that the API server should have ended by now hangs.
const HANGS_AFTER: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);
/// Neither a change nor a bookmark nor an orderly end for so long: the process is of no use and begins anew.
const STUCK_AFTER: Duration = Duration::from_mins(5);
/// Objects asked for at a time.
const PAGE: u32 = 500;
/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A watch that ends sooner was not worth beginning; the next one waits.
const WORTH_WHILE: Duration = Duration::from_secs(5);
/// Events that wait for their receiver. One that does not take them holds the watch up, not the memory.
const WAITING: usize = 256;

/// What is seen of an object.
pub type Seen<K> = PartialObjectMeta<K>;

/// Where watches are told to look.
#[derive(Clone)]
pub struct Watches {
    pub client: Client,
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub health: Health,
    pub metrics: Metrics,
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Watches {
    /// Follows the objects of a kind that have a label, or all of them, until the stream is dropped. It has no errors:
    /// it begins again.
    pub fn follow<K>(
        &self,
        kind: &'static str,
        label: Option<&str>,
    ) -> impl Stream<Item = Event<Seen<K>>> + use<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api = match &self.namespace {
            Some(namespace) => Api::<K>::namespaced(self.client.clone(), namespace),
            None => Api::<K>::all(self.client.clone()),
        };
        let (events, mut received) = mpsc::channel(WAITING);
        let watch = Watch {
            api,
            kind,
            label: label.map(str::to_owned),
            pulse: self.health.expect(format!("the watch of {kind}"), STUCK_AFTER),
            events,
        };
        let metrics = self.metrics.clone();
        let task = tokio::spawn(async move { watch.run(&metrics).await });
        let task = AbortOnDropHandle::new(task);
        futures_util::stream::poll_fn(move |context| {
            let _ = &task;
            received.poll_recv(context)
        })
    }
}

struct Watch<K> {
    api: Api<K>,
    kind: &'static str,
    label: Option<String>,
    pulse: Pulse,
    events: mpsc::Sender<Event<Seen<K>>>,
}

#[derive(Debug, thiserror::Error)]
enum Interrupted {
    /// The API server does not remember so far back: list again.
    #[error("the API server has forgotten where the watch was")]
    Expired,
    #[error(transparent)]
    Failed(#[from] ApiError),
    #[error("the API server ended the watch with {0}")]
    Refused(String),
    #[error("nothing was heard for {} s", HANGS_AFTER.as_secs())]
    Hangs,
    #[error("nobody listens")]
    NobodyListens,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    async fn run(self, metrics: &Metrics) {
        let mut version = None;
        let mut pause = PAUSE.0;
        loop {
            let begun = Instant::now();
            let outcome = match version.take() {
                None => self.list().await,
                Some(from) => self.watch(from).await,
            };
            match outcome {
                Ok((now, did_list)) => {
                    self.pulse.beat();
                    version = Some(now);
                    if did_list || begun.elapsed() >= WORTH_WHILE {
                        continue;
                    }
                }
                Err((_, Interrupted::NobodyListens)) => return,
                Err((_, Interrupted::Expired)) => metrics.watch_restarted(self.kind, "expired"),
                Err((from, interrupted)) => {
                    let error = &interrupted as &dyn std::error::Error;
                    tracing::warn!(kind = self.kind, error, "a watch failed, and begins again");
                    metrics.watch_restarted(self.kind, "failed");
                    version = from;
                }
            }
            if begun.elapsed() >= WORTH_WHILE {
                pause = PAUSE.0;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Everything there is, page by page.
    async fn list(&self) -> Result<(String, bool), (Option<String>, Interrupted)> {
        let failed = |interrupted| (None, interrupted);
        self.send(Event::Init).await.map_err(failed)?;
        let mut params = ListParams::default();
        params.label_selector.clone_from(&self.label);
        let mut pages = Pages::of(params, PAGE);
        while let Some(params) = pages.wanted() {
            let what = format!("cannot list {}", self.kind);
            let page = within(READ_TIMEOUT, what, self.api.list_metadata(&params)).await;
            let objects = pages.take(page);
            let objects = objects.map_err(|error| failed(interrupted(error)))?;
            self.pulse.beat();
            for object in objects {
                self.send(Event::InitApply(trimmed(object)))
                    .await
                    .map_err(failed)?;
            }
        }
        self.send(Event::InitDone).await.map_err(failed)?;
        Ok((pages.version().unwrap_or_default(), true))
    }

    /// What changes from a version on, until the API server ends the watch; then where it was.
    async fn watch(&self, from: String) -> Result<(String, bool), (Option<String>, Interrupted)> {
        let mut at = from;
        let outcome = self.watch_from(&mut at).await;
        match outcome {
            Ok(()) => Ok((at, false)),
            Err(Interrupted::Expired) => Err((None, Interrupted::Expired)),
            Err(interrupted) => Err((Some(at), interrupted)),
        }
    }

    async fn watch_from(&self, at: &mut String) -> Result<(), Interrupted> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector.clone_from(&self.label);
        let what = format!("cannot watch {}", self.kind);
        let from = at.clone();
        let begin = self.api.watch_metadata(&params, &from);
        let events = within(READ_TIMEOUT, what.clone(), begin)
            .await
            .map_err(interrupted)?;
        let mut events = std::pin::pin!(events);
        self.pulse.beat();
        let hangs_at = Instant::now() + HANGS_AFTER;
        loop {
            let Ok(event) = tokio::time::timeout_at(hangs_at, events.next()).await else {
                return Err(Interrupted::Hangs);
            };
            let event = match event {
                None => return Ok(()),
                Some(Ok(event)) => event,
                Some(Err(source)) => {
                    let what = what.clone();
                    return Err(interrupted(ApiError::Failed { what, source }));
                }
            };
            self.pulse.beat();
            let (object, is_gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    *at = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) if status.code == 410 => return Err(Interrupted::Expired),
                WatchEvent::Error(status) => return Err(Interrupted::Refused(status.message)),
            };
            if let Some(version) = &object.metadata.resource_version {
                at.clone_from(version);
            }
            let object = trimmed(object);
            let event = if is_gone {
                Event::Delete(object)
            } else {
                Event::Apply(object)
            };
            self.send(event).await?;
        }
    }

    async fn send(&self, event: Event<Seen<K>>) -> Result<(), Interrupted> {
        self.events
            .send(event)
            .await
            .map_err(|_| Interrupted::NobodyListens)
    }
}

fn interrupted(error: ApiError) -> Interrupted {
    if error.code() == Some(410) {
        Interrupted::Expired
    } else {
        Interrupted::Failed(error)
    }
}

/// Annotations and managed fields are most of what metadata weighs.
fn trimmed<K>(mut object: Seen<K>) -> Seen<K> {
    object.metadata.annotations = None;
    object.metadata.managed_fields = None;
    object
}

#[cfg(test)]
mod tests;
