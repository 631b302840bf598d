//! Which public keys may verify anything: one refusal, one test.

use serde_json::{Value, json};
use servicechain_keys::{Algorithm, Found, Jwk, KeyRefusal, KeySet, base64url};

use crate::fixtures::{ED25519, ES256, RS256, object};

/// The RSA key of RFC 7638 section 3.1.
pub(crate) const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn parse(value: Value) -> Result<Jwk, KeyRefusal> {
    Jwk::parse(&object(value), &Algorithm::ALL)
}

fn rsa(n: &[u8], e: &[u8]) -> Result<Jwk, KeyRefusal> {
    parse(json!({"kty": "RSA", "alg": "RS256", "n": base64url::encode(n), "e": base64url::encode(e)}))
}

fn modulus() -> Vec<u8> {
    base64url::decode(RFC7638_N).unwrap()
}

#[test]
fn rsa_modulus_has_2048_to_8192_bits_and_is_odd() {
    assert!(rsa(&modulus(), &[1, 0, 1]).is_ok());
    assert_eq!(
        rsa(&modulus()[..128], &[1, 0, 1]).unwrap_err(),
        KeyRefusal::Member("n")
    );
    let mut short = modulus()[..128].to_vec();
    short[127] |= 1;
    assert_eq!(rsa(&short, &[1, 0, 1]).unwrap_err(), KeyRefusal::RsaTooSmall);
    let mut just_short = modulus();
    just_short[0] = 0x7f;
    assert_eq!(rsa(&just_short, &[1, 0, 1]).unwrap_err(), KeyRefusal::RsaTooSmall);
    let mut long = vec![0xff; 1025];
    long[0] = 1;
    assert_eq!(rsa(&long, &[1, 0, 1]).unwrap_err(), KeyRefusal::RsaTooLarge);
    let padded = [&[0], modulus().as_slice()].concat();
    assert_eq!(rsa(&padded, &[1, 0, 1]).unwrap_err(), KeyRefusal::Member("n"));
    assert_eq!(rsa(&[], &[1, 0, 1]).unwrap_err(), KeyRefusal::Member("n"));
}

#[test]
fn rsa_exponent_is_odd_and_at_least_65537() {
    for e in [
        &[1][..],
        &[3],
        &[17],
        &[1, 0, 0],
        &[1, 0, 2],
        &[0xff, 0xff],
        &[1, 0, 0, 0, 1],
        &[0xff; 256],
    ] {
        assert_eq!(rsa(&modulus(), e).unwrap_err(), KeyRefusal::RsaExponent, "{e:?}");
    }
    assert_eq!(
        rsa(&modulus(), &[0, 1, 0, 1]).unwrap_err(),
        KeyRefusal::Member("e")
    );
    assert_eq!(rsa(&modulus(), &[]).unwrap_err(), KeyRefusal::Member("e"));
    assert!(rsa(&modulus(), &[1, 0, 3]).is_ok());
}

#[test]
fn rsa_key_with_the_roca_fingerprint_is_refused() {
    // 65537^k is a power of 65537 modulo every prime, as such keys are; k = 130 gives 2081 bits.
    let mut power: Vec<u8> = vec![1];
    for _ in 0..130 {
        let mut next = [power.as_slice(), &[0, 0]].concat();
        let mut carry = 0_u16;
        for (index, digit) in power.iter().rev().chain(&[0, 0]).enumerate() {
            let at = next.len() - 1 - index;
            let sum = u16::from(next[at]) + u16::from(*digit) + carry;
            next[at] = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        power = next;
    }
    assert_eq!(rsa(&power, &[1, 0, 1]).unwrap_err(), KeyRefusal::Roca);
}

#[test]
fn point_off_its_curve_or_on_another_is_refused() {
    let mut jwk = ES256.public_jwk().to_members();
    jwk.insert("y".to_owned(), jwk["x"].clone());
    assert_eq!(parse(jwk.clone().into()).unwrap_err(), KeyRefusal::NotOnCurve);
    jwk.insert("x".to_owned(), json!(base64url::encode([0; 32])));
    jwk.insert("y".to_owned(), json!(base64url::encode([0; 32])));
    assert_eq!(parse(jwk.clone().into()).unwrap_err(), KeyRefusal::NotOnCurve);
    jwk.insert("x".to_owned(), json!(base64url::encode([1; 31])));
    assert_eq!(parse(jwk.clone().into()).unwrap_err(), KeyRefusal::Member("x, y"));
    jwk.insert("crv".to_owned(), json!("secp256k1"));
    assert_eq!(parse(jwk.into()).unwrap_err(), KeyRefusal::UnknownType);
}

#[test]
fn small_order_ed25519_point_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    let mut order_4_negative = [0; 32];
    order_4_negative[31] = 0x80;
    for point in [identity, [0; 32], minus_one, order_4_negative] {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(point)});
        assert_eq!(parse(jwk).unwrap_err(), KeyRefusal::NotOnCurve);
    }
    let x25519 = json!({"kty": "OKP", "crv": "X25519", "x": base64url::encode([9; 32])});
    assert_eq!(parse(x25519).unwrap_err(), KeyRefusal::UnknownType);
}

