//! The order and the words of the key protocol's line 16.

use std::time::Duration;

use serde_json::{Value, json};
use servicechain_keys::bundle::{MAX_BUNDLE_BYTES, MAX_REVOCATIONS};
use servicechain_keys::{
    Algorithm, BundleRefusal, ChainId, Digest, Found, HeldBundle, KeyState, NumericDate, Revocation,
    RevocationKind, ShortDigest, SignError, SigningKey, Taken, Trust, TrustKey, take,
};

use crate::fixtures::{
    CHAIN, ED25519, ES256, TRUST_KEY, bundle, chain, header, issuer, issuer_key, sign_payload,
    sign_with_header, signed, trust,
};

fn refusal(held: Option<&HeldBundle>, bytes: &[u8]) -> BundleRefusal {
    match take(held, bytes, &trust()) {
        Taken::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn signed_bundle_is_taken_and_its_keys_verify() {
    let signed = signed(7);
    let Taken::Accepted(held) = take(None, signed.bytes(), &trust()) else {
        panic!("refused")
    };
    assert_eq!(held.bundle(), &bundle(7));
    assert_eq!(held.digest(), Digest::of(signed.bytes()));
    assert!(held.digest().to_string().starts_with("sha256:"));
    assert_eq!(held.digest().to_string().parse(), Ok(held.digest()));
    let issuer = held.issuer("https://platform.example").unwrap();
    let Found::Key(key) = issuer.keys.find(Some(ES256.kid()), Algorithm::ES256) else {
        panic!("no key")
    };
    assert_eq!(key.verify(b"message", &ES256.sign(b"message").unwrap()), Ok(()));
    assert_eq!(key.max_lifetime(), Some(Duration::from_mins(15)));
}

#[test]
fn issuer_is_found_by_the_exact_iss_only() {
    let held = signed(7);
    for iss in [
        "https://platform.example/",
        "https://PLATFORM.example",
        "https://platform",
        " https://platform.example",
        "",
    ] {
        assert!(held.issuer(iss).is_none(), "{iss:?}");
    }
}

#[test]
fn higher_generation_replaces_and_the_same_bytes_change_nothing() {
    let held = signed(7);
    assert!(
        matches!(take(Some(&held), signed(8).bytes(), &trust()), Taken::Accepted(new) if new.generation().number() == 8)
    );
    assert!(matches!(
        take(Some(&held), held.bytes(), &trust()),
        Taken::Unchanged
    ));
}

#[test]
fn lower_generation_is_refused_before_its_signature_is_looked_at() {
    let held = signed(7);
    let mut unsigned = signed(6).bytes().to_vec();
    let last = unsigned.len() - 2;
    unsigned[last] = if unsigned[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(refusal(Some(&held), signed(6).bytes()), BundleRefusal::Lower);
    assert_eq!(refusal(Some(&held), &unsigned), BundleRefusal::Lower);
}

#[test]
fn other_content_of_the_held_generation_is_a_fork_only_if_it_is_authentic() {
    let held = signed(7);
    let mut other = bundle(7);
    other.issued_at = other.issued_at.plus(Duration::from_secs(1));
    let fork = other.sign(&TRUST_KEY).unwrap();
    assert_eq!(refusal(Some(&held), fork.bytes()), BundleRefusal::Fork);
    let mut forged = fork.bytes().to_vec();
    let at = forged.iter().rposition(|byte| *byte == b'.').unwrap() + 3;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    assert_eq!(refusal(Some(&held), &forged), BundleRefusal::Signature);
}

#[test]
fn bundle_of_another_chain_or_signer_is_refused() {
    let signed = signed(7);
    let elsewhere = Trust::new(ChainId::new("other").unwrap(), vec![TRUST_KEY.anchor().clone()]);
    assert_eq!(
        HeldBundle::open(signed.bytes(), &elsewhere).unwrap_err(),
        BundleRefusal::Chain
    );
    let stranger = TrustKey::from_seed(&[8; 32]).unwrap();
    let foreign = bundle(7).sign(&stranger).unwrap();
    assert_eq!(refusal(None, foreign.bytes()), BundleRefusal::Anchor);
    // Both anchors are good while the trust key is being replaced.
    let both = Trust::new(
        chain(),
        vec![TRUST_KEY.anchor().clone(), stranger.anchor().clone()],
    );
    assert!(HeldBundle::open(foreign.bytes(), &both).is_ok());
    assert!(HeldBundle::open(signed.bytes(), &both).is_ok());
}

#[test]
fn stranger_who_claims_the_anchors_kid_is_refused_by_signature() {
    let key = SigningKey::generate(Algorithm::EdDSA).unwrap();
    let payload = serde_json::to_vec(&bundle(7)).unwrap();
    let forged = key.sign_compact_with(&header(7), &payload).unwrap();
    assert_eq!(refusal(None, forged.as_bytes()), BundleRefusal::Signature);
}

#[test]
fn token_signed_by_the_trust_key_is_no_bundle_and_other_headers_are_refused() {
    let payload = serde_json::to_vec(&bundle(7)).unwrap();
    for (member, value) in [
        ("typ", json!("at+jwt")),
        ("typ", Value::Null),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("crit", json!(["exp"])),
        ("jwk", json!({})),
        ("gen", json!("7")),
        ("gen", json!(-7)),
        ("gen", json!(7.0)),
        ("chain", json!(7)),
        ("kid", json!(null)),
    ] {
        let mut header = header(7);
        header.insert(member.to_owned(), value);
        let signed = sign_with_header(&header, &payload);
        assert_eq!(
            refusal(None, signed.as_bytes()),
            BundleRefusal::Format,
            "{member}"
        );
    }
}

#[test]
fn payload_must_say_what_the_header_says() {
    let payload = serde_json::to_vec(&bundle(8)).unwrap();
    assert_eq!(
        refusal(None, sign_payload(7, &payload).as_bytes()),
        BundleRefusal::Format
    );
    let mut other = bundle(7);
    other.chain = ChainId::new("other").unwrap();
    let payload = serde_json::to_vec(&other).unwrap();
    assert_eq!(
        refusal(None, sign_payload(7, &payload).as_bytes()),
        BundleRefusal::Format
    );
}

#[test]
fn content_that_would_be_misread_is_refused() {
    let good = serde_json::to_value(bundle(7)).unwrap();
    let mut other_version = good.clone();
    other_version["v"] = json!(2);
    let mut must_understand = good.clone();
    must_understand["crit"] = json!(["dpop"]);
    let mut twice = good.clone();
    twice["issuers"] = json!([good["issuers"][0], good["issuers"][0]]);
    let mut nameless = good.clone();
    nameless["issuers"][0]["iss"] = json!("");
    let mut unknown_state = good.clone();
    unknown_state["issuers"][0]["keys"][0]["state"] = json!("Sleeping");
    let mut fraction = good.clone();
    fraction["policy"]["clockSkew"] = json!(0.5);
    for bad in [
        other_version,
        must_understand,
        twice,
        nameless,
        unknown_state,
        fraction,
    ] {
        let payload = bad.to_string();
        assert_eq!(
            refusal(None, sign_payload(7, payload.as_bytes()).as_bytes()),
            BundleRefusal::Format,
            "{payload}"
        );
    }
    let duplicate = good.to_string().replacen("\"v\":1", "\"v\":1,\"v\":1", 1);
    assert_eq!(
        refusal(None, sign_payload(7, duplicate.as_bytes()).as_bytes()),
        BundleRefusal::Format
    );
    let mut newer = good;
    newer["later"] = json!({"understood": "by others"});
    assert!(HeldBundle::open(sign_payload(7, newer.to_string().as_bytes()).as_bytes(), &trust()).is_ok());
}

#[test]
fn one_bad_key_refuses_the_whole_bundle() {
    let good = serde_json::to_value(bundle(7)).unwrap();
    let with_jwk = |member: &str, value: Value| {
        let mut bad = good.clone();
        bad["issuers"][0]["keys"][0]["jwk"][member] = value;
        sign_payload(7, bad.to_string().as_bytes())
    };
    for bad in [
        with_jwk("kty", json!("oct")),
        with_jwk("d", json!("AAAA")),
        with_jwk("x", json!("AAAA")),
        with_jwk("alg", json!("HS256")),
        with_jwk("alg", json!("RS256")),
        with_jwk("use", json!("enc")),
        with_jwk("kid", json!("")),
    ] {
        assert_eq!(refusal(None, bad.as_bytes()), BundleRefusal::BadKey);
    }
    let mut nameless = good.clone();
    nameless["issuers"][0]["keys"][0]["jwk"]
        .as_object_mut()
        .unwrap()
        .remove("kid");
    assert_eq!(
        refusal(None, sign_payload(7, nameless.to_string().as_bytes()).as_bytes()),
        BundleRefusal::BadKey
    );
}

#[test]
fn two_keys_of_one_kid_cannot_be_signed_and_of_two_issuers_can() {
    let mut bad = bundle(7);
    let impostor = ED25519.public_jwk().clone().with_kid(ES256.kid());
    bad.issuers[0].keys.push(issuer_key(impostor.clone()));
    assert!(matches!(
        bad.sign(&TRUST_KEY),
        Err(SignError::Refused(BundleRefusal::BadKey))
    ));
    let mut good = bundle(7);
    good.issuers.push(issuer("corp", vec![issuer_key(impostor)]));
    let held = good.sign(&TRUST_KEY).unwrap();
    let of = |iss: &str| match held
        .issuer(iss)
        .unwrap()
        .keys
        .find(Some(ES256.kid()), Algorithm::ES256)
    {
        Found::Key(key) => Some(key.thumbprint()),
        _ => None,
    };
    assert_eq!(
        of("https://platform.example"),
        Some(ES256.public_jwk().thumbprint())
    );
    assert_eq!(of("https://corp.example"), None);
}

#[test]
fn size_and_counts_are_bounded() {
    assert_eq!(
        refusal(None, &vec![b'a'; MAX_BUNDLE_BYTES + 1]),
        BundleRefusal::TooLarge
    );
    let mut keys = bundle(7);
    let many = (0..33).map(|n| issuer_key(ES256.public_jwk().clone().with_kid(n.to_string())));
    keys.issuers[0].keys = many.collect();
    assert!(matches!(
        keys.sign(&TRUST_KEY),
        Err(SignError::Refused(BundleRefusal::TooLarge))
    ));
    keys.issuers[0].keys.pop();
    assert!(keys.sign(&TRUST_KEY).is_ok());
}

#[test]
fn full_bundle_of_five_thousand_revocations_fits_and_one_more_does_not() {
    let mut full = bundle(7);
    full.revocations = (0..MAX_REVOCATIONS)
        .map(|n| revocation(RevocationKind::Jti, &n.to_string(), 1_700_000_000))
        .collect();
    let held = full.sign(&TRUST_KEY).unwrap();
    let issuer = held.issuer("https://platform.example").unwrap();
    assert!(issuer.revokes(RevocationKind::Jti, "4999", None));
    assert_eq!(held.bundle(), &full);
    full.revocations.push(revocation(RevocationKind::Jti, "5000", 10));
    assert!(matches!(
        full.sign(&TRUST_KEY),
        Err(SignError::Refused(BundleRefusal::TooLarge))
    ));
}

fn revocation(kind: RevocationKind, value: &str, issued_before: u64) -> Revocation {
    Revocation {
        issuer: "platform".to_owned(),
        kind,
        digest: ShortDigest::of(value),
        issued_before: NumericDate::from_seconds(issued_before),
        expires: Some(NumericDate::from_seconds(issued_before + 100)),
    }
}

#[test]
fn revocation_matches_its_kind_value_and_issuer_up_to_its_time() {
    let mut revoking = bundle(7);
    revoking.issuers.push(issuer("corp", vec![]));
    revoking.revocations = vec![
        revocation(RevocationKind::Sub, "mallory", 1000),
        revocation(RevocationKind::Sub, "mallory", 500),
    ];
    let held = revoking.sign(&TRUST_KEY).unwrap();
    let platform = held.issuer("https://platform.example").unwrap();
    let at = |seconds| Some(NumericDate::from_seconds(seconds));
    assert!(platform.revokes(RevocationKind::Sub, "mallory", at(1000)));
    assert!(platform.revokes(RevocationKind::Sub, "mallory", None));
    assert!(!platform.revokes(RevocationKind::Sub, "mallory", at(1001)));
    assert!(!platform.revokes(RevocationKind::Sub, "mallor", at(1)));
    assert!(!platform.revokes(RevocationKind::ClientId, "mallory", at(1)));
    let corp = held.issuer("https://corp.example").unwrap();
    assert!(!corp.revokes(RevocationKind::Sub, "mallory", at(1)));
}

#[test]
fn revocation_of_an_issuer_that_left_the_chain_stops_no_bundle() {
    let mut left_over = bundle(7);
    let of_nobody = revocation(RevocationKind::Sub, "mallory", 1000);
    left_over.revocations = vec![Revocation {
        issuer: "nobody".to_owned(),
        ..of_nobody
    }];
    let held = left_over.sign(&TRUST_KEY).unwrap();
    assert!(!held.issuers()[0].revokes(RevocationKind::Sub, "mallory", None));
}

#[test]
fn withdrawn_key_is_accepted_before_its_end_and_must_have_one() {
    let mut withdrawn = bundle(7);
    withdrawn.issuers[0].keys[0].state = KeyState::Withdrawn;
    assert!(matches!(
        withdrawn.sign(&TRUST_KEY),
        Err(SignError::Refused(BundleRefusal::BadKey))
    ));
    withdrawn.issuers[0].keys[0].until = Some(NumericDate::from_seconds(100));
    let held = withdrawn.sign(&TRUST_KEY).unwrap();
    let key = held.issuers()[0].keys.iter().next().unwrap();
    assert!(key.is_accepted_at(NumericDate::from_seconds(99)));
    assert!(!key.is_accepted_at(NumericDate::from_seconds(100)));
}

#[test]
fn durations_with_a_fraction_are_never_signed() {
    let mut fraction = bundle(7);
    fraction.policy.clock_skew = Duration::from_millis(1500);
    assert!(matches!(fraction.sign(&TRUST_KEY), Err(SignError::Unwritable(_))));
}

#[test]
fn narrower_token_lifetime_wins() {
    let mut bounded = bundle(7);
    bounded.issuers[0].max_token_lifetime = Some(Duration::from_mins(5));
    bounded.issuers.push(issuer("corp", vec![]));
    bounded.issuers[1].max_token_lifetime = Some(Duration::from_hours(240));
    let held = bounded.sign(&TRUST_KEY).unwrap();
    assert_eq!(held.issuers()[0].max_token_lifetime, Duration::from_mins(5));
    assert_eq!(held.issuers()[1].max_token_lifetime, Duration::from_hours(24));
}

#[test]
fn header_and_members_are_those_of_the_protocol() {
    let signed = signed(7);
    let text = std::str::from_utf8(signed.bytes()).unwrap();
    let part = |n: usize| -> Value {
        serde_json::from_slice(
            &servicechain_keys::base64url::decode(text.split('.').nth(n).unwrap()).unwrap(),
        )
        .unwrap()
    };
    let expected = json!({
        "alg": "EdDSA", "typ": "servicechain-bundle+jws", "kid": TRUST_KEY.anchor().kid(), "chain": CHAIN, "gen": 7,
    });
    assert_eq!(part(0), expected);
    let payload = part(1);
    assert_eq!(payload["policy"]["maxTokenLifetime"], json!(86400));
    assert_eq!(payload["issuers"][0]["kind"], json!("managed"));
    assert_eq!(payload["issuers"][0]["state"], json!("Ready"));
    assert_eq!(payload["issuers"][0]["keys"][0]["stagedIn"], json!(1));
    assert_eq!(payload["issuers"][0]["keys"][0]["maxLifetime"], json!(900));
    assert!(payload.get("crit").is_none());
}
