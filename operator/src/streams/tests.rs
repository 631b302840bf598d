//! Watches of a simulated API server, in simulated time.

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

use tower::Layer as _;

use super::*;
use crate::api_client::{BoundedAnswers, MAX_PAGE};

enum Answer {
    Refuse(u16),
    /// A page larger than any that is read.
    Flood,
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
            client: Client::new(BoundedAnswers.layer(service), "default"),
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
            Some(Answer::Flood) => (200, whole(&json!("x".repeat(MAX_PAGE)))),
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
async fn a_page_that_somebody_made_too_large_is_read_in_parts() {
    let health = Health::default();
    let answers = vec![Answer::Flood, Answer::Flood, Answer::List(vec!["one"], "10")];
    let (server, stream) = Server::follow(answers, &health);
    let mut stream = std::pin::pin!(stream);
    for expected in ["Init", "InitApply(one)", "InitDone"] {
        assert_eq!(next(&mut stream).await, expected);
    }
    let asked = server.asked();
    for (asked, limit) in asked.iter().zip(["limit=500", "limit=125", "limit=31"]) {
        assert!(asked.split('&').any(|part| part == limit), "{asked}");
    }
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
