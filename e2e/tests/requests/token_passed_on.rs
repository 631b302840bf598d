//! The client's token arrives at every hop byte for byte, or nothing arrives in its place.

use servicechain_e2e::client::{Connection, get, request};

use crate::{chain, read, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_carries_the_token_byte_for_byte() {
    let chain = chain().await;
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"name":"lamp"}"#).await.status, 201);
    for link in &chain.links {
        link.recorder.clear();
    }
    assert_eq!(read(&chain, "1", &token).await.status, 200);
    let sent = format!("Bearer {token}");
    for link in &chain.links {
        let received = link.recorder.received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].header("authorization"), [sent.as_str()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_carries_one_id_one_trace_and_ever_less_time() {
    let chain = chain().await;
    let bearer = format!("Bearer {}", chain.keys.token("alice"));
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-request-id", "my-request"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        // Only hops may set it: a client's is dropped.
        ("servicechain-remaining-ms", "1"),
    ];
    let ask = request("GET", "/items/1", &headers, "");
    let answer = Connection::open(chain.gateway.address)
        .await
        .unwrap()
        .ask(&ask)
        .await
        .unwrap();
    assert_eq!(answer.status, 404, "{}", answer.head);
    assert_eq!(answer.header("x-request-id"), Some("my-request"));
    let mut spans = vec!["b7ad6b7169203331".to_owned()];
    let mut left = 5001;
    for link in &chain.links {
        let received = link.recorder.received().remove(0);
        assert_eq!(received.header("x-request-id"), ["my-request"]);
        let parent = received.header("traceparent")[0].to_owned();
        assert!(
            parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-01"),
            "{parent}"
        );
        spans.push(parent[36..52].to_owned());
        let remaining = received.header("servicechain-remaining-ms")[0].parse().unwrap();
        assert!(remaining < left, "{remaining} is not less than {left}");
        left = remaining;
    }
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 4, "every hop's call is a span of its own: {spans:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_without_token_carries_no_authorization_header() {
    let chain = chain().await;
    // The route lets it pass, so A has to refuse by itself.
    let answer = get(chain.gateway.address, "/open", None).await.unwrap();
    assert_eq!(answer.status, 401, "{}", answer.head);
    let received = chain.links[0].recorder.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("authorization"), Vec::<&str>::new());
    for link in &chain.links[1..] {
        assert_eq!(link.recorder.received().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_without_token_is_refused_by_each_hop_with_no_error_code() {
    let chain = chain().await;
    for hop in ["gateway", "a", "b", "c"] {
        let (address, links) = chain.hop(hop);
        let answer = get(address, "/items/1", None).await.unwrap();
        assert_eq!(answer.status, 401, "{hop} {}", answer.head);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer") && !challenge.contains("error"),
            "{hop} {challenge}"
        );
        assert!(
            links.iter().all(|link| link.recorder.received().is_empty()),
            "{hop}"
        );
    }
}
