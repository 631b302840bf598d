//! A gateway that ends gracefully fails nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::client::Client;
use crate::harness::{DRAIN_DELAY, Gateway};
use crate::upstream::{OK, Upstream};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_draining_gateway_still_accepts_and_ends_each_connection_with_its_answer() {
    let upstream = Upstream::start();
    let gateway = Gateway::open_before(&upstream);
    let mut old = gateway.connect();
    assert_eq!(old.ask(REQUEST).header("connection"), None);
    gateway.drain();
    let ready =
        Client::connect(gateway.admin).ask("GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(ready.status, 503);
    for client in [&mut old, &mut gateway.connect()] {
        let answer = client.ask(REQUEST);
        assert_eq!(
            (answer.status, answer.header("connection").as_deref()),
            (200, Some("close"))
        );
        assert!(client.is_closed());
    }
    gateway.end().unwrap();
}

#[test]
fn what_is_in_flight_when_a_gateway_closes_is_finished() {
    let upstream = Upstream::conversing(true, |conversation| {
        std::thread::sleep(DRAIN_DELAY * 3);
        std::io::Write::write_all(conversation.stream, OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let (mut busy, mut idle) = (gateway.connect(), gateway.connect());
    busy.send(REQUEST);
    upstream.await_requests(1);
    gateway.drain();
    assert!(idle.is_closed(), "who has nothing in flight is let go");
    let answer = busy.answer();
    assert_eq!(
        (answer.status, answer.header("connection").as_deref()),
        (200, Some("close"))
    );
    gateway.end().unwrap();
}

#[test]
fn nobody_fails_while_a_gateway_is_drained_under_load() {
    let upstream = Upstream::start();
    let (leaving, staying) = (Gateway::open_before(&upstream), Gateway::open_before(&upstream));
    let drained = Arc::new(AtomicBool::new(false));
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // Each client keeps its connection until it is told to close, and then asks whoever the load balancer (the
    // flag) still has. It never repeats a request.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (drained, done, answered) = (Arc::clone(&drained), Arc::clone(&done), Arc::clone(&answered));
            let (first, second) = (leaving.address, staying.address);
            std::thread::spawn(move || {
                let pick = || {
                    Client::connect(if drained.load(Ordering::SeqCst) {
                        second
                    } else {
                        first
                    })
                };
                let mut client = pick();
                while !done.load(Ordering::SeqCst) {
                    let answer = client.ask(REQUEST);
                    assert_eq!((answer.status, &*answer.body), (200, b"ok".as_slice()));
                    answered.fetch_add(1, Ordering::SeqCst);
                    if answer.header("connection").as_deref() == Some("close") {
                        client = pick();
                    }
                }
            })
        })
        .collect();
    let await_answers = |more: usize| {
        let enough = answered.load(Ordering::SeqCst) + more;
        let begun = std::time::Instant::now();
        while answered.load(Ordering::SeqCst) < enough {
            assert!(begun.elapsed() < crate::client::PATIENCE);
            std::thread::yield_now();
        }
    };
    await_answers(500);
    leaving.drain();
    await_answers(100);
    drained.store(true, Ordering::SeqCst);
    leaving.end().unwrap();
    await_answers(500);
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
}
