//! A layer around the client of the API server in which each write goes wrong once, in one way.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The write is not done.
    Before,
    /// The write is done, and its answer is lost.
    After,
    /// Somebody else is said to have written.
    Conflict,
    /// The write is done, and nothing follows.
    Crash,
}

/// Cheap to clone: all clones count together.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    fault: Option<Fault>,
    hit: Arc<Mutex<BTreeSet<String>>>,
    crash: Arc<Notify>,
}

impl Faults {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            hit: Arc::default(),
            crash: Arc::default(),
        }
    }

    /// Every write that went wrong.
    pub(super) fn hit(&self) -> BTreeSet<String> {
        self.hit.lock().unwrap().clone()
    }

    /// Returns when an operator crashed.
    pub(super) async fn crashed(&self) {
        self.crash.notified().await;
    }

    /// What goes wrong now, if it has not yet.
    fn next(&self, request: &Request<Body>, body: &[u8]) -> Option<Fault> {
        let fault = self.fault?;
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let (method, path) = (request.method(), request.uri().path());
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        // What is created stands in the body; an Event has a new name each time.
        let name = sent["metadata"]["name"]
            .as_str()
            .filter(|_| !path.ends_with("/events"));
        let write = format!("{method} {path} {}", name.unwrap_or_default());
        self.hit.lock().unwrap().insert(write).then_some(fault)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            faults: self.clone(),
            inner,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Faulty<S> {
    faults: Faults,
    inner: S,
}

type Answer<B> = Response<Either<B, Full<bytes::Bytes>>>;

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Answer<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (request, body) = with_its_bytes(request);
        let fault = self.faults.next(&request, &body);
        match fault {
            Some(Fault::Before) => return Box::pin(async { Err("the write was not sent".into()) }),
            Some(Fault::Conflict) => return Box::pin(async { Ok(conflict()) }),
            _ => {}
        }
        let crash = Arc::clone(&self.faults.crash);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            match fault {
                Some(Fault::After) => Err("the answer was lost".into()),
                Some(Fault::Crash) => {
                    crash.notify_one();
                    std::future::pending().await
                }
                _ => Ok(answer.map(Either::Left)),
            }
        })
    }
}

/// The client's bodies are whole from the start.
fn with_its_bytes(request: Request<Body>) -> (Request<Body>, Vec<u8>) {
    let (head, body) = request.into_parts();
    let mut collected = pin!(body.collect());
    let Poll::Ready(Ok(body)) = collected.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a body that comes in pieces");
    };
    let body = body.to_bytes().to_vec();
    (Request::from_parts(head, Body::from(body.clone())), body)
}

fn conflict<B>() -> Answer<B> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "the object has been modified; please apply your changes to the latest version and try again",
    });
    let mut response = Response::new(Either::Right(Full::from(status.to_string())));
    *response.status_mut() = StatusCode::CONFLICT;
    response
}
