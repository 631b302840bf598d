//! What is open for a caller is judged again at every bundle, before the pod acknowledges it.

use std::sync::Arc;
use std::time::Duration;

use servicechain_auth::Judged;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_keys::{Bundle, Generation, NumericDate, Outcome, Revocation, RevocationKind, ShortDigest};

use crate::keys_endpoint::Pod;

/// The next bundle, which revokes this subject's tokens so far.
fn revoking(chain: &Specimen, subject: &str) -> Bundle {
    let mut bundle = chain.bundle();
    bundle.generation = Generation::new(2);
    bundle.revocations = vec![Revocation {
        issuer: bundle.issuers[0].name.clone(),
        kind: RevocationKind::Sub,
        digest: ShortDigest::of(subject),
        issued_before: NumericDate::from_seconds(chain.now().as_seconds()),
        expires: None,
    }];
    bundle
}

#[tokio::test]
async fn a_generation_is_acknowledged_once_everybody_who_keeps_something_open_has_judged_by_it() {
    let pod = Pod::start().await;
    let mut prompt = pod.verifier.follow();
    let mut slow = pod.verifier.follow();
    drop(pod.verifier.follow());
    let bundle = pod.generation(1);
    let (push, ()) = tokio::join!(pod.push(bundle.bytes()), async {
        let generation = prompt.newer().await;
        assert_eq!(generation, Generation::new(1));
        prompt.judged(generation);
    });
    let (_, answer) = push;
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert!(!answer.durable, "one of them still serves by what was before");
    let judged = slow.newer().await;
    slow.judged(judged);
    let (_, again) = pod.push(bundle.bytes()).await;
    assert_eq!((again.outcome, again.durable), (Outcome::Unchanged, true));
    // Who is gone keeps nothing open.
    drop(slow);
    prompt.judged(Generation::new(2));
    let (_, later) = pod.push(pod.generation(2).bytes()).await;
    assert!(later.durable);
}

#[tokio::test]
async fn who_is_still_good_is_told_by_the_newest_bundle_and_the_clock() {
    let chain = Specimen::new();
    let verifier = chain.verifier();
    let Judged::Verified(alice) = verifier.judge(&bearing(&chain.token())) else {
        panic!("a good token");
    };
    assert!(verifier.is_still_good(&alice) && alice.is_in_time(verifier.now()));
    verifier.hold(chain.sign(&revoking(&chain, "bob")));
    assert!(verifier.is_still_good(&alice));
    let mut removed = revoking(&chain, "alice");
    removed.generation = Generation::new(3);
    verifier.hold(chain.sign(&removed));
    assert!(!verifier.is_still_good(&alice));
    let mut keyless = chain.bundle();
    keyless.generation = Generation::new(4);
    keyless.issuers[0].keys.clear();
    verifier.hold(chain.sign(&keyless));
    assert!(!verifier.is_still_good(&alice), "its key is gone");
    let mut again = chain.bundle();
    again.generation = Generation::new(5);
    // Another window, so another verdict; and good all the same.
    again.policy.clock_skew = Duration::from_secs(40);
    verifier.hold(Arc::clone(&chain.sign(&again)));
    assert!(verifier.is_still_good(&alice));
    chain.advance(Duration::from_mins(15) + Duration::from_secs(35));
    assert!(!alice.is_in_time(verifier.now()), "as it was verified");
    assert!(verifier.is_still_good(&alice), "as the newest bundle has it");
}
