//! No token is made that every verifier would refuse from its birth.

use std::sync::Arc;
use std::time::Duration;

use servicechain_auth::{Hop, verify};
use servicechain_keys::{Algorithm, Jwk, KeyState, NumericDate, Revocation, RevocationKind, ShortDigest};

use crate::fixtures::{Pod, START, TRUST_KEY, bundle};

const GRANT: &str = "grant_type=client_credentials";

impl Pod {
    /// The next bundle, which revokes what was issued with this value until `issued_before`.
    fn revoke(&self, kind: RevocationKind, value: &str, issued_before: u64) {
        let generation = self.verifier.generation().number() + 1;
        let mut bundle = bundle(generation, self.offered_as([KeyState::Active, KeyState::Staged]));
        bundle.revocations = vec![Revocation {
            issuer: "platform".to_owned(),
            kind,
            digest: ShortDigest::of(value),
            issued_before: NumericDate::from_seconds(issued_before),
            expires: None,
        }];
        // As a push has it: nothing but the verifier was told yet.
        self.verifier.hold(Arc::new(bundle.sign(&TRUST_KEY).unwrap()));
    }
}

#[tokio::test]
async fn a_revoked_client_gets_no_token_until_one_would_be_good_again() {
    for kind in [RevocationKind::ClientId, RevocationKind::Sub] {
        let pod = Pod::signing(Algorithm::ES256);
        let before = pod.token(GRANT).await;
        pod.revoke(kind, "demo", START + 30);
        let refused = pod.token(GRANT).await;
        assert_eq!(refused.error(), (400, "invalid_grant"), "{kind:?}");
        assert_eq!(refused.headers["retry-after"], "31");
        assert_eq!(
            refused.body["error_description"],
            "tokens of this client that are issued now are revoked; one that is issued in 31 s is not"
        );
        pod.hand.advance(Duration::from_secs(30));
        assert_eq!(pod.token(GRANT).await.error(), (400, "invalid_grant"), "{kind:?}");
        pod.hand.advance(Duration::from_secs(1));
        let after = pod.token(GRANT).await;
        // Exactly what is granted is what every hop takes.
        let held = pod.verifier.held().unwrap();
        let now = NumericDate::from_seconds(pod.now());
        assert!(verify(after.token(), &held, &Hop::new("a"), now).is_ok());
        assert!(verify(before.token(), &held, &Hop::new("a"), now).is_err());
    }
}

#[tokio::test]
async fn who_does_not_know_the_secret_learns_nothing_of_a_revocation() {
    let pod = Pod::signing(Algorithm::ES256);
    pod.revoke(RevocationKind::ClientId, "demo", START + 30);
    let form = format!("{GRANT}&client_id=demo&client_secret=wrong");
    let request = crate::fixtures::token_request().body(form.into()).unwrap();
    assert_eq!(pod.ask(request).await.error(), (401, "invalid_client"));
}

#[tokio::test]
async fn other_clients_and_revocations_of_the_past_change_nothing() {
    for (kind, value, issued_before) in [
        (RevocationKind::ClientId, "demo", START - 1),
        (RevocationKind::Sub, "demo", START - 1),
        (RevocationKind::Issuer, "", START - 1),
        (RevocationKind::ClientId, "other", START + 30),
        (RevocationKind::Sid, "demo", START + 30),
        (RevocationKind::Jti, "demo", START + 30),
        (RevocationKind::Key, "other", START + 30),
    ] {
        let pod = Pod::signing(Algorithm::ES256);
        pod.revoke(kind, value, issued_before);
        let answer = pod.token(GRANT).await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn an_issuer_all_of_whose_tokens_are_revoked_says_when_to_come_again() {
    let pod = Pod::signing(Algorithm::ES256);
    pod.revoke(RevocationKind::Issuer, "", START + 9);
    let refused = pod.token(GRANT).await;
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert_eq!(refused.headers["retry-after"], "10");
    pod.hand.advance(Duration::from_secs(10));
    assert_eq!(pod.token(GRANT).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_revoked_by_name_or_by_thumbprint_signs_nothing_even_where_it_is_called_active() {
    let by_name = |jwk: &Jwk| jwk.kid().unwrap().to_owned();
    let by_thumbprint = |jwk: &Jwk| jwk.thumbprint().to_string();
    for named in [by_name as fn(&Jwk) -> String, by_thumbprint] {
        let pod = Pod::signing(Algorithm::ES256);
        let key = named(&pod.offered()[0]);
        pod.revoke(RevocationKind::Key, &key, 0);
        assert_eq!(pod.token(GRANT).await.error(), (503, "temporarily_unavailable"));
    }
}
