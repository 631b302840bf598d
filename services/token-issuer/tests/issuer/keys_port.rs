//! What the operator hears from an issuer pod.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use servicechain_auth::keys_endpoint::router_with_offers;
use servicechain_auth::{Verifier, VerifierConfig};
use servicechain_keys::{Algorithm, Answer, KeyState, Outcome, RootSecret};
use servicechain_runtime::clock::Clock;
use servicechain_token_issuer::SigningKeys;
use tower::ServiceExt as _;

use crate::fixtures::{NONCE, TRUST_KEY, bundle, config, entry, verifier_config};

#[tokio::test]
async fn answers_carry_offers_that_can_be_staged_and_keys_that_have_stopped() {
    let base = verifier_config(&Clock::system());
    let ack_key = RootSecret::new([1; 32]).ack_key(&base.trust.chain, &base.workload);
    let (chain, pod) = (base.trust.chain.clone(), base.pod.clone());
    let verifier = Verifier::new(VerifierConfig {
        ack_key: Some(ack_key.clone()),
        ..base
    });
    let keys = SigningKeys::start(config(Algorithm::ES256).issuer, Arc::clone(&verifier), None).unwrap();
    let router = router_with_offers(verifier, keys);
    let ask = async |request: http::request::Builder, body: Body| {
        let request = request
            .header("pod-uid", pod.as_str())
            .header("nonce", NONCE.to_string());
        let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let mac = response.headers()["mac"].to_str().unwrap().parse().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer::open(&body, &mac, &ack_key, &NONCE, &pod).unwrap()
    };

    let polled = ask(Request::get("/keys/v1/keys"), Body::empty()).await;
    let offered: Vec<_> = polled
        .offers
        .iter()
        .map(|offer| offer.verify(Algorithm::ES256, &NONCE, &chain, &pod).unwrap())
        .collect();
    assert_eq!(offered.len(), 2);
    assert!(polled.held.is_none() && polled.stopped.is_empty());

    let signed = bundle(1, vec![entry(offered[0].clone(), KeyState::Retiring)])
        .sign(&TRUST_KEY)
        .unwrap();
    let pushed = ask(Request::put("/keys/v1/keys"), signed.bytes().to_vec().into()).await;
    assert_eq!(pushed.outcome, Outcome::Accepted);
    assert_eq!(pushed.held.map(|held| held.digest), Some(signed.digest()));
    assert_eq!(
        pushed.stopped.keys().map(String::as_str).collect::<Vec<_>>(),
        [offered[0].kid().unwrap()]
    );
    assert_eq!(pushed.offers.len(), 1, "the stopped key is offered no more");
}
