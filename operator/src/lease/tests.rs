//! Candidates on a simulated API server, in simulated time.

use std::collections::VecDeque;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::*;

/// An API server with one lease in it, which it may be told to lose answers.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    lease: Option<serde_json::Value>,
    version: u64,
    failures: VecDeque<Failure>,
    is_down: bool,
}

enum Failure {
    AnswerLost,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request| {
                let server = server.clone();
                async move { server.answer(request).await }
            }),
            "system",
        )
    }

    fn candidate(&self, pod: &str, port: u16) -> Candidate {
        let address = SocketAddr::from(([10, 0, 0, 7], port));
        Candidate::new(
            self.client(),
            "system",
            "servicechain-operator",
            pod,
            address,
            Arc::new(|| std::time::SystemTime::UNIX_EPOCH),
        )
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        let method = request.method().clone();
        let sent = request
            .into_body()
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        let mut stored = self.0.lock().unwrap();
        if stored.is_down {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let sent = || serde_json::from_slice::<serde_json::Value>(&sent).unwrap();
        let refused = |code, reason| {
            (
                code,
                serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
            )
        };
        let (code, body) = match (method, stored.lease.clone()) {
            (Method::GET, None) => refused(404, "NotFound"),
            (Method::GET, Some(lease)) => (200, lease),
            (Method::POST, Some(_)) => refused(409, "AlreadyExists"),
            (Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"] != sent()["metadata"]["resourceVersion"] =>
            {
                refused(409, "Conflict")
            }
            _ => {
                let mut lease = sent();
                stored.version += 1;
                lease["metadata"]["resourceVersion"] = stored.version.to_string().into();
                stored.lease = Some(lease.clone());
                if stored.failures.pop_front().is_some() {
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                (200, lease)
            }
        };
        Ok(Response::builder()
            .status(code)
            .body(Body::from(body.to_string().into_bytes()))
            .unwrap())
    }

    fn holder(&self) -> Option<String> {
        let stored = self.0.lock().unwrap();
        stored.lease.as_ref()?["spec"]["holderIdentity"]
            .as_str()
            .map(str::to_owned)
    }

    fn set_down(&self, is_down: bool) {
        self.0.lock().unwrap().is_down = is_down;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_candidate_waits_as_long_as_the_first_renews_and_knows_its_address() {
    let server = Server::default();
    let (mut first, mut second) = (server.candidate("one", 1), server.candidate("two", 2));
    first.acquire().await;
    let (knows, waits) = (second.state(), async {
        tokio::time::timeout(Duration::from_mins(2), second.acquire()).await
    });
    tokio::select! {
        waited = waits => assert!(waited.is_err(), "two leaders"),
        lost = first.keep() => panic!("{lost}"),
    }
    assert_eq!(knows.leader_address().as_deref(), Some("10.0.0.7:1"));
    assert!(first.state().is_surely_held() && !knows.is_surely_held());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_sleeps_is_replaced_after_it_has_stopped_being_sure_and_finds_that_out() {
    let server = Server::default();
    let (mut first, mut second) = (server.candidate("one", 1), server.candidate("two", 2));
    first.acquire().await;
    let slept = Instant::now();
    let sure = first.state();
    let watcher = tokio::spawn(async move {
        while sure.is_surely_held() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Instant::now()
    });
    second.acquire().await;
    let until = watcher.await.unwrap();
    assert!(slept.elapsed() >= DURATION, "{:?}", slept.elapsed());
    assert!(until < slept + DURATION, "{:?}", until - slept);
    assert!(matches!(first.keep().await, LeaseLost::NotRenewed));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_has_lost_the_lease_before_another_may_take_it() {
    let server = Server::default();
    let mut first = server.candidate("one", 1);
    first.acquire().await;
    server.set_down(true);
    let begun = Instant::now();
    assert!(matches!(first.keep().await, LeaseLost::NotRenewed));
    assert!(begun.elapsed() < DURATION, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_is_lost_at_once() {
    let server = Server::default();
    let (mut first, mut second) = (server.candidate("one", 1), server.candidate("two", 2));
    first.acquire().await;
    // As if an administrator had cleared it.
    server.0.lock().unwrap().lease.as_mut().unwrap()["spec"]["holderIdentity"] = serde_json::Value::Null;
    second.acquire().await;
    assert!(matches!(first.keep().await, LeaseLost::Taken(holder) if holder == "two_10.0.0.7:2"));
    assert!(!first.state().is_surely_held());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_costs_one_more_attempt() {
    let server = Server::default();
    server.0.lock().unwrap().failures.push_back(Failure::AnswerLost);
    let mut first = server.candidate("one", 1);
    first.acquire().await;
    assert!(first.state().is_surely_held());
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_free_at_once() {
    let server = Server::default();
    let (mut first, mut second) = (server.candidate("one", 1), server.candidate("two", 2));
    first.acquire().await;
    let begun = Instant::now();
    first.release().await;
    assert_eq!(server.holder(), None);
    second.acquire().await;
    assert!(begun.elapsed() <= RETRY, "{:?}", begun.elapsed());
    assert_eq!(server.holder().as_deref(), Some("two_10.0.0.7:2"));
}
