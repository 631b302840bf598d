//! Whoever lies to the key protocol, from beside the chain or from within it: what comes of it, and where people see it.

use std::collections::BTreeMap;

use http::StatusCode;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;
use servicechain_fixtures::await_condition;
use servicechain_keys::{
    Algorithm, Bundle, BundleRefusal, ChainId, Digest, Generation, Held, HeldBundle, Offer, Outcome,
    SigningKey, TrustKey, base64url,
};
use servicechain_operator::key_controller::KeyState;
use servicechain_operator::key_controller::news::KeyEvent;
use servicechain_operator::key_controller::state::Falsehood;
use tokio::sync::broadcast;

use crate::leader::DEADLINE;
use crate::liar::{Liar, push};
use crate::pods::{Cluster, GATEWAY, ISSUER, RunningPod, SERVICE};
use crate::{Shop, kid};

/// The next event of this reason that speaks of `whom`, as people read it.
async fn told(events: &mut broadcast::Receiver<KeyEvent>, reason: &str, whom: &str) -> KeyEvent {
    let told = tokio::time::timeout(DEADLINE, async {
        loop {
            let event = events.recv().await.unwrap();
            if event.reason == reason && event.message.contains(whom) {
                return event;
            }
        }
    });
    told.await.unwrap_or_else(|_| panic!("no {reason} of {whom}"))
}

/// The laggard of that name, as status names it.
async fn await_laggard(shop: &Shop, name: &str, word: &str) -> std::sync::Arc<KeyState> {
    let what = format!("{name} to be called {word}");
    let is_named = |state: &KeyState| {
        let mut laggards = state.laggards.iter();
        laggards.any(|laggard| laggard.name == name && laggard.word() == word)
    };
    shop.leader
        .await_state(&shop.cluster.chain, &what, is_named)
        .await
}

fn active(shop: &Shop) -> Vec<String> {
    kid(&shop.leader.keys.state(&shop.cluster.uid()).unwrap())
}

impl Shop {
    async fn set_of(&self, name: &str) -> ReplicaSet {
        self.cluster.api::<ReplicaSet>().get(name).await.unwrap()
    }

    fn pod(&self, name: &str) -> &RunningPod {
        self.pods.iter().find(|pod| pod.name == name).unwrap()
    }
}

#[tokio::test]
async fn an_offer_by_a_pod_of_a_service_is_refused_and_told() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let before = active(&shop);
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let services = shop.set_of("shop-a").await;
    let scheduled = shop.cluster.schedule("a-offers", SERVICE, &services).await;
    let _liar = Liar::start(&shop.cluster, scheduled, move |answer, nonce, chain| {
        answer.offers = vec![Offer::new(&key, nonce, chain, &answer.pod).unwrap()];
    });
    shop.cluster.say_running("a-offers").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let event = told(&mut events, "OfferRefused", "a-offers").await;
    assert!(
        event.is_warning && event.message.contains("not controlled by a managed issuer"),
        "{event:?}"
    );
    assert_eq!(active(&shop), before);
}

#[tokio::test]
async fn an_offer_under_a_foreign_kid_is_refused_and_told() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let before = active(&shop);
    let (key, foreign) = (SigningKey::generate(Algorithm::ES256).unwrap(), before[0].clone());
    let own = key.kid().to_owned();
    let scheduled = shop.cluster.schedule("issuer-named", ISSUER, &shop.issuers).await;
    let _liar = Liar::start(&shop.cluster, scheduled, move |answer, nonce, chain| {
        let mut offer = Offer::new(&key, nonce, chain, &answer.pod).unwrap();
        offer.jwk.insert("kid".to_owned(), json!(foreign));
        answer.offers = vec![offer];
    });
    shop.cluster.say_running("issuer-named").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let event = told(&mut events, "OfferRefused", "issuer-named").await;
    assert!(
        event.is_warning && event.message.contains("calls itself otherwise"),
        "{event:?}"
    );
    let state = shop.leader.keys.state(&shop.cluster.uid()).unwrap();
    assert_eq!(kid(&state), before);
    let mut entries = state.entries.iter();
    assert!(entries.all(|entry| entry.kid.as_ref() != Some(&own)), "{state:?}");
}