#[test]
fn key_for_another_use_is_left_out() {
    for (member, value) in [
        ("use", json!("enc")),
        ("use", json!("")),
        ("key_ops", json!(["encrypt", "wrapKey"])),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!([])),
    ] {
        let mut jwk = ES256.public_jwk().to_members();
        jwk.insert(member.to_owned(), value);
        assert_eq!(
            parse(jwk.into()).unwrap_err(),
            KeyRefusal::NotForSignatures,
            "{member}"
        );
    }
    let mut both = ES256.public_jwk().to_members();
    both.insert("key_ops".to_owned(), json!(["verify", "sign"]));
    assert!(parse(both.into()).is_ok());
}

#[test]
fn symmetric_and_private_keys_are_refused() {
    assert_eq!(
        parse(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"})).unwrap_err(),
        KeyRefusal::Symmetric
    );
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let mut jwk = RS256.public_jwk().to_members();
        jwk.insert(member.to_owned(), json!("AQAB"));
        assert_eq!(parse(jwk.into()).unwrap_err(), KeyRefusal::Private, "{member}");
    }
}

#[test]
fn missing_alg_is_derived_only_where_type_and_curve_leave_one_choice() {
    let without_alg = |jwk: &Jwk| {
        let mut members = jwk.to_members();
        members.remove("alg");
        members
    };
    assert_eq!(
        parse(without_alg(ES256.public_jwk()).into()).unwrap().algorithm(),
        Algorithm::ES256
    );
    assert_eq!(
        parse(without_alg(ED25519.public_jwk()).into())
            .unwrap()
            .algorithm(),
        Algorithm::EdDSA
    );
    let rsa = without_alg(RS256.public_jwk());
    assert_eq!(
        Jwk::parse(&rsa, &Algorithm::ALL).unwrap_err(),
        KeyRefusal::AlgorithmNotPinned
    );
    assert_eq!(
        Jwk::parse(&rsa, &[Algorithm::ES256]).unwrap_err(),
        KeyRefusal::AlgorithmNotPinned
    );
    let one = [Algorithm::ES256, Algorithm::PS384];
    assert_eq!(Jwk::parse(&rsa, &one).unwrap().algorithm(), Algorithm::PS384);
}

#[test]
fn alg_must_fit_the_key_and_be_allowed() {
    for alg in [
        "ES384", "RS256", "HS256", "none", "es256", "ES256 ", "RSA-OAEP", "",
    ] {
        let mut jwk = ES256.public_jwk().to_members();
        jwk.insert("alg".to_owned(), json!(alg));
        assert_eq!(
            parse(jwk.into()).unwrap_err(),
            KeyRefusal::AlgorithmUnfit,
            "{alg}"
        );
    }
    let refused = Jwk::parse(&ES256.public_jwk().to_members(), &[Algorithm::RS256]).unwrap_err();
    assert_eq!(refused, KeyRefusal::AlgorithmNotAllowed);
    let mut number = ES256.public_jwk().to_members();
    number.insert("alg".to_owned(), json!(256));
    assert_eq!(parse(number.into()).unwrap_err(), KeyRefusal::Member("alg"));
}

