//! What is open ends when its token is revoked or expires, and nothing else does.

use std::io::Write as _;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use servicechain_keys::{Generation, NumericDate, Revocation, RevocationKind, ShortDigest};

use crate::client::{Client, PATIENCE};
use crate::harness::{Gateway, Setting};
use crate::streaming::await_metric;
use crate::upstream::Upstream;

/// Longer than a token lives, clock skew included.
const LIFETIME: Duration = Duration::from_mins(16);
const CUT: &str = "servicechain_gateway_requests_cut_total{hop=\"gateway\",route=\"r0\"}";

/// An upstream whose answers begin with `begins`, and end once the test says so.
fn slow_upstream(begins: &'static str) -> (Upstream, mpsc::Sender<()>) {
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let upstream = Upstream::conversing(true, move |conversation| {
        conversation.stream.write_all(begins.as_bytes()).unwrap();
        waits.lock().unwrap().recv_timeout(PATIENCE).is_ok()
            && conversation.stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok()
    });
    (upstream, go_on)
}

fn gateway(upstream: &Upstream) -> Gateway {
    Setting::new()
        .route("/", &upstream.url(), "authentication: Optional, timeout: 0s")
        .start()
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

impl Gateway {
    /// A request of this subject, on a connection of its own.
    fn asked_by(&self, subject: &str) -> Client {
        let mut claims = self.chain.claims();
        claims.insert("sub".to_owned(), subject.into());
        let token = self.chain.token_with(&claims);
        let mut client = self.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        client
    }

    /// A bundle that revokes every token of a subject so far, as it would be pushed. Returns when it was taken.
    fn revoke(&self, subject: &str, generation: u64) {
        let mut bundle = self.chain.bundle();
        bundle.generation = Generation::new(generation);
        bundle.revocations = vec![Revocation {
            issuer: bundle.issuers[0].name.clone(),
            kind: RevocationKind::Sub,
            digest: ShortDigest::of(subject),
            issued_before: NumericDate::from_seconds(self.chain.now().as_seconds()),
            expires: None,
        }];
        let bytes = self.chain.sign(&bundle).bytes().to_vec();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(self.verifier.deliver(bytes));
    }
}

#[test]
fn a_streamed_answer_ends_when_its_token_is_revoked_and_others_go_on() {
    let (upstream, go_on) = slow_upstream(STREAM);
    let gateway = gateway(&upstream);
    let mut mallory = gateway.asked_by("mallory");
    assert!(mallory.head().contains("200 OK"));
    assert_eq!(mallory.chunk().unwrap(), b"first");
    gateway.revoke("mallory", 2);
    assert_eq!(
        mallory.chunk(),
        None,
        "broken off, and not ended as if it were whole"
    );
    await_metric(&gateway, &format!("{CUT} 1\n"));

    // What the upstream waited with for mallory goes nowhere.
    go_on.send(()).unwrap();
    let mut alice = gateway.asked_by("alice");
    assert!(alice.head().contains("200 OK"));
    assert_eq!(alice.chunk().unwrap(), b"first");
    gateway.revoke("bob", 3);
    go_on.send(()).unwrap();
    assert_eq!(alice.chunk().unwrap(), b"last");
    assert_eq!(alice.chunk().unwrap(), b"");
    await_metric(&gateway, &format!("{CUT} 1\n"));
}

#[test]
fn a_request_that_waits_for_its_answer_ends_when_its_token_is_revoked() {
    let (upstream, go_on) = slow_upstream("");
    let gateway = gateway(&upstream);
    let mut mallory = gateway.asked_by("mallory");
    upstream.await_requests(1);
    gateway.revoke("mallory", 2);
    assert!(mallory.is_closed());
    drop(go_on);
}

#[test]
fn a_stream_ends_with_its_token_and_one_without_a_token_goes_on() {
    let (upstream, go_on) = slow_upstream(STREAM);
    let gateway = gateway(&upstream);
    let mut anonymous = gateway.connect();
    anonymous.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(anonymous.head().contains("200 OK"));
    assert_eq!(anonymous.chunk().unwrap(), b"first");
    let mut alice = gateway.asked_by("alice");
    assert!(alice.head().contains("200 OK"));
    assert_eq!(alice.chunk().unwrap(), b"first");
    gateway.chain.advance(LIFETIME);
    assert_eq!(alice.chunk(), None);
    await_metric(&gateway, &format!("{CUT} 1\n"));
    // Both wait at the same place; the first to be told may be the one that nobody reads any more.
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(anonymous.chunk().unwrap(), b"last");
}

#[test]
fn an_answer_that_ends_with_its_connection_does_not_look_whole_when_it_is_cut() {
    let (upstream, go_on) = slow_upstream("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst");
    let gateway = gateway(&upstream);
    let token = gateway.chain.token();
    let mut client = gateway.connect();
    client.send(format!(
        "GET / HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    assert!(client.head().contains("200 OK"));
    gateway.revoke("alice", 2);
    assert!(client.was_reset());
    drop(go_on);
}
