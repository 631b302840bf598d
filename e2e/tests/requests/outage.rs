//! What a client sees when a cache, a database or a network is gone: the right answer, or the name of the hop.

use std::time::{Duration, Instant};

use serde_json::json;
use servicechain_e2e::running::START;
use servicechain_e2e::{Chain, Plan};
use servicechain_fixtures::{Postgres, Redis, await_condition};

use crate::{at_a, chain, read, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_survives_redis_down() {
    let mut redis = Redis::start().unwrap();
    let mut plan = Plan::new().unwrap();
    plan.stores[0].redis_url = redis.url();
    let chain = Chain::start(plan).await.unwrap();
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"n":1}"#).await.status, 201);
    assert_eq!(at_a(&read(&chain, "1", &token).await, "source"), "cache");

    redis.stop().unwrap();
    for n in 2..5 {
        let answer = read(&chain, "1", &token).await;
        assert_eq!(
            (answer.status, at_a(&answer, "source")),
            (200, json!("database")),
            "{answer:?}"
        );
        assert_eq!(at_a(&answer, "item"), json!({"n": n - 1}));
        assert_eq!(
            write(&chain, "1", &token, &format!("{{\"n\":{n}}}")).await.status,
            200
        );
    }

    redis.start_again().unwrap();
    let cached = await_condition("the cache to be used again", START, async || {
        let answer = read(&chain, "1", &token).await;
        assert_eq!(at_a(&answer, "item"), json!({"n": 4}));
        let source = at_a(&answer, "source");
        if source == "cache" { Ok(()) } else { Err(source) }
    });
    cached.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_names_the_hop_whose_database_is_down() {
    let mut postgres = Postgres::start().unwrap();
    let mut plan = Plan::new().unwrap();
    plan.stores[1].database_url = postgres.fresh_database().unwrap();
    let chain = Chain::start(plan).await.unwrap();
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "cached", &token, "{}").await.status, 201);
    assert_eq!(write(&chain, "other", &token, "{}").await.status, 201);
    assert_eq!(read(&chain, "cached", &token).await.status, 200);

    postgres.stop().unwrap();
    let answer = read(&chain, "other", &token).await;
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json().unwrap()["hop"], "b");
    assert!(answer.header("retry-after").is_some());
    // What B has in its cache (that it has no such item) keeps answering for the 5 s that holds.
    assert_eq!(read(&chain, "cached", &token).await.status, 200);

    postgres.start_again().unwrap();
    let back = await_condition("the database to be used again", START, async || {
        let answer = read(&chain, "other", &token).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.head)
        }
    });
    back.await.unwrap();
}

/// `slow` is the index of the service that nothing comes back from.
async fn is_named_when_slow(slow: usize) {
    let mut plan = Plan::new().unwrap();
    plan.timeout = "2s";
    let chain = Chain::start(plan).await.unwrap();
    let token = chain.keys.token("alice");
    assert_eq!(read(&chain, "1", &token).await.status, 404);
    chain.links[slow].network.stall();
    let begun = Instant::now();
    let answer = read(&chain, "1", &token).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(answer.json().unwrap()["hop"], ["a", "b", "c"][slow]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    chain.links[slow].network.mend();
    let back = await_condition("the hop to answer again", START, async || {
        let answer = read(&chain, "1", &token).await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.head)
        }
    });
    back.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_names_the_slow_hop_a() {
    is_named_when_slow(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_names_the_slow_hop_b() {
    is_named_when_slow(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_names_the_slow_hop_c() {
    is_named_when_slow(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_names_the_hop_that_cannot_be_reached() {
    let chain = chain().await;
    let token = chain.keys.token("alice");
    for (unreachable, name) in ["a", "b", "c"].into_iter().enumerate() {
        chain.links[unreachable].network.cut();
        let answer = read(&chain, "1", &token).await;
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        assert_eq!(answer.json().unwrap()["hop"], name, "{answer:?}");
        chain.links[unreachable].network.mend();
        let back = await_condition("the hop to answer again", START, async || {
            let answer = read(&chain, "1", &token).await;
            if answer.status == 404 {
                Ok(())
            } else {
                Err(answer.head)
            }
        });
        back.await.unwrap();
    }
}
