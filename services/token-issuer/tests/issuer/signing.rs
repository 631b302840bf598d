//! Which key signs when: only an own one that the held bundle calls Active, before its end, and never again afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use servicechain_auth::keys_endpoint::Offers as _;
use servicechain_keys::{
    Algorithm, CompactJws, KeyState, NumericDate, Revocation, RevocationKind, ShortDigest, SigningKey,
};

use crate::fixtures::{Pod, START, TRUST_KEY, bundle, entry};

const GRANT: &str = "grant_type=client_credentials";

async fn signer(pod: &Pod) -> String {
    let answer = pod.token(GRANT).await;
    CompactJws::parse(answer.token(), 8192)
        .unwrap()
        .header
        .kid
        .unwrap()
}

async fn refusal(pod: &Pod) -> String {
    let answer = pod.token(GRANT).await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable"));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["cache-control"], "no-store");
    answer.body["error_description"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_is_signed_before_a_key_of_this_pod_is_active() {
    let pod = Pod::start(Algorithm::ES256, None);
    assert!(refusal(&pod).await.contains("no key bundle yet"));
    pod.publish(1, vec![]);
    assert!(refusal(&pod).await.contains("no signing key"));
    let [current, next] = pod
        .offered_as([KeyState::Staged, KeyState::Staged])
        .try_into()
        .unwrap();
    pod.publish(2, vec![current.clone(), next]);
    assert!(refusal(&pod).await.contains("no signing key"));
    let mut of_another = current.clone();
    of_another.state = KeyState::Active;
    of_another.owner = Some("pod-2".parse().unwrap());
    pod.publish(3, vec![of_another]);
    assert!(refusal(&pod).await.contains("no signing key"));
    let mut other_issuer = bundle(4, pod.offered_as([KeyState::Active, KeyState::Staged]));
    other_issuer.issuers[0].iss = "http://other.example".to_owned();
    pod.verifier.hold(other_issuer.sign(&TRUST_KEY).unwrap().into());
    assert!(refusal(&pod).await.contains("does not know this issuer"));
}

#[tokio::test]
async fn rotation_moves_to_the_next_key_and_reports_when_the_last_token_of_the_old_one_expires() {
    let pod = Pod::signing(Algorithm::ES256);
    let [mut old, mut next] = pod
        .offered_as([KeyState::Active, KeyState::Staged])
        .try_into()
        .unwrap();
    assert_eq!(signer(&pod).await, old.jwk.kid().unwrap());
    pod.hand.advance(Duration::from_secs(100));
    assert_eq!(signer(&pod).await, old.jwk.kid().unwrap());
    assert!(pod.keys.stopped().is_empty());

    pod.hand.advance(Duration::from_secs(100));
    old.state = KeyState::Retiring;
    next.state = KeyState::Active;
    pod.publish(2, vec![old.clone(), next.clone()]);
    assert_eq!(signer(&pod).await, next.jwk.kid().unwrap());
    let last = NumericDate::from_seconds(START + 100 + 900);
    assert_eq!(
        pod.keys.stopped(),
        [(old.jwk.kid().unwrap().to_owned(), last)].into()
    );
    let offered = pod.offered();
    assert_eq!(offered.len(), 2);
    assert_eq!(offered[0], next.jwk);
    assert!(offered.iter().all(|jwk| *jwk != old.jwk));

    // Even a bundle that calls it Active once more does not bring it back.
    old.state = KeyState::Active;
    next.state = KeyState::Retiring;
    pod.publish(3, vec![old, next]);
    assert!(refusal(&pod).await.contains("no signing key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_signed_while_its_key_is_stopped_outlives_what_is_reported() {
    for _ in 0..20 {
        let pod = Arc::new(Pod::signing(Algorithm::EdDSA));
        let keys = pod.offered_as([KeyState::Retiring, KeyState::Active]);
        let old = keys[0].jwk.kid().unwrap().to_owned();
        let is_over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (pod, is_over) = (Arc::clone(&pod), Arc::clone(&is_over));
                tokio::spawn(async move {
                    let mut signed = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let answer = pod.token(GRANT).await;
                        let jws = CompactJws::parse(answer.token(), 8192).unwrap();
                        let claims: Value = serde_json::from_slice(&jws.payload).unwrap();
                        signed.push((jws.header.kid.unwrap(), claims["exp"].as_u64().unwrap()));
                        pod.hand.advance(Duration::from_secs(1));
                    }
                    signed
                })
            })
            .collect();
        while pod.now() < START + 40 {
            tokio::task::yield_now().await;
        }
        pod.verifier
            .hold(bundle(2, keys).sign(&TRUST_KEY).unwrap().into());
        let reported = pod.keys.stopped()[&old].as_seconds();
        while pod.now() < reported - 800 {
            tokio::task::yield_now().await;
        }
        is_over.store(true, Ordering::SeqCst);
        let mut last = 0;
        for client in clients {
            let signed = client.await.unwrap();
            last = signed
                .iter()
                .filter(|(kid, _)| *kid == old)
                .map(|(_, exp)| *exp)
                .max()
                .unwrap_or(0)
                .max(last);
        }
        assert!(last > 0 && last <= reported, "{last} {reported}");
    }
}

#[tokio::test]
async fn key_that_signed_nothing_can_be_removed_at_once() {
    let pod = Pod::signing(Algorithm::ES256);
    let keys = pod.offered_as([KeyState::Retiring, KeyState::Active]);
    let kid = keys[0].jwk.kid().unwrap().to_owned();
    pod.publish(2, keys);
    assert_eq!(pod.keys.stopped(), [(kid, NumericDate::from_seconds(0))].into());
    pod.publish(3, vec![]);
    assert!(
        pod.keys.stopped().is_empty(),
        "nobody asks about keys that are in no bundle"
    );
}

#[tokio::test]
async fn removed_or_revoked_key_is_never_used_or_offered_again() {
    let pod = Pod::signing(Algorithm::ES256);
    let [removed, next] = pod
        .offered_as([KeyState::Active, KeyState::Active])
        .try_into()
        .unwrap();
    pod.publish(2, vec![next.clone()]);
    assert_eq!(signer(&pod).await, next.jwk.kid().unwrap());
    assert!(pod.offered().iter().all(|jwk| *jwk != removed.jwk));

    let mut revoking = bundle(3, vec![next.clone()]);
    revoking.revocations = vec![Revocation {
        issuer: "platform".to_owned(),
        kind: RevocationKind::Key,
        digest: ShortDigest::of(next.jwk.kid().unwrap()),
        issued_before: NumericDate::from_seconds(START),
        expires: None,
    }];
    pod.verifier.hold(revoking.sign(&TRUST_KEY).unwrap().into());
    pod.keys.keep_up().unwrap();
    refusal(&pod).await;
    let offered = pod.offered();
    assert_eq!(offered.len(), 2);
    assert!(offered.iter().all(|jwk| *jwk != next.jwk && *jwk != removed.jwk));
}

#[tokio::test]
async fn key_past_its_end_signs_nothing_and_is_not_stopped() {
    let pod = Pod::start(Algorithm::ES256, None);
    let [mut key, next] = pod
        .offered_as([KeyState::Active, KeyState::Staged])
        .try_into()
        .unwrap();
    key.sign_until = Some(NumericDate::from_seconds(START + 10));
    pod.publish(1, vec![key.clone(), next.clone()]);
    pod.hand.advance(Duration::from_secs(9));
    assert_eq!(signer(&pod).await, key.jwk.kid().unwrap());
    pod.hand.advance(Duration::from_secs(1));
    assert!(refusal(&pod).await.contains("passed its end"));
    key.sign_until = Some(NumericDate::from_seconds(START + 1000));
    pod.publish(2, vec![key.clone(), next]);
    assert_eq!(signer(&pod).await, key.jwk.kid().unwrap());
}

#[tokio::test]
async fn token_lives_no_longer_than_its_key_allows() {
    let pod = Pod::start(Algorithm::ES256, None);
    let mut keys = pod.offered_as([KeyState::Active, KeyState::Staged]);
    keys[0].max_lifetime = Duration::from_mins(2);
    pod.publish(1, keys);
    assert_eq!(pod.token(GRANT).await.body["expires_in"], 120);
    let mut bounded = bundle(2, pod.offered_as([KeyState::Active, KeyState::Staged]));
    bounded.issuers[0].max_token_lifetime = Some(Duration::from_mins(1));
    pod.verifier.hold(bounded.sign(&TRUST_KEY).unwrap().into());
    assert_eq!(pod.token(GRANT).await.body["expires_in"], 60);
}

#[tokio::test]
async fn restarted_container_goes_on_with_the_keys_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Some(directory.path().to_owned());
    let pod = Pod::start(Algorithm::EdDSA, keys.clone());
    let [mut current, mut next] = pod
        .offered_as([KeyState::Active, KeyState::Staged])
        .try_into()
        .unwrap();
    pod.publish(1, vec![current.clone(), next.clone()]);
    let kid = signer(&pod).await;
    pod.hand.advance(Duration::from_hours(1));

    let restarted = pod.restart(Algorithm::EdDSA, keys.clone());
    assert_eq!(signer(&restarted).await, kid);
    let sorted = |pod: &Pod| {
        let mut kids: Vec<_> = pod
            .offered()
            .iter()
            .map(|jwk| jwk.kid().unwrap().to_owned())
            .collect();
        kids.sort();
        kids
    };
    assert_eq!(sorted(&restarted), sorted(&pod));
    assert!(restarted.keys.stopped().is_empty());

    // What the earlier run signed is not remembered, so the latest it can have been is reported.
    let again = restarted.restart(Algorithm::EdDSA, keys);
    current.state = KeyState::Retiring;
    next.state = KeyState::Active;
    again.publish(2, vec![current, next]);
    assert_eq!(
        again.keys.stopped(),
        [(kid, NumericDate::from_seconds(START + 3600 + 900))].into()
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn restarted_container_without_its_keys_reports_them_stopped() {
    let pod = Pod::signing(Algorithm::ES256);
    let kids: Vec<_> = pod
        .offered()
        .iter()
        .map(|jwk| jwk.kid().unwrap().to_owned())
        .collect();
    pod.hand.advance(Duration::from_mins(1));
    let restarted = pod.restart(Algorithm::ES256, None);
    refusal(&restarted).await;
    let latest = NumericDate::from_seconds(START + 60 + 900);
    assert_eq!(
        restarted.keys.stopped(),
        kids.iter().map(|kid| (kid.clone(), latest)).collect()
    );
    assert!(
        restarted
            .offered()
            .iter()
            .all(|jwk| !kids.contains(&jwk.kid().unwrap().to_owned()))
    );
}

#[tokio::test]
async fn other_algorithm_after_a_restart_makes_other_keys() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Some(directory.path().to_owned());
    let pod = Pod::start(Algorithm::ES256, keys.clone());
    pod.publish(1, pod.offered_as([KeyState::Active, KeyState::Staged]));
    let restarted = pod.restart(Algorithm::EdDSA, keys);
    assert!(
        restarted
            .offered()
            .iter()
            .all(|jwk| jwk.algorithm() == Algorithm::EdDSA)
    );
    assert_eq!(restarted.offered().len(), 2);
    assert_eq!(restarted.keys.stopped().len(), 2);
}

#[tokio::test]
async fn directory_with_more_keys_than_a_pod_may_have_gives_those_that_the_bundle_names() {
    let directory = tempfile::tempdir().unwrap();
    let pod = Pod::start(Algorithm::ES256, Some(directory.path().to_owned()));
    let named = pod.offered();
    pod.publish(1, pod.offered_as([KeyState::Active, KeyState::Staged]));
    for _ in 0..5 {
        let key = SigningKey::generate(Algorithm::ES256).unwrap();
        let file = directory.path().join(format!("{}.pkcs8", key.kid()));
        std::fs::write(file, &*key.to_pkcs8().unwrap()).unwrap();
    }
    let restarted = pod.restart(Algorithm::ES256, Some(directory.path().to_owned()));
    let offered = restarted.offered();
    assert_eq!(offered.len(), 2);
    assert!(named.iter().all(|jwk| offered.contains(jwk)));
}

#[tokio::test]
async fn revoked_key_in_the_directory_is_not_taken_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Some(directory.path().to_owned());
    let pod = Pod::start(Algorithm::ES256, keys.clone());
    let revoked = pod.offered()[0].clone();
    let mut revoking = bundle(1, vec![entry(pod.offered()[1].clone(), KeyState::Active)]);
    revoking.revocations = vec![Revocation {
        issuer: "platform".to_owned(),
        kind: RevocationKind::Key,
        digest: ShortDigest::of(revoked.kid().unwrap()),
        issued_before: NumericDate::from_seconds(START),
        expires: None,
    }];
    pod.verifier.hold(revoking.sign(&TRUST_KEY).unwrap().into());
    let restarted = pod.restart(Algorithm::ES256, keys);
    assert!(restarted.offered().iter().all(|jwk| *jwk != revoked));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}
