//! The service over its sockets: one hop alone, and chains of them, with tokens of an issuer of their own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_fixtures::{Proxy, Stores, await_condition};
use servicechain_item_service::pause::{Moment, PausePoints};
use servicechain_item_service::{Config, Places, run_with};
use servicechain_runtime::http_client::Client;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::Listeners;
use servicechain_runtime::upstream::UpstreamUrl;
use tower::ServiceExt as _;

use crate::support::{DEADLINE, Hold};

/// One running hop. It ends when dropped.
struct Hop {
    url: String,
    admin_url: String,
    lifecycle: Arc<Lifecycle>,
}

struct Setting<'a> {
    name: &'a str,
    database_url: String,
    redis_url: Option<String>,
    next: Option<(&'a str, String)>,
    yaml: &'a str,
    pauses: PausePoints,
}

impl Setting<'_> {
    fn embedded(name: &str) -> Setting<'_> {
        Setting {
            name,
            database_url: "sqlite::memory:".to_owned(),
            redis_url: Some("memory:".to_owned()),
            next: None,
            yaml: "",
            pauses: PausePoints::default(),
        }
    }

    fn real(name: &str) -> Setting<'_> {
        let Stores {
            database_url,
            redis_url,
        } = servicechain_fixtures::shared().unwrap();
        Setting {
            database_url,
            redis_url: Some(redis_url),
            ..Setting::embedded(name)
        }
    }

    /// Starts the hop, which verifies with `generation` of the specimen's bundle, and waits until it is ready.
    async fn start(self, specimen: &Specimen) -> Hop {
        let mut yaml = format!("hop: {{name: {}}}\n{}\n", self.name, self.yaml);
        let mut places = Places {
            database_url: self.database_url,
            redis_url: self.redis_url,
            next_hop_url: None,
        };
        if let Some((name, url)) = self.next {
            yaml = format!("{yaml}nextHop: {name}\n");
            places.next_hop_url = Some(url);
        }
        let config = Config::from_yaml(&yaml, &places).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle.jws");
        std::fs::write(&bundle, specimen.sign(&specimen.bundle()).bytes()).unwrap();
        let mut verifier = specimen.config(config.hop.clone());
        verifier.bundle_file = Some(bundle);
        let listeners = Listeners::on_loopback().unwrap();
        let url = format!("http://{}", listeners.main.local_addr().unwrap());
        let admin_url = format!("http://{}", listeners.admin.local_addr().unwrap());
        let lifecycle = Lifecycle::new(Duration::ZERO, Duration::from_secs(5));
        let running = Arc::clone(&lifecycle);
        let pauses = self.pauses;
        let task = tokio::spawn(async move {
            let _folder = folder;
            run_with(config, verifier, listeners, running, pauses).await
        });
        tokio::select! {
            ended = task => panic!("the hop ended: {ended:?}"),
            ready = tokio::time::timeout(DEADLINE, lifecycle.ready()) => ready.expect("not ready in time"),
        }
        Hop {
            url,
            admin_url,
            lifecycle,
        }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.lifecycle.end_at_once();
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }

    /// One member of every hop's entry.
    fn of_hops(&self, member: &str) -> Value {
        let reply = self.json();
        reply["hops"]
            .as_array()
            .unwrap_or_else(|| panic!("no hops: {reply}"))
            .iter()
            .map(|hop| hop[member].clone())
            .collect()
    }
}

