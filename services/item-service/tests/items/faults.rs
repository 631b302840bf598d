//! What is answered when a hop, its database, its cache or its client fails.

use http::{Method, StatusCode};
use serde_json::json;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_fixtures::{Proxy, await_condition};
use servicechain_item_service::pause::Moment;

use crate::hop::{Setting, get, metrics, put, request, send};
use crate::support::{DEADLINE, Hold};

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
    for (name, label) in [
        ("next_hop_calls_total", r#"outcome="refused_good_token""#),
        ("servicechain_verdict_disagreements_total", r#"next="b""#),
    ] {
        let counted = |line: &&str| line.contains(name) && line.contains(label);
        assert!(
            metrics
                .lines()
                .find(counted)
                .is_some_and(|line| line.ends_with(" 1")),
            "{name} in {metrics}"
        );
    }
}

#[tokio::test]
async fn a_token_that_the_next_hop_alone_does_not_take_is_its_401_and_no_disagreement() {
    let specimen = Specimen::new();
    let b = Setting {
        audiences: "[billing]",
        ..Setting::embedded("b")
    };
    let b = b.start(&specimen).await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..Setting::embedded("a")
    };
    let a = a.start(&specimen).await;
    let refused = get(&a, &specimen.token(), "/items/1").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["hop"], json!("b"));
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    let metrics = metrics(&a).await;
    let counted = |line: &&str| line.contains("servicechain_verdict_disagreements_total");
    assert!(
        metrics
            .lines()
            .find(counted)
            .is_some_and(|line| line.ends_with(" 0")),
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
