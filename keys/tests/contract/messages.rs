//! Answers, knocks and offers: authentic, fresh, and about the pod that was asked.

use serde_json::{Value, json};
use servicechain_keys::acknowledgement::NotAuthentic;
use servicechain_keys::{
    AckKey, Algorithm, Answer, BundleRefusal, ChainId, Fetched, Generation, Held, Knock, KnockAnswer,
    KnockReason, Label, Nonce, NumericDate, Offer, OfferRefusal, Outcome, PodId, RootSecret, SigningKey,
    Workload,
};

use crate::fixtures::{ED25519, ES256, chain, pod, signed};

const NONCE: Nonce = Nonce::new([3; 16]);

fn ack_key(workload: &str) -> AckKey {
    RootSecret::new([9; 32]).ack_key(&chain(), &Workload::new(workload).unwrap())
}

fn answer() -> Answer {
    Answer {
        pod: pod(),
        workload: Workload::new("gateway").unwrap(),
        held: Some(Held::from(&signed(7))),
        outcome: Outcome::Refused,
        reason: Some(BundleRefusal::BadKey),
        durable: true,
        now: NumericDate::from_seconds(1_700_000_000),
        versions: vec![1],
        anchors: vec!["anchor".to_owned()],
        offers: vec![],
        stopped: [("k1".to_owned(), NumericDate::from_seconds(5))].into(),
        refused: [BundleRefusal::Lower].into(),
        unconfirmed: true,
    }
}

fn knock() -> Knock {
    Knock {
        chain: chain(),
        pod: pod(),
        workload: Workload::new("gateway").unwrap(),
        generation: Generation::new(7),
        reason: KnockReason::UnknownKid,
        issuer: Some("platform".to_owned()),
        nonce: NONCE,
        time: NumericDate::from_seconds(1_700_000_000),
    }
}

#[test]
fn answer_opens_for_its_key_nonce_and_pod_only() {
    let key = ack_key("gateway");
    let sealed = answer().seal(&key, &NONCE).unwrap();
    let open =
        |key: &AckKey, nonce: &Nonce, pod: &PodId| Answer::open(&sealed.body, &sealed.mac, key, nonce, pod);
    assert_eq!(open(&key, &NONCE, &pod()).unwrap(), answer());
    assert!(matches!(
        open(&ack_key("a"), &NONCE, &pod()),
        Err(NotAuthentic::Mac(_))
    ));
    assert!(matches!(
        open(&key, &Nonce::new([4; 16]), &pod()),
        Err(NotAuthentic::Mac(_))
    ));
    assert!(matches!(
        open(&key, &NONCE, &PodId::new("pod-2").unwrap()),
        Err(NotAuthentic::Mac(_))
    ));
    let other = [sealed.body.as_slice(), b" "].concat();
    assert!(matches!(
        Answer::open(&other, &sealed.mac, &key, &NONCE, &pod()),
        Err(NotAuthentic::Mac(_))
    ));
    assert_eq!(sealed.mac.to_string().parse(), Ok(sealed.mac));
}

#[test]
fn answer_that_speaks_of_another_pod_is_refused() {
    let key = ack_key("gateway");
    let body = serde_json::to_vec(&Answer {
        pod: PodId::new("pod-2").unwrap(),
        ..answer()
    })
    .unwrap();
    let mac = key.mac(Label::Answer, &NONCE, &pod(), &body);
    assert!(matches!(
        Answer::open(&body, &mac, &key, &NONCE, &pod()),
        Err(NotAuthentic::OtherPod)
    ));
}

#[test]
fn answer_has_the_words_of_the_protocol() {
    let members = serde_json::to_value(answer()).unwrap();
    assert_eq!(members["held"], json!({"gen": 7, "digest": signed_digest()}));
    assert_eq!(members["outcome"], "refused");
    assert_eq!(members["reason"], "bad-key");
    assert_eq!(members["stopped"], json!({"k1": 5}));
    assert_eq!(members["refused"], json!(["lower"]));
    assert!(members.get("offers").is_none());
    for refusal in [
        "wrong-pod",
        "lower",
        "fork",
        "signature",
        "anchor",
        "chain",
        "format",
        "bad-key",
        "too-large",
    ] {
        let parsed: BundleRefusal = serde_json::from_value(json!(refusal)).unwrap();
        assert_eq!(parsed.word(), refusal);
    }
}

fn signed_digest() -> Value {
    // ECDSA keys differ from run to run, so the digest is that of this run's bundle.
    json!(signed(7).digest())
}

#[test]
fn one_messages_code_is_no_code_of_another() {
    let key = ack_key("gateway");
    let sealed = knock().seal(&key).unwrap();
    assert!(Knock::open(&sealed.body, &sealed.mac, &key).is_ok());
    assert!(KnockAnswer::open(&sealed.body, &sealed.mac, &key, &NONCE, &pod()).is_err());
    for label in [Label::Answer, Label::KnockAnswer] {
        assert!(
            key.verify_mac(&sealed.mac, label, &NONCE, &pod(), &sealed.body)
                .is_err()
        );
    }
    // Without lengths, pod "a" with body "b…" and pod "ab" with body "…" would be the same bytes.
    let short = key.mac(Label::Knock, &NONCE, &PodId::new("a").unwrap(), b"bc");
    assert!(
        key.verify_mac(&short, Label::Knock, &NONCE, &PodId::new("ab").unwrap(), b"c")
            .is_err()
    );
}