#[test]
fn odd_keys_are_left_out_one_by_one_with_their_reasons() {
    let encryption =
        json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc", "n": RFC7638_N, "e": "AQAB"});
    let document = json!({"keys": [encryption, "text", ES256.public_jwk(), {"kid": "empty"}]}).to_string();
    let (keys, refused) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(matches!(
        keys.find(Some(ES256.kid()), Algorithm::ES256),
        Found::Key(_)
    ));
    let reasons: Vec<_> = refused
        .iter()
        .map(|key| (key.index, key.kid.as_deref(), key.reason))
        .collect();
    let expected = [
        (0, Some("enc"), KeyRefusal::NotForSignatures),
        (1, None, KeyRefusal::Member("kty")),
        (3, Some("empty"), KeyRefusal::Member("kty")),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn keys_that_share_a_kid_are_both_left_out() {
    let twin = ED25519.public_jwk().clone().with_kid(ES256.kid());
    let document = json!({"keys": [ES256.public_jwk(), twin, RS256.public_jwk()]}).to_string();
    let (keys, refused) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    assert!(matches!(
        keys.find(Some(ES256.kid()), Algorithm::ES256),
        Found::UnknownKid
    ));
    assert!(matches!(
        keys.find(Some(RS256.kid()), Algorithm::RS256),
        Found::Key(_)
    ));
    assert!(refused.iter().all(|key| key.reason == KeyRefusal::DuplicateKid));
    assert_eq!(refused.len(), 2);
}

#[test]
fn more_keys_than_an_issuer_may_have_are_left_out() {
    let many: Vec<Jwk> = (0..34)
        .map(|n| ES256.public_jwk().clone().with_kid(n.to_string()))
        .collect();
    let document = json!({"keys": many}).to_string();
    let (keys, refused) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(keys.len(), 32);
    assert!(refused.iter().all(|key| key.reason == KeyRefusal::TooMany));
    assert_eq!(refused.len(), 2);
}

#[test]
fn document_that_is_no_key_set_is_an_error_and_not_an_empty_set() {
    let duplicate = br#"{"keys":[],"keys":[]}"#;
    let huge = vec![b' '; 600 * 1024];
    for document in [
        &b""[..],
        b"[]",
        b"{}",
        b"{\"keys\":{}}",
        b"<html>",
        duplicate,
        &huge,
    ] {
        assert!(KeySet::from_jwks(document, &Algorithm::ALL).is_err());
    }
    let (keys, _) = KeySet::from_jwks(b"{\"keys\":[]}", &Algorithm::ALL).unwrap();
    assert!(matches!(keys.find(Some("a"), Algorithm::ES256), Found::Empty));
}

#[test]
fn key_without_kid_in_the_token_is_found_only_if_exactly_one_fits() {
    let document = json!({"keys": [ES256.public_jwk(), ED25519.public_jwk()]}).to_string();
    let (keys, _) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    assert!(matches!(keys.find(None, Algorithm::ES256), Found::Key(key) if key.kid() == Some(ES256.kid())));
    assert!(matches!(
        keys.find(None, Algorithm::RS256),
        Found::AlgorithmMismatch
    ));
    let twin = ES256.public_jwk().clone().with_kid("twin");
    let document = json!({"keys": [ES256.public_jwk(), twin]}).to_string();
    let (keys, _) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    assert!(matches!(keys.find(None, Algorithm::ES256), Found::Ambiguous));
}

#[test]
fn kid_is_compared_exactly_whatever_it_looks_like() {
    let document = json!({"keys": [ES256.public_jwk().clone().with_kid("../../k1")]}).to_string();
    let (keys, _) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    for kid in [
        "k1",
        "../../K1",
        "' OR 1=1 --",
        "../../k1\0",
        " ../../k1",
        "",
        ".*",
    ] {
        assert!(
            matches!(keys.find(Some(kid), Algorithm::ES256), Found::UnknownKid),
            "{kid:?}"
        );
    }
    assert!(matches!(
        keys.find(Some("../../k1"), Algorithm::ES256),
        Found::Key(_)
    ));
    let mut long = ES256.public_jwk().to_members();
    long.insert("kid".to_owned(), json!("k".repeat(257)));
    assert_eq!(parse(long.into()).unwrap_err(), KeyRefusal::Kid);
}

#[test]
fn algorithm_of_the_token_never_chooses_the_algorithm_of_the_key() {
    let document = json!({"keys": [RS256.public_jwk()]}).to_string();
    let (keys, _) = KeySet::from_jwks(document.as_bytes(), &Algorithm::ALL).unwrap();
    for algorithm in Algorithm::ALL
        .into_iter()
        .filter(|algorithm| *algorithm != Algorithm::RS256)
    {
        assert!(
            matches!(keys.find(Some(RS256.kid()), algorithm), Found::AlgorithmMismatch),
            "{algorithm}"
        );
    }
}

#[test]
fn jwk_survives_its_own_spelling() {
    for key in [&*ES256, &*ED25519, &*RS256] {
        let jwk = key.public_jwk();
        let text = serde_json::to_string(jwk).unwrap();
        assert_eq!(&serde_json::from_str::<Jwk>(&text).unwrap(), jwk);
        assert!(!format!("{key:?}").contains("\"d\""));
    }
}
