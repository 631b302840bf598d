//! What the gateway answers by itself: each status, whose fault it is and which hop it names.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::client::Answer;
use crate::harness::{Gateway, Setting};
use crate::upstream::{OK, Upstream};

fn assert_problem(answer: &Answer, status: u16, fault: &str, hop: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(
        (problem["fault"].as_str(), problem["hop"].as_str()),
        (Some(fault), Some(hop)),
        "{problem}"
    );
    assert_eq!(problem["status"], status);
}

#[test]
fn a_path_without_a_route_is_404() {
    let upstream = Upstream::start();
    let gateway = Setting::new()
        .route("/items", &upstream.url(), "authentication: None")
        .start();
    assert_problem(
        &gateway.ask("GET /itemsx HTTP/1.1\r\nHost: a\r\n\r\n"),
        404,
        "Client",
        "gateway",
    );
    assert_eq!(
        gateway.ask("GET /items/x HTTP/1.1\r\nHost: a\r\n\r\n").status,
        200
    );
}

#[test]
fn a_body_above_the_limit_is_413_with_and_without_a_length() {
    let upstream = Upstream::start();
    let setting = Setting::new().route("/", &upstream.url(), "authentication: None");
    let gateway = setting.limits("requestBytes: 1000").start();
    let exact = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}",
        "x".repeat(1000)
    );
    assert_eq!(gateway.ask(exact).status, 200);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    assert_problem(&client.answer(), 413, "Client", "gateway");
    client.try_send("x".repeat(1001));
    assert!(client.is_closed(), "what is left of the body is no request");
    assert_eq!(upstream.received().len(), 1);

    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        client.send(format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    assert_problem(&client.answer(), 413, "Client", "gateway");
    assert_eq!(
        upstream.received().len(),
        1,
        "the upstream never saw the end of it"
    );
}

#[test]
fn a_head_above_the_limit_is_431_and_a_slow_one_408() {
    let upstream = Upstream::start();
    let setting = Setting::new().route("/", &upstream.url(), "authentication: None");
    let gateway = setting.limits("headerBytes: 4096, headerTimeout: 300ms").start();
    let large = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(gateway.ask(large(3900)).status, 200);
    assert_eq!(gateway.ask(large(4096)).status, 431);
    let many = "X: y\r\n".repeat(200);
    assert_eq!(
        gateway
            .ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"))
            .status,
        431
    );

    let begun = Instant::now();
    let mut slow = gateway.connect();
    slow.send("GET / HTTP/1.1\r\nHost:");
    assert_problem(&slow.answer(), 408, "Client", "gateway");
    assert!(slow.is_closed());
    let mut silent = gateway.connect();
    assert!(
        silent.is_closed(),
        "who connects and says nothing is let go without a word"
    );
    assert!(begun.elapsed() >= Duration::from_millis(600));

    // The limit is for heads: a second request may come later than that.
    let mut client = gateway.connect();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.answer().status, 408);
}

#[test]
fn a_client_that_stops_in_its_body_is_408_and_one_that_leaves_ends_the_upload() {
    let upstream = Upstream::start();
    let gateway = Setting::new()
        .route("/", &upstream.url(), "authentication: None, timeout: 300ms")
        .start();
    let mut slow = gateway.connect();
    slow.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_problem(&slow.answer(), 408, "Client", "gateway");
    let mut leaves = gateway.connect();
    leaves.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    drop(leaves);
    assert!(upstream.received().is_empty(), "half a body is no request");
}

#[test]
fn an_upstream_that_does_not_listen_is_503_and_can_be_tried_again() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setting::new()
        .route("/", &format!("http://{closed}"), "authentication: None")
        .start();
    for method in ["GET", "POST"] {
        let answer = gateway.ask(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_problem(&answer, 503, "Upstream", "a");
        assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    }
}

#[test]
fn an_upstream_that_answers_nonsense_is_502() {
    for nonsense in [
        "what?\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let upstream = Upstream::answering(move |_| nonsense.to_owned());
        let gateway = Gateway::open_before(&upstream);
        assert_problem(
            &gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            502,
            "Upstream",
            "a",
        );
        assert_eq!(
            upstream.received().len(),
            1,
            "an answer came, so nothing is repeated"
        );
    }
}

#[test]
fn an_upstream_that_is_too_slow_is_504_at_the_deadline() {
    let upstream = Upstream::conversing(true, |conversation| {
        let seen = conversation.received.header("servicechain-remaining-ms").unwrap();
        assert!(seen.parse::<u64>().unwrap() <= 300, "{seen}");
        // Held open without an answer; the gateway hangs up.
        std::io::Read::read(conversation.stream, &mut [0]).is_ok_and(|count| count > 0)
    });
    let gateway = Setting::new()
        .route("/", &upstream.url(), "authentication: None, timeout: 300ms")
        .start();
    let begun = Instant::now();
    assert_problem(
        &gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        504,
        "Upstream",
        "a",
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        upstream.received().len(),
        1,
        "a slow answer is not asked for twice"
    );
}

#[test]
fn what_is_valid_but_not_served_is_501_and_an_odd_expectation_417() {
    let upstream = Upstream::start();
    let gateway = Gateway::open_before(&upstream);
    for (request, status) in [
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            501,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
    ] {
        assert_problem(&gateway.ask(request), status, "Client", "gateway");
    }
    assert!(upstream.received().is_empty());
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n";
    assert_eq!(gateway.ask(h2c).status, 200, "an offer may be ignored");
}

#[test]
fn a_body_is_asked_for_when_the_client_waits_to_be_asked() {
    let upstream = Upstream::conversing(true, |conversation| {
        assert_eq!(conversation.received.header("expect"), None);
        conversation.stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100"));
    assert_eq!(client.ask("abc").status, 200);
    assert_eq!(upstream.only().body, b"abc");
}