#[tokio::test]
async fn another_pods_key_that_is_offered_again_is_refused_and_told() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let before = active(&shop);
    let held = shop.pods[0].verifier.held().unwrap();
    let issuers = &held.bundle().issuers;
    let theirs = issuers[0].keys[0].jwk.to_members();
    let own = SigningKey::generate(Algorithm::ES256).unwrap();
    let scheduled = shop.cluster.schedule("issuer-thief", ISSUER, &shop.issuers).await;
    let _liar = Liar::start(&shop.cluster, scheduled, move |answer, nonce, chain| {
        let mut offer = Offer::new(&own, nonce, chain, &answer.pod).unwrap();
        offer.jwk.clone_from(&theirs);
        answer.offers = vec![offer];
    });
    shop.cluster.say_running("issuer-thief").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let event = told(&mut events, "OfferRefused", "issuer-thief").await;
    assert!(event.message.contains("proof of possession"), "{event:?}");
    assert_eq!(active(&shop), before);
}

#[tokio::test]
async fn a_pod_whose_address_another_has_acknowledges_nothing_and_is_named() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let services = shop.set_of("shop-a").await;
    let other = shop.cluster.schedule("a-other", SERVICE, &services).await;
    let port = other.port();
    // Its object says where another pod of the same workload listens, with the same key.
    shop.cluster.object("a-gone", SERVICE, &services, port).await;
    let _other = shop.cluster.run(other, &shop.leader).await;
    for name in ["a-other", "a-gone"] {
        shop.cluster.say_running(name).await;
    }
    shop.leader.keys.wake(&shop.cluster.uid());
    let state = await_laggard(&shop, "a-gone", "NotAuthentic").await;
    assert!(!state.pod("a-gone").unwrap().acknowledged && !state.in_sync);
    let event = told(&mut events, "AnswerNotAuthentic", "a-gone").await;
    assert!(event.is_warning, "{event:?}");
    // And the one that has it now says that it was meant for another.
    let event = told(&mut events, "KeysRefused", "a-other").await;
    assert!(
        !event.is_warning && event.message.contains("another pod"),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_forged_acknowledgement_counts_for_nothing_and_is_named() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let gateways = shop.set_of("shop-gateway").await;
    let scheduled = shop.cluster.schedule("gateway-2", GATEWAY, &gateways).await;
    let newest = shop.pods[0].verifier.held().unwrap();
    let held = Held::from(newest.as_ref());
    // All that it says is right, and it has a key of the chain: another workload's.
    let liar = Liar::start_with("a", &shop.cluster, scheduled, move |answer, _, _| {
        answer.held = Some(held);
        answer.durable = true;
    });
    shop.cluster.say_running("gateway-2").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let state = await_laggard(&shop, "gateway-2", "NotAuthentic").await;
    assert_eq!((state.acknowledged, state.verifiers), (4, 5));
    let event = told(&mut events, "AnswerNotAuthentic", "gateway-2").await;
    assert!(event.is_warning, "{event:?}");
    assert!(liar.asked() > 0);
}

