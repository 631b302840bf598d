//! What an upstream is sent, and what a client gets back.

use crate::client::Client;
use crate::harness::{Gateway, Setting};
use crate::upstream::{OK, Upstream};

#[test]
fn what_only_the_chain_may_set_is_replaced_and_the_rest_passes() {
    let upstream = Upstream::start();
    let gateway = Gateway::before(&upstream);
    let lines = "X-User: admin\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
        servicechain-remaining-ms: 999999\r\nservicechain_gen: 1\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
        TE: trailers\r\nProxy-Authorization: Basic x\r\nX-Custom: kept\r\nCookie: a=1\r\nAccept: text/plain\r\n\
        Via: 1.1 before\r\nX-Request-Id: r-1\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";
    let answer = gateway.get("/items/1?q=a%20b", lines);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id").as_deref(), Some("r-1"));
    let sent = upstream.only();
    assert_eq!(sent.line(), "GET /items/1?q=a%20b HTTP/1.1");
    for (name, value) in [
        ("host", "shop.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=127.0.0.1;proto=http"),
        ("x-custom", "kept"),
        ("cookie", "a=1"),
        ("accept", "text/plain"),
        ("x-request-id", "r-1"),
    ] {
        assert_eq!(sent.header(name).as_deref(), Some(value), "{name}");
    }
    for name in [
        "x-user",
        "x_forwarded_for",
        "servicechain_gen",
        "connection",
        "x-mine",
        "te",
        "proxy-authorization",
    ] {
        assert_eq!(sent.header(name), None, "{name}");
    }
    let vias: Vec<_> = sent
        .head
        .lines()
        .filter(|line| line.starts_with("via: "))
        .collect();
    assert_eq!(vias, ["via: 1.1 before", "via: 1.1 gateway"]);
    let remaining: u64 = sent.header("servicechain-remaining-ms").unwrap().parse().unwrap();
    assert!((4000..=5000).contains(&remaining), "{remaining}");
    let trace = sent.header("traceparent").unwrap();
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !trace.contains("b7ad6b7169203331"),
        "{trace}"
    );
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to() {
    let upstream = Upstream::start();
    let setting = Setting::new().route("/", &upstream.url(), "authentication: None");
    let gateway = setting.line("trustedProxies: [127.0.0.0/8]").start();
    gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-User: x\r\n\r\n");
    let sent = upstream.only();
    assert_eq!(
        sent.header("x-forwarded-for").as_deref(),
        Some("9.9.9.9, 127.0.0.1")
    );
    assert_eq!(sent.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(sent.header("x-user"), None, "an identity is believed from nobody");
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let (open, closed) = (Upstream::start(), Upstream::start());
    let gateway = Setting::new()
        .route("/", &open.url(), "authentication: None")
        .route("/admin", &closed.url(), "")
        .start();
    for path in [
        "/admin",
        "//admin",
        "/%61dmin/x",
        "/x/../admin",
        "/./admin",
        "/x/%2e%2e/admin",
        "/admin//",
    ] {
        let answer = gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, 401, "{path}");
    }
    gateway.get("//admin/./%7Eme?x=//..", "");
    assert_eq!(closed.only().line(), "GET /admin/~me?x=//.. HTTP/1.1");
    assert!(open.received().is_empty());
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let upstream = Upstream::start();
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        assert_eq!(
            client
                .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                .status,
            200
        );
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(client.ask(chunked).status, 200);
    }
    let received = upstream.received();
    assert_eq!(received.len(), 15);
    assert!(
        received.iter().all(|received| received.connection == 0),
        "{received:#?}"
    );
    assert_eq!(received[1].body, b"abc");
}