#[test]
fn knock_and_its_answer_open_for_the_right_key_and_are_small() {
    let key = ack_key("gateway");
    let sealed = knock().seal(&key).unwrap();
    assert_eq!(Knock::open(&sealed.body, &sealed.mac, &key).unwrap(), knock());
    assert!(Knock::open(&sealed.body, &sealed.mac, &ack_key("a")).is_err());
    let answer = KnockAnswer {
        generation: Some(Generation::new(8)),
        fetched: Some(Fetched::New),
        leader: None,
    };
    let sealed = answer.seal(&key, &NONCE, &pod()).unwrap();
    assert_eq!(sealed.body, br#"{"gen":8,"fetched":"new"}"#);
    assert_eq!(
        KnockAnswer::open(&sealed.body, &sealed.mac, &key, &NONCE, &pod()).unwrap(),
        answer
    );
    assert!(KnockAnswer::open(&sealed.body, &sealed.mac, &key, &Nonce::new([0; 16]), &pod()).is_err());
    assert!(matches!(
        Knock::claimed(&[b' '; 1025]),
        Err(NotAuthentic::TooLarge)
    ));
}

#[test]
fn acknowledgement_keys_differ_by_root_chain_and_workload_and_are_not_shown() {
    let text = |root: u8, chain: &str, workload: &str| {
        let key = RootSecret::new([root; 32])
            .ack_key(&ChainId::new(chain).unwrap(), &Workload::new(workload).unwrap());
        key.to_text().to_string()
    };
    let base = text(1, "ab", "c");
    assert_eq!(base, text(1, "ab", "c"));
    for other in [text(2, "ab", "c"), text(1, "a", "bc"), text(1, "ab", "d")] {
        assert_ne!(base, other);
    }
    let key: AckKey = base.parse().unwrap();
    assert!(!format!("{key:?} {:?}", RootSecret::new([1; 32])).contains(&base[..4]));
}

#[test]
fn offer_is_believed_for_its_nonce_chain_pod_and_algorithm_only() {
    let offer = Offer::new(&ES256, &NONCE, &chain(), &pod()).unwrap();
    let jwk = offer.verify(Algorithm::ES256, &NONCE, &chain(), &pod()).unwrap();
    assert_eq!(jwk.kid(), Some(ES256.kid()));
    let other_nonce = Nonce::new([4; 16]);
    let other_chain = ChainId::new("other").unwrap();
    let other_pod = PodId::new("pod-2").unwrap();
    for (nonce, chain, pod) in [
        (&other_nonce, &chain(), &pod()),
        (&NONCE, &other_chain, &pod()),
        (&NONCE, &chain(), &other_pod),
    ] {
        assert_eq!(
            offer.verify(Algorithm::ES256, nonce, chain, pod).unwrap_err(),
            OfferRefusal::Proof
        );
    }
    assert!(matches!(
        offer.verify(Algorithm::EdDSA, &NONCE, &chain(), &pod()),
        Err(OfferRefusal::Key(_))
    ));
}

#[test]
fn offer_of_a_key_under_the_name_of_another_is_refused() {
    let mut offer = Offer::new(&ES256, &NONCE, &chain(), &pod()).unwrap();
    let verify = |offer: &Offer| offer.verify(Algorithm::ES256, &NONCE, &chain(), &pod());
    offer.jwk.insert("kid".to_owned(), json!(ED25519.kid()));
    assert_eq!(verify(&offer), Err(OfferRefusal::Kid));
    // The protocol's proof says nothing of a name: without one it is computed.
    offer.jwk.remove("kid");
    assert_eq!(verify(&offer).unwrap().kid(), Some(ES256.kid()));
}

#[test]
fn offer_of_somebody_elses_key_is_refused() {
    let mine = SigningKey::generate(Algorithm::ES256).unwrap();
    let mut offer = Offer::new(&mine, &NONCE, &chain(), &pod()).unwrap();
    offer.jwk = ES256.public_jwk().to_members();
    assert_eq!(
        offer
            .verify(Algorithm::ES256, &NONCE, &chain(), &pod())
            .unwrap_err(),
        OfferRefusal::Proof
    );
    // A token by the offered key, with the right words in it, proves nothing either.
    let payload = json!({"nonce": NONCE, "chain": chain(), "pod": pod()}).to_string();
    offer.pop = ES256.sign_compact("at+jwt", payload.as_bytes()).unwrap();
    assert_eq!(
        offer
            .verify(Algorithm::ES256, &NONCE, &chain(), &pod())
            .unwrap_err(),
        OfferRefusal::Proof
    );
}

#[test]
fn odd_offer_does_not_hide_the_answer_it_came_in() {
    let key = ack_key("gateway");
    let odd = Offer {
        jwk: [("kty".to_owned(), json!("oct"))].into_iter().collect(),
        pop: String::new(),
    };
    let sealed = Answer {
        offers: vec![odd],
        ..answer()
    }
    .seal(&key, &NONCE)
    .unwrap();
    let opened = Answer::open(&sealed.body, &sealed.mac, &key, &NONCE, &pod()).unwrap();
    assert!(
        opened.offers[0]
            .verify(Algorithm::ES256, &NONCE, &chain(), &pod())
            .is_err()
    );
}