#[tokio::test]
async fn a_digest_that_is_a_lie_is_no_acknowledgement_and_is_named() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let services = shop.set_of("shop-a").await;
    let scheduled = shop.cluster.schedule("a-lies", SERVICE, &services).await;
    let liar = Liar::start(&shop.cluster, scheduled, move |answer, _, _| {
        if let Some(held) = &mut answer.held {
            held.digest = Digest::of(b"something else");
        }
        answer.durable = true;
    });
    shop.cluster.say_running("a-lies").await;
    shop.leader.keys.wake(&shop.cluster.uid());
    let state = await_laggard(&shop, "a-lies", "ClaimRefuted").await;
    assert_eq!((state.acknowledged, state.verifiers), (4, 5));
    let event = told(&mut events, "ClaimRefuted", "a-lies").await;
    assert!(event.is_warning, "{event:?}");

    // Nor is anything built on a generation that it cannot show.
    let newest = state.newest.unwrap();
    liar.lie(move |answer, _, _| {
        answer.held = Some(Held {
            generation: Generation::new(1_000_000),
            digest: Digest::of(b"something else"),
        });
        answer.outcome = Outcome::Unchanged;
    });
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let next = shop
        .leader
        .await_state(&shop.cluster.chain, "the next generation", |state| {
            state.newest.is_some_and(|(generation, _)| generation > newest.0) && state.acknowledged == 4
        })
        .await;
    assert_eq!(next.newest.unwrap().0, newest.0.next());
    let falsehood = next.pod("a-lies").unwrap().falsehood;
    assert_eq!(falsehood, Some(Falsehood::Claim));
}

#[tokio::test]
async fn an_old_bundle_that_is_replayed_is_refused_and_told_and_makes_no_fresh_pod_ready() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let old = shop.cluster.bundle().await.unwrap();
    let before = shop.await_in_sync().await.newest.unwrap();
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let newest = shop
        .await_generation("the revocation", before.0.next())
        .await
        .newest
        .unwrap();

    let pod = shop.pod("a-1");
    let refused = push(pod, &old).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(pod.verifier.generation(), newest.0);
    shop.leader.keys.wake(&shop.cluster.uid());
    let event = told(&mut events, "KeysRefused", "a-1").await;
    assert!(event.message.contains("older than the bundle held"), "{event:?}");

    // A pod that holds nothing yet cannot know better, and waits for the operator's word.
    let services = shop.set_of("shop-a").await;
    let scheduled = shop.cluster.schedule("a-fresh", SERVICE, &services).await;
    let fresh = shop
        .cluster
        .run_with(scheduled, shop.leader.knock_address, None)
        .await;
    assert_eq!(push(&fresh, &old).await.status, StatusCode::OK);
    assert_eq!(fresh.verifier.generation(), before.0);
    assert!(!fresh.verifier.is_ready());
    shop.cluster.say_running("a-fresh").await;
    fresh.await_confirmed().await;
    assert_eq!(fresh.verifier.generation(), newest.0);
    assert_eq!(push(&fresh, &old).await.status, StatusCode::CONFLICT);
}

/// Bundles that no pod of the chain may take, each with the reason for which it is refused.
fn forgeries(shop: &Shop) -> Vec<(BundleRefusal, String)> {
    let held = shop.pods[0].verifier.held().unwrap();
    let stranger = TrustKey::from_seed(&[66; 32]).unwrap();
    let text = |bundle: &HeldBundle| String::from_utf8(bundle.bytes().to_vec()).unwrap();
    let next = Bundle {
        generation: held.generation().next(),
        ..held.bundle().clone()
    };
    let by_stranger = text(&next.sign(&stranger).unwrap());
    let of_another_chain = Bundle {
        chain: ChainId::new("another").unwrap(),
        ..next
    };
    // As if by the chain's key: with its name, and the stranger's signature.
    let (header, rest) = by_stranger.split_once('.').unwrap();
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&base64url::decode(header).unwrap()).unwrap();
    header.insert("kid".to_owned(), json!(held.signed_by()));
    let header = base64url::encode(serde_json::to_vec(&header).unwrap());
    vec![
        (BundleRefusal::Signature, format!("{header}.{rest}")),
        (BundleRefusal::Anchor, by_stranger),
        (
            BundleRefusal::Chain,
            text(&of_another_chain.sign(&stranger).unwrap()),
        ),
        (BundleRefusal::Format, "garbage".to_owned()),
    ]
}