async fn send(url: &str, request: Request<Full<Bytes>>) -> Answer {
    let url: UpstreamUrl = url.parse().unwrap();
    let client = Client::new("test", &url, DEADLINE);
    let response = await_client(client, request).await;
    let (head, body) = response.into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn await_client(
    client: Client,
    request: Request<Full<Bytes>>,
) -> http::Response<servicechain_runtime::http_client::PooledBody> {
    client.resolver().answered().await;
    client.oneshot(request).await.unwrap()
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

async fn get(hop: &Hop, token: &str, path: &str) -> Answer {
    get_with(hop, token, path, &[]).await
}

async fn get_with(hop: &Hop, token: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(Method::GET, path, headers, "");
    request.headers_mut().extend(bearing(token));
    send(&hop.url, request).await
}

async fn put(hop: &Hop, token: &str, path: &str, json: &str) -> Answer {
    put_with(hop, token, path, json, &[("content-type", "application/json")]).await
}

async fn put_with(hop: &Hop, token: &str, path: &str, json: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(Method::PUT, path, headers, json);
    request.headers_mut().extend(bearing(token));
    send(&hop.url, request).await
}

async fn metrics(hop: &Hop) -> String {
    let answer = send(&hop.admin_url, request(Method::GET, "/metrics", &[], "")).await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

async fn three_hops(specimen: &Specimen, setting: impl Fn(&'static str) -> Setting<'static>) -> [Hop; 3] {
    let c = setting("c").start(specimen).await;
    let b = Setting {
        next: Some(("c", c.url.clone())),
        ..setting("b")
    }
    .start(specimen)
    .await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..setting("a")
    }
    .start(specimen)
    .await;
    [a, b, c]
}

#[tokio::test]
async fn three_hops_fold_their_items_into_one_reply_and_answer_from_their_caches_the_second_time() {
    for setting in [Setting::real, Setting::embedded] {
        let specimen = Specimen::new();
        let [a, b, c] = three_hops(&specimen, setting).await;
        let token = specimen.token();
        assert_eq!(
            put(&a, &token, "/items/1", "{\"name\": \"lamp\"}").await.status,
            StatusCode::CREATED
        );
        assert_eq!(
            put(&c, &token, "/items/1", "{\"name\": \"shade\"}").await.status,
            StatusCode::CREATED
        );

        let first = get(&a, &token, "/items/1").await;
        assert_eq!(first.status, StatusCode::OK);
        assert_eq!(first.json()["id"], "1");
        assert_eq!(first.of_hops("service"), json!(["a", "b", "c"]));
        assert_eq!(
            first.of_hops("item"),
            json!([{"name": "lamp"}, null, {"name": "shade"}])
        );
        assert_eq!(first.of_hops("source"), json!(["cache", "database", "cache"]));
        assert_eq!(first.of_hops("keyGeneration"), json!([1, 1, 1]));
        assert!(
            first
                .body
                .windows(16)
                .any(|window| window == b"{\"name\": \"lamp\"}"),
            "the item as it was sent"
        );

        assert_eq!(
            get(&a, &token, "/items/1").await.of_hops("source"),
            json!(["cache", "cache", "cache"])
        );
        assert_eq!(
            get(&b, &token, "/items/1").await.status,
            StatusCode::NOT_FOUND,
            "b itself has none"
        );
    }
}

#[tokio::test]
async fn a_missing_item_is_404_naming_the_first_hop_and_still_says_what_the_others_have() {
    let specimen = Specimen::new();
    let [a, b, _c] = three_hops(&specimen, Setting::embedded).await;
    let token = specimen.token();
    put(&b, &token, "/items/1", "{}").await;
    let missing = get(&a, &token, "/items/1").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.headers["content-type"], "application/problem+json");
    assert_eq!(
        (&missing.json()["hop"], &missing.json()["status"]),
        (&json!("a"), &json!(404))
    );
    assert_eq!(missing.of_hops("item"), json!([null, {}, null]));
    assert!(missing.headers.get("etag").is_none());
}

#[tokio::test]
async fn a_write_is_201_then_200_and_its_conditions_are_kept() {
    let specimen = Specimen::new();
    let hop = Setting::embedded("a").start(&specimen).await;
    let token = specimen.token();
    let json = ("content-type", "application/json; charset=utf-8");
    let created = put(&hop, &token, "/items/1", "{\"n\":1}").await;
    assert_eq!(
        (created.status, created.of_hops("item")),
        (StatusCode::CREATED, json!([{"n": 1}]))
    );
    let first = created.etag().to_owned();

    let refused = put_with(
        &hop,
        &token,
        "/items/1",
        "{\"n\":2}",
        &[json, ("if-none-match", "*")],
    )
    .await;
    assert_eq!(
        (refused.status, refused.etag()),
        (StatusCode::PRECONDITION_FAILED, first.as_str())
    );
    let replaced = put_with(
        &hop,
        &token,
        "/items/1",
        "{\"n\":2}",
        &[json, ("if-match", &first)],
    )
    .await;
    assert_eq!(replaced.status, StatusCode::OK);
    let second = replaced.etag().to_owned();
    assert_ne!(first, second);
    let late = put_with(
        &hop,
        &token,
        "/items/1",
        "{\"n\":3}",
        &[json, ("if-match", &first)],
    )
    .await;
    assert_eq!(
        (late.status, late.json()["hop"].clone()),
        (StatusCode::PRECONDITION_FAILED, json!("a"))
    );
    let absent = put_with(&hop, &token, "/items/2", "{}", &[json, ("if-match", "*")]).await;
    assert_eq!(absent.status, StatusCode::PRECONDITION_FAILED);
    assert!(absent.headers.get("etag").is_none());

    let unchanged = get_with(&hop, &token, "/items/1", &[("if-none-match", &second)]).await;
    assert_eq!(
        (unchanged.status, unchanged.etag()),
        (StatusCode::NOT_MODIFIED, second.as_str())
    );
    assert!(unchanged.body.is_empty());
    let changed = get_with(&hop, &token, "/items/1", &[("if-none-match", &first)]).await;
    assert_eq!(
        (changed.status, changed.of_hops("item")),
        (StatusCode::OK, json!([{"n": 2}]))
    );
    assert_eq!(changed.headers["cache-control"], "private, no-cache");
    let malformed = get_with(&hop, &token, "/items/1", &[("if-none-match", "17")]).await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_unchanged_first_hop_does_not_hide_a_change_behind_it() {
    let specimen = Specimen::new();
    let [a, b, _c] = three_hops(&specimen, |name| Setting {
        redis_url: None,
        ..Setting::embedded(name)
    })
    .await;
    let token = specimen.token();
    put(&a, &token, "/items/1", "{}").await;
    let tag = get(&a, &token, "/items/1").await.etag().to_owned();
    assert_eq!(
        get_with(&a, &token, "/items/1", &[("if-none-match", &tag)])
            .await
            .status,
        StatusCode::NOT_MODIFIED
    );
    put(&b, &token, "/items/1", "{}").await;
    assert_eq!(
        get_with(&a, &token, "/items/1", &[("if-none-match", &tag)])
            .await
            .status,
        StatusCode::OK
    );
    let json = ("content-type", "application/json");
    let written = put_with(&a, &token, "/items/1", "{}", &[json, ("if-match", &tag)]).await;
    assert_eq!(
        written.status,
        StatusCode::OK,
        "the tag of a read names the version that a write expects"
    );
}

#[tokio::test]
async fn another_callers_item_is_404_and_the_same_subject_of_another_issuer_is_another_caller() {
    let specimen = Specimen::new();
    let hop = Setting::real("a").start(&specimen).await;
    let mut claims = specimen.claims();
    assert_eq!(
        put(&hop, &specimen.token_with(&claims), "/items/1", "{}")
            .await
            .status,
        StatusCode::CREATED
    );
    claims.insert("sub".to_owned(), "bob".into());
    let bob = specimen.token_with(&claims);
    for _ in 0..2 {
        assert_eq!(get(&hop, &bob, "/items/1").await.status, StatusCode::NOT_FOUND);
        assert_eq!(
            get(&hop, &specimen.token(), "/items/1").await.status,
            StatusCode::OK
        );
    }
    assert_eq!(
        put(&hop, &bob, "/items/1", "{\"of\":\"bob\"}").await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        get(&hop, &specimen.token(), "/items/1").await.of_hops("item"),
        json!([{}])
    );
}

#[tokio::test]
async fn what_is_no_good_request_gets_its_own_answer() {
    let specimen = Specimen::new();
    let hop = Setting::embedded("a").start(&specimen).await;
    let token = specimen.token();
    let json = ("content-type", "application/json");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    for (method, path, headers, body, status) in [
        (Method::GET, "/items/a%2Fb", &[] as &[(&str, &str)], "", 400),
        (Method::GET, "/items/%ff", &[], "", 400),
        (Method::GET, "/items/..", &[], "", 400),
        (Method::GET, "/items/1/2", &[], "", 404),
        (Method::GET, "/other", &[], "", 404),
        (Method::GET, "/items", &[], "", 501),
        (Method::DELETE, "/items/1", &[], "", 501),
        (Method::PATCH, "/items/1", &[json], "{}", 405),
        (Method::POST, "/items", &[json], "{}", 501),
        (Method::PUT, "/items/1", &[], "{}", 415),
        (
            Method::PUT,
            "/items/1",
            &[("content-type", "text/plain")],
            "{}",
            415,
        ),
        (
            Method::PUT,
            "/items/1",
            &[json, ("content-range", "bytes 0-1/5")],
            "{}",
            400,
        ),
        (
            Method::PUT,
            "/items/1",
            &[json, ("content-encoding", "gzip")],
            "{}",
            400,
        ),
        (
            Method::PUT,
            "/items/1",
            &[json, ("idempotency-key", "k")],
            "{}",
            501,
        ),
        (Method::PUT, "/items/1", &[json], "[]", 400),
        (Method::PUT, "/items/1", &[json], "{", 400),
        (Method::PUT, "/items/1", &[json], large.as_str(), 413),
    ] {
        let mut request = request(method.clone(), path, headers, body);
        request.headers_mut().extend(bearing(&token));
        let answer = send(&hop.url, request).await;
        let what = format!("{method} {path} {headers:?}");
        assert_eq!(answer.status.as_u16(), status, "{what}");
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{what}"
        );
        let problem = answer.json();
        assert_eq!(
            (&problem["status"], &problem["hop"]),
            (&json!(status), &json!("a")),
            "{what}"
        );
    }
    assert_eq!(
        get(&hop, &token, "/items/1").await.status,
        StatusCode::NOT_FOUND,
        "nothing was written"
    );
}

#[tokio::test]
async fn nobody_gets_in_without_a_good_token_or_the_scope_that_the_rules_ask_for() {
    let specimen = Specimen::new();
    let rules = r#"authorization: [{methods: [GET, HEAD], pathPrefix: /, scopes: ["items:read"]}]"#;
    let hop = Setting {
        yaml: rules,
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    for path in ["/items/1", "/other", "/items"] {
        let nobody = send(&hop.url, request(Method::GET, path, &[], "")).await;
        assert_eq!(
            (nobody.status, &nobody.headers["www-authenticate"]),
            (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
        );
    }
    let mut claims = specimen.claims();
    claims.insert("exp".to_owned(), 1.into());
    assert_eq!(
        get(&hop, &specimen.token_with(&claims), "/items/1").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        put(&hop, &specimen.token(), "/items/1", "{}").await.status,
        StatusCode::FORBIDDEN
    );
    let mut claims = specimen.claims();
    claims.insert("scope".to_owned(), "items:write".into());
    let refused = get(&hop, &specimen.token_with(&claims), "/items/1").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("insufficient_scope")
    );
}

#[tokio::test]
async fn a_refusal_behind_is_passed_on_naming_the_hop_that_refuses() {
    let specimen = Specimen::new();
    let rules = r#"authorization: [{pathPrefix: /, scopes: ["shades:read"]}]"#;
    let b = Setting {
        yaml: rules,
        ..Setting::embedded("b")
    }
    .start(&specimen)
    .await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    let refused = get(&a, &specimen.token(), "/items/1").await;
    assert_eq!(
        (refused.status, refused.json()["hop"].clone()),
        (StatusCode::FORBIDDEN, json!("b"))
    );
    assert!(
        refused.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("shades:read")
    );
}

#[tokio::test]
async fn a_hop_that_refuses_a_token_that_is_good_here_is_a_503_naming_it_and_is_counted() {
    let (specimen, stranger) = (Specimen::new(), Specimen::new());
    // Its bundle has another key for the same issuer.
    let b = Setting::embedded("b").start(&stranger).await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    let refused = get(&a, &specimen.token(), "/items/1").await;
    assert_eq!(
        (refused.status, refused.json()["hop"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("b"))
    );
    let metrics = metrics(&a).await;
    let counted = |line: &&str| line.contains("next_hop_calls_total") && line.contains("refused_good_token");
    assert!(
        metrics
            .lines()
            .find(counted)
            .is_some_and(|line| line.ends_with(" 1")),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_database_that_is_down_is_a_503_naming_its_hop_and_cached_items_keep_answering() {
    let specimen = Specimen::new();
    let postgres = servicechain_fixtures::Postgres::shared().unwrap();
    let proxy = Proxy::start(postgres.address()).unwrap();
    let database_url = proxy.in_front_of(&postgres.fresh_database().unwrap());
    let b = Setting {
        database_url,
        ..Setting::real("b")
    }
    .start(&specimen)
    .await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..Setting::real("a")
    }
    .start(&specimen)
    .await;
    let token = specimen.token();
    for hop in [&a, &b] {
        put(hop, &token, "/items/1", "{}").await;
    }
    proxy.cut();
    let cached = get(&a, &token, "/items/1").await;
    assert_eq!(
        (cached.status, cached.of_hops("source")),
        (StatusCode::OK, json!(["cache", "cache"]))
    );
    let missed = get(&a, &token, "/items/2").await;
    assert_eq!(
        (missed.status, missed.json()["hop"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("b"))
    );
    assert_eq!(missed.headers["retry-after"], "1");
    assert_eq!(missed.headers["content-type"], "application/problem+json");
    assert_eq!(
        put(&b, &token, "/items/1", "{}").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    proxy.mend();
    await_condition("the database to be used again", DEADLINE, async || {
        match get(&a, &token, "/items/2").await {
            answer if answer.status == StatusCode::NOT_FOUND => Ok(()),
            answer => Err(format!("{}", answer.status)),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cache_that_is_down_is_slower_and_still_right() {
    let specimen = Specimen::new();
    let redis = servicechain_fixtures::Redis::shared().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let redis_url = Some(proxy.in_front_of(&redis.fresh_keyspace()));
    let hop = Setting {
        redis_url,
        ..Setting::real("a")
    }
    .start(&specimen)
    .await;
    let token = specimen.token();
    for (number, fault) in [Proxy::cut, Proxy::stall].into_iter().enumerate() {
        fault(&proxy);
        for step in 0..5 {
            let json = format!("{{\"n\":{}}}", 10 * number + step);
            assert!(put(&hop, &token, "/items/1", &json).await.status.is_success());
            let read = get(&hop, &token, "/items/1").await;
            assert_eq!(read.of_hops("source"), json!(["database"]));
            assert_eq!(read.json()["hops"][0]["item"].to_string(), json);
        }
        proxy.mend();
        await_condition("Redis to be used again", DEADLINE, async || {
            put(&hop, &token, "/items/1", "{}").await;
            match get(&hop, &token, "/items/1").await.of_hops("source") {
                source if source == json!(["cache"]) => Ok(()),
                source => Err(source.to_string()),
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_slow_hop_is_a_504_that_names_it_wherever_it_is() {
    let specimen = Specimen::new();
    let (pauses, _held) = Hold::first_at(Moment::AfterRead);
    let c = Setting {
        pauses,
        ..Setting::embedded("c")
    }
    .start(&specimen)
    .await;
    let b = Setting {
        next: Some(("c", c.url.clone())),
        ..Setting::embedded("b")
    }
    .start(&specimen)
    .await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        yaml: "timeout: 1s",
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    let late = get(&a, &specimen.token(), "/items/1").await;
    assert_eq!(
        (late.status, late.json()["hop"].clone()),
        (StatusCode::GATEWAY_TIMEOUT, json!("c"))
    );
}

#[tokio::test]
async fn a_hop_that_is_not_there_is_a_502_naming_it() {
    let specimen = Specimen::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let a = Setting {
        next: Some(("b", format!("http://{free}"))),
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    let answer = get(&a, &specimen.token(), "/items/1").await;
    assert_eq!(
        (answer.status, answer.json()["hop"].clone()),
        (StatusCode::BAD_GATEWAY, json!("b"))
    );
}

#[tokio::test]
async fn an_answer_that_no_hop_gives_is_a_502_naming_who_gave_it() {
    let specimen = Specimen::new();
    for body in [
        "<html>",
        "{\"id\":\"2\",\"hops\":[]}",
        &"x".repeat(2 * 1024 * 1024),
    ] {
        let body = body.to_owned();
        let odd = axum::Router::new().fallback(move || std::future::ready(body.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, odd).await });
        let a = Setting {
            next: Some(("b", url)),
            ..Setting::embedded("a")
        }
        .start(&specimen)
        .await;
        let answer = get(&a, &specimen.token(), "/items/1").await;
        assert_eq!(
            (answer.status, answer.json()["hop"].clone()),
            (StatusCode::BAD_GATEWAY, json!("b"))
        );
        server.abort();
    }
}

#[tokio::test]
async fn a_write_whose_client_goes_away_is_committed_and_fills_the_cache() {
    let specimen = Specimen::new();
    let (pauses, mut held) = Hold::first_at(Moment::AfterCommit);
    let hop = Setting {
        pauses,
        ..Setting::real("a")
    }
    .start(&specimen)
    .await;
    let token = specimen.token();
    let (url, gone) = (hop.url.clone(), token.clone());
    let client = tokio::spawn(async move {
        let mut request = request(
            Method::PUT,
            "/items/1",
            &[("content-type", "application/json")],
            "{\"n\":1}",
        );
        request.headers_mut().extend(bearing(&gone));
        send(&url, request).await
    });
    held.arrived().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    await_condition("the request to be dropped", DEADLINE, async || {
        let metrics = metrics(&hop).await;
        let is_idle =
            |line: &str| line.starts_with("servicechain_requests_in_flight{") && line.ends_with(" 0");
        if metrics.lines().any(is_idle) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await
    .unwrap();
    held.let_go();
    // Nobody has read yet, so that only the write can have filled it.
    await_condition("the cache to be filled", DEADLINE, async || {
        let metrics = metrics(&hop).await;
        let is_filled = |line: &str| line.contains("cache_puts_total") && line.contains("\"stored\"");
        if metrics.lines().any(is_filled) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await
    .unwrap();
    let read = get(&hop, &token, "/items/1").await;
    assert_eq!(
        (read.of_hops("source"), read.of_hops("item")),
        (json!(["cache"]), json!([{"n": 1}]))
    );
}

#[tokio::test]
async fn a_write_that_is_not_done_in_time_says_that_its_outcome_is_unknown() {
    let specimen = Specimen::new();
    let (pauses, held) = Hold::first_at(Moment::BeforeCommit);
    let hop = Setting {
        pauses,
        yaml: "timeout: 300ms",
        ..Setting::embedded("a")
    }
    .start(&specimen)
    .await;
    let late = put(&hop, &specimen.token(), "/items/1", "{}").await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        (&late.json()["hop"], &late.json()["write"]),
        (&json!("a"), &json!("unknown"))
    );
    held.let_go();
}
