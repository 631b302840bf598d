//! Requests that are no requests, or too large: an answer that says so or the end of the connection, in time, and
//! the hop goes on.

use std::net::SocketAddr;

use servicechain_e2e::Keys;
use servicechain_e2e::client::{exchange, get, put, request};
use servicechain_e2e::running::issuer;

use crate::chain;

/// Bytes, and the statuses that may answer them; none: the connection may simply end.
fn malformed() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let head = |lines: &str| format!("GET /items/1 HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let put = |lines: &str, body: &str| {
        format!("PUT /items/1 HTTP/1.1\r\nhost: x\r\n{lines}\r\n{body}").into_bytes()
    };
    let long = "a".repeat(100_000);
    vec![
        ("no request at all", b"\x00\x01\x02\x03\r\n\r\n".to_vec(), &[400]),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            &[400],
        ),
        ("half a request line", b"GET\r\n\r\n".to_vec(), &[400]),
        (
            "an unknown version",
            b"GET / HTTP/7.3\r\nhost: x\r\n\r\n".to_vec(),
            &[400, 505],
        ),
        (
            "a header without a colon",
            head("host: x\r\nnonsense\r\n"),
            &[400],
        ),
        (
            "a space before the colon",
            head("host: x\r\nx-odd : y\r\n"),
            &[400],
        ),
        ("a folded header", head("host: x\r\nx-odd: y\r\n z\r\n"), &[400]),
        (
            "a bare carriage return",
            head("host: x\r\nx-odd: a\rb\r\n"),
            &[400],
        ),
        ("a null in a header", head("host: x\r\nx-odd: a\0b\r\n"), &[400]),
        (
            "two lengths",
            put("content-length: 1\r\ncontent-length: 2\r\n", "ab"),
            &[400],
        ),
        ("a negative length", put("content-length: -1\r\n", ""), &[400]),
        (
            "a length that overflows",
            put("content-length: 99999999999999999999999\r\n", ""),
            &[400, 413],
        ),
        (
            "a length with a plus",
            put("content-length: +5\r\n", "hello"),
            &[400],
        ),
        (
            "a coding nobody knows",
            put("transfer-encoding: gzip\r\n", ""),
            &[400, 501],
        ),
        (
            "HTTP/1.0 with chunks",
            b"PUT /items/1 HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "endless headers",
            head(&format!("host: x\r\nx-long: {long}\r\n")),
            &[431],
        ),
        (
            "very many headers",
            head(&format!("host: x\r\n{}", "x: y\r\n".repeat(2000))),
            &[431],
        ),
        (
            "an endless path",
            format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
            &[414, 431],
        ),
    ]
}

async fn is_refused_by(address: SocketAddr) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, bytes, statuses) in malformed() {
        // A server that refuses while we still send may reset the connection: that is an end, too.
        match exchange(address, &bytes).await {
            Ok(Some(answer)) if statuses.contains(&answer.status) => {}
            Ok(Some(answer)) => wrong.push(format!(
                "{what}: {}",
                answer.head.lines().next().unwrap_or_default()
            )),
            Ok(None) => wrong.push(format!("{what}: no answer")),
            Err(error) if bytes.len() > 10_000 && format!("{error:#}").contains("reset") => {}
            Err(error) => wrong.push(format!("{what}: {error:#}")),
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_by_every_hop_and_it_goes_on() {
    let chain = chain().await;
    let token = chain.keys.token("alice");
    let mut wrong = Vec::new();
    for hop in ["gateway", "a", "b", "c"] {
        let (address, _) = chain.hop(hop);
        wrong.extend(
            is_refused_by(address)
                .await
                .into_iter()
                .map(|what| format!("{hop}: {what}")),
        );
        let answer = get(address, "/items/1", Some(&token)).await.unwrap();
        assert_eq!(answer.status, 404, "{hop} {}", answer.head);
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_bodies_are_refused_with_413_by_every_hop() {
    let chain = chain().await;
    let token = chain.keys.token("alice");
    // Above the gateway's limit, and above an item's; A, B and C take no item above 64 KiB.
    for (hop, size) in [
        ("gateway", 100_001),
        ("gateway", 70_000),
        ("a", 70_000),
        ("b", 70_000),
        ("c", 70_000),
    ] {
        let (address, _) = chain.hop(hop);
        let item = format!("{{\"long\":\"{}\"}}", "x".repeat(size));
        match put(address, "/items/1", &token, &item).await {
            Ok(answer) => assert_eq!(answer.status, 413, "{hop} {size} {}", answer.head),
            Err(error) => panic!("{hop} {size}: {error:#}"),
        }
        let answer = get(address, "/items/1", Some(&token)).await.unwrap();
        assert_eq!(answer.status, 404, "{hop} {}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_by_the_issuer_and_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    let bundle = keys.write_bundle(folder.path()).unwrap();
    let yaml = "issuer: {name: platform, url: \"http://platform.test\", algorithm: ES256, tokenLifetime: 15m, audiences: [shop]}\nclients: []\n";
    let issuer = issuer(yaml, keys.verifier("platform", &bundle).unwrap())
        .await
        .unwrap();
    assert_eq!(is_refused_by(issuer.address).await, Vec::<String>::new());
    let form = format!("grant_type={}", "x".repeat(100_000));
    let type_of_form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", "100011"),
    ];
    let mut ask = request("POST", "/oauth2/token", &type_of_form, "");
    ask.extend(form.into_bytes());
    let answer = exchange(issuer.address, &ask).await.unwrap().unwrap();
    assert_eq!(answer.status, 413, "{}", answer.head);
    assert_eq!(
        get(issuer.address, "/.well-known/openid-configuration", None)
            .await
            .unwrap()
            .status,
        200
    );
}