#[tokio::test]
async fn bundles_of_another_chain_or_key_are_refused_by_pods_and_told() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let before = shop.await_in_sync().await;
    let pod = shop.pod("gateway-1");
    let forgeries = forgeries(&shop);
    for (reason, forgery) in &forgeries {
        assert_eq!(push(pod, forgery).await.status, StatusCode::CONFLICT, "{reason}");
    }
    shop.leader.keys.wake(&shop.cluster.uid());
    let named = shop
        .leader
        .await_state(&shop.cluster.chain, "all refusals", |state| {
            let refused = &state.pod("gateway-1").unwrap().refused;
            forgeries.iter().all(|(reason, _)| refused.contains(reason))
        })
        .await;
    assert!(named.in_sync && named.newest == before.newest, "{named:?}");
    for _ in &forgeries {
        let event = told(&mut events, "KeysRefused", "gateway-1").await;
        assert!(event.is_warning, "{event:?}");
    }
}

#[tokio::test]
async fn a_config_map_that_is_put_back_or_forged_is_undone_and_told() {
    let shop = Shop::start().await;
    let mut events = shop.leader.keys.events();
    let old = shop.cluster.bundle().await.unwrap();
    let before = shop.await_in_sync().await.newest.unwrap();
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    shop.await_generation("the revocation", before.0.next()).await;
    let newest = shop.cluster.bundle().await.unwrap();
    let forgeries = forgeries(&shop).into_iter();
    let forgeries = forgeries.map(|(reason, forgery)| (forgery, "KeysNotAuthentic", reason.to_string()));
    let put_back = (old, "KeysPutBack", format!("generation {}", before.0));
    for (bundle, reason, says) in forgeries.chain([put_back]) {
        shop.overwrite(|map| {
            map.data = Some(BTreeMap::from([("bundle.jws".to_owned(), bundle.clone())]));
        })
        .await;
        let event = told(&mut events, reason, &says).await;
        assert!(event.is_warning, "{event:?}");
        await_condition("the newest bundle", DEADLINE, async || {
            let stored = shop.cluster.bundle().await;
            (stored.as_ref() == Some(&newest))
                .then_some(())
                .ok_or("another one")
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn keys_that_another_trust_key_signed_are_not_written_over_without_an_order() {
    let cluster = Cluster::new(crate::client().await).await;
    let leader = crate::leader::Leader::start(
        &cluster.client,
        &cluster.roots,
        servicechain_operator::lease::LeaseState::always_held(),
    )
    .await;
    leader.track(&cluster.chain);
    leader
        .await_state(&cluster.chain, "the first bundle", |state| state.newest.is_some())
        .await;
    // Nobody holds it but the ConfigMap, so it is all that is known of the chain.
    let trust = servicechain_keys::Trust::new(ChainId::new(cluster.uid()).unwrap(), cluster.roots.anchors());
    let first = HeldBundle::open(cluster.bundle().await.unwrap().as_bytes(), &trust).unwrap();
    let by_another = first
        .bundle()
        .sign(&TrustKey::from_seed(&[66; 32]).unwrap())
        .unwrap();
    let by_another = String::from_utf8(by_another.bytes().to_vec()).unwrap();
    let maps = cluster.api::<k8s_openapi::api::core::v1::ConfigMap>();
    let mut map = cluster.config_map().await.unwrap();
    map.metadata.resource_version = None;
    map.data = Some(BTreeMap::from([("bundle.jws".to_owned(), by_another.clone())]));
    let params = kube::api::PostParams::default();
    maps.replace("shop-keys", &params, &map).await.unwrap();
    leader.keys.wake(&cluster.uid());
    let state = leader
        .await_state(&cluster.chain, "a problem", |state| state.problem.is_some())
        .await;
    let problem = state.problem.as_ref().unwrap();
    assert!(
        problem.contains("a trust key that this operator does not have"),
        "{problem}"
    );
    assert_eq!(cluster.bundle().await.unwrap(), by_another);
}
