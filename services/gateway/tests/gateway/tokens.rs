//! Who may pass, and what happens to the token.

use servicechain_auth::attacks;
use servicechain_auth::specimen::{AUDIENCE, ISSUER};

use crate::harness::{Gateway, Setting};
use crate::upstream::Upstream;

#[test]
fn the_token_reaches_the_upstream_byte_for_byte() {
    let upstream = Upstream::start();
    let gateway = Gateway::before(&upstream);
    let token = gateway.chain.token();
    let answer = gateway.ask(format!(
        "GET /items/1 HTTP/1.1\r\nHost: a\r\nauthorization:  bearer {token}\r\n\r\n"
    ));
    assert_eq!((answer.status, &*answer.body), (200, b"ok".as_slice()));
    assert_eq!(
        upstream.only().header("authorization"),
        Some(format!("bearer {token}"))
    );
    let again = gateway.get("/items/1", "");
    assert_eq!(again.status, 200, "a verdict from the cache is the same");
}

#[test]
fn without_a_token_a_required_route_answers_401_and_forwards_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::before(&upstream);
    let answer = gateway.ask("GET /items/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate").as_deref(), Some("Bearer"));
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    assert_eq!(answer.json()["fault"], "Client");
    assert!(upstream.received().is_empty());
}

#[test]
fn every_known_attack_is_refused_and_nothing_of_it_forwarded() {
    let upstream = Upstream::start();
    let gateway = Gateway::before(&upstream);
    let chain = &gateway.chain;
    let target = attacks::Target {
        key: &chain.key,
        kid: chain.key.kid(),
        iss: ISSUER,
        audience: AUDIENCE,
        token_type: "at+jwt",
        now: chain.now(),
    };
    let attacks = attacks::attacks(&target);
    assert!(attacks.len() >= 30, "{}", attacks.len());
    for attack in attacks {
        let mut request = b"GET /items/1 HTTP/1.1\r\nHost: a\r\n".to_vec();
        for (name, value) in &attack.headers {
            request.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let mut client = gateway.connect();
        let _ = client.try_send(&request) && client.try_send("\r\n");
        let status = client.answer().status;
        assert!(
            status == attack.status.as_u16() || status == 431,
            "{}: {status}",
            attack.name
        );
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_route_without_authentication_sends_no_token_and_keeps_basic_credentials() {
    let upstream = Upstream::start();
    let gateway = Gateway::open_before(&upstream);
    assert_eq!(gateway.get("/", "").status, 200);
    for line in [
        "Authorization: Basic ZGVtbzpzZWNyZXQ=",
        "Authorization: DPoP x",
        "X: y",
    ] {
        assert_eq!(
            gateway
                .ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"))
                .status,
            200
        );
    }
    let sent: Vec<_> = upstream
        .received()
        .iter()
        .map(|received| received.header("authorization"))
        .collect();
    assert_eq!(
        sent,
        [None, Some("Basic ZGVtbzpzZWNyZXQ=".to_owned()), None, None]
    );
    let twice = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic a\r\nAuthorization: Bearer b\r\n\r\n";
    assert_eq!(gateway.ask(twice).status, 400);
}

#[test]
fn an_optional_token_is_verified_if_there_is_one() {
    let upstream = Upstream::start();
    let gateway = Setting::new()
        .route("/", &upstream.url(), "authentication: Optional")
        .start();
    assert_eq!(gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(upstream.only().header("authorization"), None);
    assert_eq!(gateway.get("/", "").status, 200);
    assert!(upstream.received()[1].header("authorization").is_some());
    assert_eq!(
        gateway
            .ask("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n")
            .status,
        401
    );
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn a_route_may_ask_for_scopes_and_issuers() {
    let upstream = Upstream::start();
    let gateway = Setting::new()
        .route(
            "/both",
            &upstream.url(),
            "scopes: [\"items:read\", \"items:write\"]",
        )
        .route(
            "/more",
            &upstream.url(),
            "scopes: [\"items:read\", \"items:admin\"]",
        )
        .route("/ours", &upstream.url(), "issuers: [platform]")
        .route("/theirs", &upstream.url(), "issuers: [corp]")
        .start();
    assert_eq!(gateway.get("/both", "").status, 200);
    let refused = gateway.get("/more", "");
    assert_eq!(refused.status, 403);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains("items:read items:admin"),
        "{challenge}"
    );
    assert_eq!(gateway.get("/ours", "").status, 200);
    let foreign = gateway.get("/theirs", "");
    assert_eq!(foreign.status, 401);
    assert!(
        foreign
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn an_unsafe_request_that_could_outlive_its_token_is_refused_early() {
    let upstream = Upstream::start();
    let gateway = Setting::new().route("/", &upstream.url(), "timeout: 60s").start();
    let mut claims = gateway.chain.claims();
    let seconds = gateway.chain.now().as_seconds();
    claims.insert("exp".to_owned(), (seconds + 30).into());
    let token = gateway.chain.token_with(&claims);
    let ask = |method: &str| {
        gateway.ask(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        ))
    };
    let refused = ask("PUT");
    assert_eq!(refused.status, 401);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("expires before the request could complete")
    );
    assert!(upstream.received().is_empty());
    assert_eq!(ask("GET").status, 200);
}
