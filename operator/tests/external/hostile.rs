//! Whatever an issuer answers, the keys that are known of it stay, and nobody hears that a key is unknown on such a word.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use servicechain_keys::SigningKey;
use servicechain_operator::key_controller::state::IssuerProblem;

use super::chain::{Chain, Verdict, external};
use super::provider::{Manner, Provider, jwk, new_key};

/// A good issuer goes bad: what is said of it then, and what it was asked in all.
async fn gone_bad(manner: Manner) -> (IssuerProblem, Provider, Chain) {
    let (provider, known, unseen) = (Provider::start().await, new_key(), new_key());
    provider.publish(&[&known]);
    let chain = Chain::start(&[("corp", external(&provider.url))]).await;
    chain.await_passes(&chain.token(&provider.url, &known)).await;
    provider.publish(&[&known, &unseen]);
    provider.behave(manner);
    let unseen = chain.token(&provider.url, &unseen);
    // The first word may be that of a fetch that had begun before: there was none, so this one is heard.
    assert_eq!(
        chain.present(&unseen).await,
        [Verdict::Unavailable; 2],
        "{manner:?}"
    );
    let standing = chain
        .await_standing("corp", "a problem", |standing| standing.problem.is_some())
        .await;
    assert_eq!(
        chain.present(&chain.token(&provider.url, &known)).await,
        [Verdict::Passes; 2],
        "{manner:?}"
    );
    if manner != Manner::Throttles {
        provider.behave(Manner::Well);
        chain.await_passes(&unseen).await;
        chain
            .await_standing("corp", "no problem", |standing| standing.problem.is_none())
            .await;
    }
    (standing.problem.unwrap(), provider, chain)
}

#[tokio::test]
async fn an_issuer_that_answers_badly_keeps_its_keys_and_is_named() {
    for (manner, says) in [
        (Manner::Garbage, "its key set is no JWKS document"),
        (Manner::Endless, "its answer has more than 64 KiB"),
        (Manner::Broken, "it answers with status 500"),
        (Manner::Empty, "its key set is empty"),
    ] {
        let (problem, ..) = gone_bad(manner).await;
        assert_eq!(problem, IssuerProblem::NotFetched(says.to_owned()));
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_keeps_its_keys_and_is_named() {
    let (problem, ..) = gone_bad(Manner::Silent).await;
    assert_eq!(problem.says(), "it did not answer within 5 s");
}

#[tokio::test]
async fn an_issuer_that_is_away_keeps_its_keys_and_is_named() {
    let (mut provider, known, unseen) = (Provider::start().await, new_key(), new_key());
    provider.publish(&[&known]);
    let chain = Chain::start(&[("corp", external(&provider.url))]).await;
    let (known, unseen) = (
        chain.token(&provider.url, &known),
        chain.token(&provider.url, &unseen),
    );
    chain.await_passes(&known).await;
    provider.stop().await;
    assert_eq!(chain.present(&unseen).await, [Verdict::Unavailable; 2]);
    assert_eq!(chain.present(&known).await, [Verdict::Passes; 2]);
    let standing = chain
        .await_standing("corp", "a problem", |standing| standing.problem.is_some())
        .await;
    let says = "nobody listens at its address".to_owned();
    assert_eq!(standing.problem, Some(IssuerProblem::NotFetched(says)));
    provider.start_again();
    chain.await_refused(&unseen).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (problem, provider, _chain) = gone_bad(Manner::Redirects).await;
    assert!(
        problem.says().starts_with("it redirects elsewhere"),
        "{problem:?}"
    );
    assert_eq!(provider.strayed(), 0);
}

#[tokio::test]
async fn an_issuer_that_wants_to_be_left_alone_is() {
    let (problem, provider, chain) = gone_bad(Manner::Throttles).await;
    assert_eq!(problem.says(), "it answers with status 429");
    let asked = provider.asked();
    for _ in 0..3 {
        let unseen = chain.token(&provider.url, &new_key());
        assert_eq!(chain.present(&unseen).await, [Verdict::Unavailable; 2]);
    }
    assert_eq!(provider.asked(), asked);
}

#[tokio::test]
async fn odd_keys_are_left_out_with_a_reason_and_the_good_one_verifies() {
    let (provider, good, twin) = (Provider::start().await, new_key(), new_key());
    let mut encryption = jwk(&new_key());
    encryption["use"] = "enc".into();
    let mut one_twin = jwk(&twin);
    let mut other_twin = jwk(&new_key());
    one_twin["kid"] = "twin".into();
    other_twin["kid"] = "twin".into();
    let modulus =
        |bytes: usize| servicechain_keys::base64url::encode([vec![0xc3], vec![0x55; bytes - 1]].concat());
    let rsa = |bytes: usize, more: Value| {
        let mut key = json!({"kty": "RSA", "e": "AQAB", "n": modulus(bytes)});
        key.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        key
    };
    provider.publish_as(vec![
        encryption,
        one_twin,
        other_twin,
        rsa(256, json!({"kid": "no-alg"})),
        rsa(128, json!({"kid": "small", "alg": "RS256"})),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "octets"}),
        jwk(&good),
    ]);
    let issuer = json!({"external": {"url": provider.url, "algorithms": ["ES256", "RS256", "PS256"]}});
    let chain = Chain::start(&[("corp", issuer)]).await;
    chain.await_passes(&chain.token(&provider.url, &good)).await;
    let standing = chain
        .await_standing("corp", "reasons", |standing| !standing.refused.is_empty())
        .await;
    let mut refused = standing.refused;
    refused.sort();
    assert_eq!(standing.problem, None);
    assert_eq!(
        refused,
        [
            "key 1 is left out: not for verifying signatures (use or key_ops)",
            "key 2 is left out: another key has the same kid",
            "key 3 is left out: another key has the same kid",
            "key 4 is left out: no alg, and its type allows more than one",
            "key 5 is left out: RSA modulus smaller than 2048 bits",
            "key 6 is left out: a symmetric key in a public key set",
        ]
    );
    let state = chain.controller.state().borrow().clone();
    let kids: Vec<_> = state.entries.iter().map(|entry| entry.kid.as_deref()).collect();
    assert_eq!(kids, [Some(good.kid())]);
}

#[tokio::test]
async fn a_given_key_set_verifies_and_one_that_is_missing_is_named_and_stops_nobody() {
    const URL: &str = "https://partner.example.com";
    let given = |name: &str, url: &str, key: &str| json!({"name": name, "static": {"url": url, "jwks": {"configMapKeyRef": {"name": "keys", "key": key}}}});
    let key: SigningKey = new_key();
    let set = json!({"keys": [jwk(&key)]}).to_string();
    let config_map = Arc::new(Mutex::new(BTreeMap::from([("jwks.json".to_owned(), set)])));
    let issuers = [
        ("partner", given("partner", URL, "jwks.json")),
        ("lost", given("lost", "https://lost.example.com", "lost.json")),
    ];
    let chain = Chain::start_with(&issuers, &config_map).await;
    chain.await_passes(&chain.token(URL, &key)).await;
    let invented = chain.token(URL, &new_key());
    assert_eq!(chain.present(&invented).await, [Verdict::UnknownKey; 2]);
    let lost = chain
        .await_standing("lost", "a problem", |standing| standing.problem.is_some())
        .await;
    let says = "ConfigMap keys does not exist".to_owned();
    assert_eq!(lost.problem, Some(IssuerProblem::MissingConfigMap(says)));
}
