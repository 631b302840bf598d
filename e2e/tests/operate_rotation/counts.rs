//! What is counted can be other than nothing: clients of a gateway that answers badly on purpose.

use std::time::{Duration, Instant};

use axum::Router;
use http::StatusCode;
use serde_json::{Value, json};
use servicechain_e2e::running::upstream;
use servicechain_e2e::token_load::{Killed, Kind, Seen, Token, TokenLoad};

#[tokio::test]
async fn every_answer_is_counted_for_what_it_is() {
    let (ok, unauthorized) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    for (status, body, is_revoked, expected) in [
        (ok, whole("alice"), false, None),
        (ok, whole("bob"), false, Some(Kind::Wrong)),
        (ok, json!({"hops": []}), false, Some(Kind::Wrong)),
        (ok, whole("alice"), true, Some(Kind::AcceptedRevoked)),
        (unauthorized, Value::Null, false, Some(Kind::RefusedValid)),
        (unauthorized, Value::Null, true, None),
        (StatusCode::NOT_FOUND, Value::Null, true, Some(Kind::Wrong)),
        (
            StatusCode::BAD_GATEWAY,
            Value::Null,
            true,
            Some(Kind::ServerError),
        ),
    ] {
        let seen = seen(status, &body, is_revoked).await;
        let (requests, mishaps) = (seen.requests, seen.mishaps.len() as u64);
        assert_eq!(
            mishaps,
            if expected.is_some() { requests } else { 0 },
            "{status} {body}"
        );
        assert!(
            seen.mishaps.iter().all(|mishap| Some(mishap.kind) == expected),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn only_what_was_inside_a_killed_container_is_set_apart() {
    let began = Instant::now();
    let body = json!({"hop": "b"});
    let failed = seen(StatusCode::BAD_GATEWAY, &body, false).await;
    let killed = |hop: &str, not_before, not_after| Killed {
        hop: hop.to_owned(),
        not_before,
        not_after,
    };
    let now = Instant::now();
    for (killed, excuses) in [
        (killed("b", began, now), true),
        (killed("c", began, now), false),
        (killed("b", began, began), false),
        (killed("b", now, now), false),
    ] {
        let mut seen = Seen {
            mishaps: failed.mishaps.clone(),
            ..failed
        };
        let inside: usize = seen.take_inside(std::slice::from_ref(&killed)).values().sum();
        assert_eq!(
            (inside > 0, seen.mishaps.is_empty()),
            (excuses, excuses),
            "{killed:?}"
        );
    }
    let refused = seen(StatusCode::UNAUTHORIZED, &body, false).await;
    let mut refused_valid = refused;
    refused_valid.take_inside(&[killed("b", began, Instant::now())]);
    assert!(
        refused_valid.count(Kind::RefusedValid) > 0,
        "a 401 is never excused"
    );
}

/// What a client sees that has alice's token.
async fn seen(status: StatusCode, body: &Value, is_revoked: bool) -> Seen {
    let body = body.to_string();
    let gateway = upstream(Router::new().fallback(async move || (status, body.clone())))
        .await
        .unwrap();
    let token = Token::new(
        "a.b.c".to_owned(),
        "alice",
        Instant::now(),
        Duration::from_mins(1),
    );
    if is_revoked {
        token.is_ordered_revoked();
        token.is_answered_revoked();
    }
    let load = TokenLoad::start(gateway.address, 1, &[]);
    load.take_up(&token);
    load.await_answers(3).await.unwrap();
    load.stop().await.unwrap()
}

fn whole(subject: &str) -> Value {
    let hops = ["a", "b", "c"].map(|hop| json!({"service": hop, "item": {"name": subject}}));
    json!({"id": "1", "hops": hops})
}
