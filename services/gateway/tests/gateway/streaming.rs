//! Bodies pass as they come: the first bytes arrive before the last are sent, and a broken body never looks whole.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::PATIENCE;
use crate::harness::{Gateway, Setting};
use crate::upstream::{OK, Upstream};

#[test]
fn an_answer_passes_while_it_is_still_being_written() {
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let upstream = Upstream::conversing(true, move |conversation| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        conversation.stream.write_all(head.as_bytes()).unwrap();
        waits.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        conversation.stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().contains("transfer-encoding: chunked"));
    assert_eq!(client.chunk().unwrap(), b"first");
    go_on.send(()).unwrap();
    assert_eq!(client.chunk().unwrap(), b"last");
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn a_request_passes_while_it_is_still_being_written() {
    let (saw_first, seen) = mpsc::channel::<()>();
    let saw_first = std::sync::Mutex::new(saw_first);
    let upstream = Upstream::conversing(false, move |conversation| {
        let mut body = Vec::new();
        let mut read_until = |end: &[u8]| {
            while !body.ends_with(end) {
                let mut byte = [0];
                conversation.stream.read_exact(&mut byte).unwrap();
                body.push(byte[0]);
            }
        };
        read_until(b"first\r\n");
        saw_first.lock().unwrap().send(()).unwrap();
        read_until(b"0\r\n\r\n");
        conversation.stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    seen.recv_timeout(PATIENCE)
        .expect("the first bytes arrive before the last are sent");
    assert_eq!(client.ask("4\r\nlast\r\n0\r\n\r\n").status, 200);
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    let size = 3_000_000;
    let upstream = Upstream::conversing(true, move |conversation| {
        let body = &conversation.received.body;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        conversation
            .stream
            .write_all(&[head.as_bytes(), body].concat())
            .is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let body: Vec<u8> = (0..size).map(|index: u32| index.to_le_bytes()[1]).collect();
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    let answer = gateway.ask([head.as_bytes(), &body].concat());
    assert!(answer.is_whole && answer.body == body);
}

#[test]
fn an_upstream_that_breaks_off_in_its_answer_breaks_the_clients_answer() {
    for framing in [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "Content-Length: 100\r\n\r\nfirst",
    ] {
        let upstream = Upstream::conversing(true, move |conversation| {
            conversation
                .stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes())
                .unwrap();
            false
        });
        let gateway = Gateway::open_before(&upstream);
        let mut client = gateway.connect();
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer.status, 200);
        assert!(!answer.is_whole, "{answer:?}");
        assert!(client.is_closed());
        await_metric(
            &gateway,
            "servicechain_gateway_answers_aborted_total{hop=\"gateway\",route=\"r0\"} 1\n",
        );
    }
}

#[test]
fn an_answer_that_does_not_end_is_cut_at_the_deadline() {
    let upstream = Upstream::conversing(true, |conversation| {
        conversation
            .stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
            .unwrap();
        conversation.stream.read(&mut [0]).is_ok_and(|count| count > 0)
    });
    let gateway = Setting::new()
        .route("/", &upstream.url(), "authentication: None, timeout: 300ms")
        .start();
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (answer.status, answer.is_whole, &*answer.body),
        (200, false, b"first".as_slice())
    );
}

#[test]
fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let upstream = Upstream::conversing(false, |conversation| {
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        conversation.stream.write_all(refusal.as_bytes()).unwrap();
        conversation
            .stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        // What still comes is read, so that closing does not reset the connection under the answer.
        while conversation
            .stream
            .read(&mut [0; 4096])
            .is_ok_and(|count| count > 0)
        {}
        false
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, &*answer.body), (403, b"no".as_slice()));
}

/// An exchange is counted when the gateway drops it, which may be a moment after the client saw its end.
pub(crate) fn await_metric(gateway: &Gateway, line: &str) {
    let begun = std::time::Instant::now();
    loop {
        let text = gateway.metrics();
        if text.contains(line) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{line} is missing in\n{text}");
    }
}