#[test]
fn an_upstreams_problem_passes_untouched_and_loses_only_its_connection_headers() {
    let problem = "{\"type\":\"x\",\"hop\":\"b\"}";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\n\
         Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: {}\r\n\r\n{problem}",
        problem.len()
    );
    let upstream = Upstream::answering(move |_| answer.clone());
    let got = Gateway::before(&upstream).get("/", "");
    assert_eq!((got.status, got.body), (503, problem.as_bytes().to_vec()));
    let headers = ["content-type", "retry-after", "x-hop", "connection"]
        .map(|name| got.head.contains(&format!("{name}: ")));
    assert_eq!(headers, [true, true, false, false], "{}", got.head);
}

#[test]
fn head_and_empty_answers_keep_their_connection() {
    let upstream = Upstream::answering(|received| match received.line().split(' ').next() {
        Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_owned(),
        Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => OK.to_owned(),
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().contains("content-length: 1234"));
    client.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 204"));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert!(
        upstream
            .received()
            .iter()
            .all(|received| received.connection == 0)
    );
}

#[test]
fn an_http_1_0_client_is_answered_in_its_own_way() {
    let upstream = Upstream::start();
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    let answer = client.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, &*answer.body), (200, b"ok".as_slice()));
    assert!(client.is_closed());
    let sent = upstream.only();
    assert_eq!(
        (sent.line(), sent.header("via").as_deref()),
        ("GET / HTTP/1.1", Some("1.0 gateway"))
    );
}

#[test]
fn a_get_whose_connection_ends_without_an_answer_is_repeated_once_and_a_post_never() {
    // The first connection answers once and then ends at the next request without a byte, as a server does that
    // closes an idle connection at that very moment.
    let upstream = Upstream::conversing(true, |conversation| {
        use std::io::Write as _;
        let is_first = conversation.received.line().contains("/first");
        let hangs_up = conversation.received.connection == 0 && !is_first;
        !hangs_up && conversation.stream.write_all(OK.as_bytes()).is_ok()
    });
    let gateway = Gateway::open_before(&upstream);
    let mut client = gateway.connect();
    assert_eq!(client.ask("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(client.ask("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    let lines: Vec<_> = upstream
        .received()
        .iter()
        .map(|received| received.line().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /first HTTP/1.1",
            "GET /second HTTP/1.1",
            "GET /second HTTP/1.1"
        ]
    );
    assert!(
        gateway
            .metrics()
            .contains("servicechain_gateway_retries_total{hop=\"gateway\",route=\"r0\"} 1\n")
    );

    let hangs_up = Upstream::conversing(true, |_| false);
    let gateway = Gateway::open_before(&hangs_up);
    for (request, tries) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 2),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 3),
    ] {
        let answer = gateway.ask(request);
        assert_eq!(
            (answer.status, answer.json()["hop"].as_str()),
            (502, Some("a")),
            "{request}"
        );
        // A fresh connection of the only address that ends is no accident: it is not tried again.
        assert_eq!(hangs_up.received().len(), tries, "{request}");
    }
}

#[test]
fn what_happened_is_counted_by_route() {
    let upstream = Upstream::start();
    let gateway = Gateway::before(&upstream);
    gateway.get("/", "");
    gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n");
    let text = gateway.metrics();
    let label = "hop=\"gateway\",route=\"r0\"";
    for line in [
        format!("servicechain_gateway_requests_total{{{label},status=\"2xx\"}} 1\n"),
        format!("servicechain_gateway_requests_total{{{label},status=\"4xx\"}} 2\n"),
        format!("servicechain_gateway_verdicts_total{{{label},verdict=\"verified\"}} 1\n"),
        format!("servicechain_gateway_verdicts_total{{{label},verdict=\"absent\"}} 1\n"),
        format!("servicechain_gateway_verdicts_total{{{label},verdict=\"rejected\"}} 1\n"),
        format!("servicechain_gateway_upstream_seconds_count{{{label}}} 1\n"),
        format!("servicechain_gateway_requests_in_flight{{{label}}} 0\n"),
    ] {
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    let ready =
        Client::connect(gateway.admin).ask("GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(ready.status, 200);
}
