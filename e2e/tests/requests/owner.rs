//! Items belong to the pair of issuer and subject: the same name elsewhere is somebody else.

use serde_json::json;

use crate::{at_a, chain, read, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_of_two_issuers_never_see_each_others_items_warm_cache_included() {
    let chain = chain().await;
    let (ours, theirs) = (chain.keys.token("alice"), chain.keys.partner_token("alice"));
    assert_eq!(
        write(&chain, "1", &ours, r#"{"of":"platform"}"#).await.status,
        201
    );
    // Now the cache is warm with it.
    for _ in 0..2 {
        let answer = read(&chain, "1", &ours).await;
        assert_eq!(at_a(&answer, "source"), "cache");
    }
    for _ in 0..2 {
        let answer = read(&chain, "1", &theirs).await;
        assert_eq!(answer.status, 404);
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("platform"),
            "{answer:?}"
        );
    }
    assert_eq!(
        write(&chain, "1", &theirs, r#"{"of":"partner"}"#).await.status,
        201
    );
    for (token, of) in [(&ours, "platform"), (&theirs, "partner"), (&ours, "platform")] {
        let answer = read(&chain, "1", token).await;
        assert_eq!(at_a(&answer, "item"), json!({"of": of}));
        assert_eq!(at_a(&answer, "source"), "cache");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_of_one_issuer_never_see_each_others_items() {
    let chain = chain().await;
    assert_eq!(
        write(&chain, "1", &chain.keys.token("alice"), r#"{"of":"alice"}"#)
            .await
            .status,
        201
    );
    assert_eq!(read(&chain, "1", &chain.keys.token("bob")).await.status, 404);
}
