//! A key that its issuer no longer publishes is kept for its grace, and then goes.

use std::time::Duration;

use servicechain_keys::KeyState as State;

use super::chain::{Chain, Verdict, external};
use super::provider::{Provider, new_key};

#[tokio::test]
async fn a_dropped_key_is_withdrawn_and_refused_once_its_grace_is_over() {
    let (provider, dropped, kept) = (Provider::start().await, new_key(), new_key());
    provider.publish(&[&dropped, &kept]);
    let chain = Chain::start(&[("corp", external(&provider.url))]).await;
    let (by_dropped, by_kept) = (
        chain.token(&provider.url, &dropped),
        chain.token(&provider.url, &kept),
    );
    chain.await_passes(&by_dropped).await;

    provider.publish(&[&kept]);
    // Whoever names an unknown key has the issuer asked.
    let verdicts = chain.present(&chain.token(&provider.url, &new_key())).await;
    assert!(!verdicts.contains(&Verdict::Passes));
    let is_withdrawn = |kid: &str, state: State| {
        let kid = kid.to_owned();
        move |keys: &servicechain_operator::key_controller::KeyState| {
            let mut entries = keys.entries.iter();
            let entry = entries.find(|entry| entry.kid.as_deref() == Some(kid.as_str()));
            keys.in_sync && entry.is_some_and(|entry| entry.state == state)
        }
    };
    chain
        .await_state("a withdrawn key", is_withdrawn(dropped.kid(), State::Withdrawn))
        .await;
    assert_eq!(chain.present(&by_dropped).await, [Verdict::Passes; 2]);

    // One that comes back is as good as before.
    provider.publish(&[&kept, &dropped]);
    let _ = chain.present(&chain.token(&provider.url, &new_key())).await;
    chain
        .await_state("the key again", is_withdrawn(dropped.kid(), State::Active))
        .await;
    provider.publish(&[&kept]);
    let _ = chain.present(&chain.token(&provider.url, &new_key())).await;
    chain
        .await_state("a withdrawn key", is_withdrawn(dropped.kid(), State::Withdrawn))
        .await;

    chain.advance(Duration::from_mins(10));
    chain
        .await_state("the key to go", |keys| {
            let mut entries = keys.entries.iter();
            keys.in_sync && entries.all(|entry| entry.kid.as_deref() != Some(dropped.kid()))
        })
        .await;
    chain.await_refused(&by_dropped).await;
    assert_eq!(chain.present(&by_kept).await, [Verdict::Passes; 2]);
}
