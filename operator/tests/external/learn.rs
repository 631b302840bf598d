//! Keys that an issuer takes up without notice are learned when a token names them, whatever else is named meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::chain::{Chain, Verdict, external, verdict};
use super::provider::{Manner, Provider, new_key};

#[tokio::test]
async fn a_key_taken_up_without_notice_is_learned_and_an_invented_one_refused_on_the_issuers_word() {
    let (provider, first) = (Provider::start().await, new_key());
    provider.publish(&[&first]);
    let chain = Chain::start(&[("corp", external(&provider.url))]).await;
    chain.await_passes(&chain.token(&provider.url, &first)).await;
    for _ in 0..3 {
        let next = new_key();
        provider.publish(&[&next, &first]);
        chain.await_passes(&chain.token(&provider.url, &next)).await;
    }
    let invented = chain.token(&provider.url, &new_key());
    chain.await_refused(&invented).await;
    assert!(provider.unchanged() > 0, "what did not change is not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_keys_are_learned_while_500_invented_ones_a_second_pour_in() {
    const PER_TICK: usize = 25;
    const TICK: Duration = Duration::from_millis(50);

    let (provider, first) = (Provider::start().await, new_key());
    provider.publish(&[&first]);
    let chain = Chain::start(&[("corp", external(&provider.url))]).await;
    chain.await_passes(&chain.token(&provider.url, &first)).await;
    let begun = provider.asked();
    let started = tokio::time::Instant::now();

    let presented = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    let (gateway, count) = (Arc::clone(&chain.verifiers[0]), Arc::clone(&presented));
    let invented: Vec<_> = (0..2_000)
        .map(|_| chain.token(&provider.url, &new_key()))
        .collect();
    flood.spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = JoinSet::new();
        for tokens in invented.chunks(PER_TICK) {
            ticks.tick().await;
            for token in tokens.iter().map(HeaderMap::clone) {
                let (gateway, count) = (Arc::clone(&gateway), Arc::clone(&count));
                requests.spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    verdict(&gateway, &token).await
                });
            }
            while requests.try_join_next().is_some() {}
        }
        let verdicts = requests.join_all().await;
        assert!(!verdicts.contains(&Verdict::Passes));
    });
    let mut known = vec![first];
    for _ in 0..3 {
        known.push(new_key());
        provider.publish(&known.iter().collect::<Vec<_>>());
        let newest = chain.token(&provider.url, known.last().unwrap());
        chain.await_passes(&newest).await;
    }
    for key in &known {
        chain.await_passes(&chain.token(&provider.url, key)).await;
    }
    while let Some(ended) = flood.join_next().await {
        ended.unwrap();
    }
    assert_eq!(presented.load(Ordering::SeqCst), 2_000);
    let (asked, lasted) = (provider.asked() - begun, started.elapsed().as_secs());
    assert!(
        u64::try_from(asked).unwrap() <= lasted + 2,
        "the issuer was asked {asked} times in {lasted} s"
    );
}

#[tokio::test]
async fn an_issuer_that_is_silent_delays_nobody_elses_keys() {
    let (silent, other, key) = (Provider::start().await, Provider::start().await, new_key());
    silent.behave(Manner::Silent);
    other.publish(&[&key]);
    let chain = Chain::start(&[("silent", external(&silent.url)), ("corp", external(&other.url))]).await;
    chain.await_passes(&chain.token(&other.url, &key)).await;
    let asks_the_silent = chain.token(&silent.url, &key);
    let next = new_key();
    other.publish(&[&next]);
    let next = chain.token(&other.url, &next);
    let (verdicts, ()) = tokio::join!(chain.present(&asks_the_silent), chain.await_passes(&next));
    assert_eq!(verdicts, [Verdict::Unavailable; 2], "no key of it is known: 503");
}
