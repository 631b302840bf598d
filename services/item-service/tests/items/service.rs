//! What a hop, and a chain of them, answers while everything works.

use http::{Method, StatusCode};
use serde_json::json;
use servicechain_auth::specimen::{Specimen, bearing};

use crate::hop::{Setting, get, get_with, put, put_with, request, send, three_hops};

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
