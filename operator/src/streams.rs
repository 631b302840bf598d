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

use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::health::{Health, Pulse};
use crate::metrics::Metrics;

/// The API server ends a watch after this. Balancers between us and it cut idle connections at 240 s and later, often
/// without telling.
const WATCH_SECONDS: u32 = 180;
/// A watch that the API server should have ended by now hangs.
const HANGS_AFTER: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);
/// Neither a change nor a bookmark nor an orderly end for so long: the process is of no use and begins anew.
const STUCK_AFTER: Duration = Duration::from_secs(300);
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
        let task = AbortOnDrop(task);
        futures_util::stream::poll_fn(move |context| {
            let _ = &task;
            received.poll_recv(context)
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector.clone_from(&self.label);
        loop {
            let what = format!("cannot list {}", self.kind);
            let page = within(READ_TIMEOUT, what, self.api.list_metadata(&params)).await;
            let page = page.map_err(|error| failed(interrupted(error)))?;
            self.pulse.beat();
            for object in page.items {
                self.send(Event::InitApply(trimmed(object)))
                    .await
                    .map_err(failed)?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.send(Event::InitDone).await.map_err(failed)?;
                    return Ok((page.metadata.resource_version.unwrap_or_default(), true));
                }
            }
        }
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
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::Frame;
    use k8s_openapi::api::core::v1::Pod;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    enum Answer {
        Refuse(u16),
        List(Vec<&'static str>, &'static str),
        /// Sends these, then ends or hangs.
        Watch(Vec<Value>, bool),
    }

    type Answered = UnsyncBoxBody<Bytes, std::io::Error>;

    /// What was asked for, and what is answered in turn. After the last one requests hang.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<(Vec<String>, VecDeque<Answer>)>>);

    impl Server {
        fn follow(answers: Vec<Answer>, health: &Health) -> (Self, impl Stream<Item = Event<Seen<Pod>>>) {
            let server = Self(Arc::new(Mutex::new((Vec::new(), answers.into()))));
            let answering = server.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = answering.clone();
                let query = request.uri().query().unwrap_or_default().to_owned();
                async move { server.answer(query).await }
            });
            let watches = Watches {
                client: Client::new(service, "default"),
                namespace: Some("shop".to_owned()),
                health: health.clone(),
                metrics: Metrics::default(),
            };
            (server, watches.follow::<Pod>("Pods", Some("chain")))
        }

        async fn answer(&self, query: String) -> Result<Response<Answered>, std::io::Error> {
            let answer = {
                let mut state = self.0.lock().unwrap();
                state.0.push(query);
                state.1.pop_front()
            };
            let (code, body) = match answer {
                None => std::future::pending().await,
                Some(Answer::Refuse(code)) => {
                    let body = json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "x"});
                    (code, whole(&body))
                }
                Some(Answer::List(names, version)) => {
                    let items = names.into_iter().map(|name| object(name, "1")["object"].clone());
                    let body = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version}, "items": items.collect::<Vec<_>>()});
                    (200, whole(&body))
                }
                Some(Answer::Watch(events, hangs)) => {
                    let lines = events
                        .into_iter()
                        .map(|event| Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("{event}\n")))));
                    let lines = futures_util::stream::iter(lines);
                    let body = if hangs {
                        StreamBody::new(lines.chain(futures_util::stream::pending()).boxed())
                    } else {
                        StreamBody::new(lines.boxed())
                    };
                    (200, body.boxed_unsync())
                }
            };
            Ok(Response::builder().status(code).body(body).unwrap())
        }

        fn asked(&self) -> Vec<String> {
            self.0.lock().unwrap().0.clone()
        }
    }

    fn whole(body: &Value) -> Answered {
        Full::from(body.to_string())
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    fn object(name: &str, version: &str) -> Value {
        json!({"type": "ADDED", "object": {
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name, "resourceVersion": version, "annotations": {"long": "story"}},
        }})
    }

    fn bookmark(version: &str) -> Value {
        json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": version}}})
    }

    async fn next(stream: &mut (impl Stream<Item = Event<Seen<Pod>>> + Unpin)) -> String {
        let event = tokio::time::timeout(Duration::from_mins(30), stream.next()).await;
        let event = event.expect("an event").expect("no end");
        if let Event::Apply(object) | Event::InitApply(object) = &event {
            assert_eq!(object.metadata.annotations, None, "what is seen is trimmed");
        }
        event.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_goes_on_where_it_was_when_it_ends_or_fails_and_lists_again_when_it_is_too_old() {
        let health = Health::default();
        let answers = vec![
            Answer::Refuse(503),
            Answer::List(vec!["old"], "10"),
            Answer::Watch(vec![object("new", "11"), bookmark("15")], false),
            Answer::Refuse(500),
            Answer::Watch(vec![object("newer", "16")], false),
            Answer::Refuse(410),
            Answer::List(vec![], "20"),
        ];
        let (server, stream) = Server::follow(answers, &health);
        let mut stream = std::pin::pin!(stream);
        let mut seen = Vec::new();
        while seen.iter().filter(|event| *event == "InitDone").count() < 2 {
            seen.push(next(&mut stream).await);
        }
        assert_eq!(
            seen,
            [
                "Init",
                "Init",
                "InitApply(old)",
                "InitDone",
                "Apply(new)",
                "Apply(newer)",
                "Init",
                "InitDone"
            ]
        );
        let asked = server.asked();
        let from = |index: usize| {
            asked[index]
                .split('&')
                .find(|part| part.starts_with("resourceVersion="))
                .map(str::to_owned)
        };
        assert_eq!(from(2).as_deref(), Some("resourceVersion=10"));
        assert_eq!(from(3).as_deref(), Some("resourceVersion=15"));
        assert_eq!(from(4).as_deref(), Some("resourceVersion=15"));
        assert_eq!(from(5).as_deref(), Some("resourceVersion=16"));
        assert!(
            asked[2].contains("timeoutSeconds=180") && asked[2].contains("labelSelector=chain"),
            "{}",
            asked[2]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_hangs_is_begun_again_and_one_that_never_gets_on_is_stuck() {
        let health = Health::default();
        let answers = vec![
            Answer::List(vec![], "10"),
            Answer::Watch(vec![], true),
            Answer::Watch(vec![object("late", "11")], true),
        ];
        let (_server, stream) = Server::follow(answers, &health);
        let mut stream = std::pin::pin!(stream);
        while next(&mut stream).await != "Apply(late)" {}
        assert!(health.stuck().is_empty());
        // From now on no request is answered.
        tokio::time::sleep(HANGS_AFTER + STUCK_AFTER).await;
        assert!(
            health.stuck()[0].starts_with("the watch of Pods made no progress"),
            "{:?}",
            health.stuck()
        );
        drop(stream);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_refused_is_asked_for_ever_more_seldom() {
        let health = Health::default();
        let answers = (0..1000).map(|_| Answer::Refuse(403)).collect();
        let (server, stream) = Server::follow(answers, &health);
        let mut stream = std::pin::pin!(stream);
        let _ = tokio::time::timeout(Duration::from_mins(10), async {
            while stream.next().await.is_some() {}
        })
        .await;
        let asked = server.asked().len();
        assert!((20..60).contains(&asked), "{asked}");
    }
}
