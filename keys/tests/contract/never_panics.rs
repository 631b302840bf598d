//! No byte string makes a parser panic, and no altered bundle is taken.

use proptest::prelude::*;
use serde_json::Value;
use servicechain_keys::{
    AckKey, Algorithm, Answer, CompactJws, Digest, HeldBundle, Jwk, KeySet, Knock, KnockAnswer, Label, Nonce,
    Offer, RootSecret, Taken, TrustAnchor, Workload, base64url, strict_json, take,
};

use crate::fixtures::{chain, object, pod, sign_payload, signed, trust};

const NONCE: Nonce = Nonce::new([3; 16]);

fn ack_key() -> AckKey {
    RootSecret::new([9; 32]).ack_key(&chain(), &Workload::new("gateway").unwrap())
}

/// JSON of any shape, with member names that the parsers know.
fn json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "alg",
        "kid",
        "typ",
        "kty",
        "crv",
        "x",
        "y",
        "n",
        "e",
        "use",
        "key_ops",
        "keys",
        "jwk",
        "v",
        "chain",
        "gen",
        "issuers",
        "policy",
        "revocations",
        "pop",
        "offers",
        "held",
        "a",
    ]);
    let text = prop_oneof![
        "[a-zA-Z0-9_-]{0,60}",
        prop::sample::select(vec![
            "RSA", "EC", "OKP", "oct", "P-256", "P-384", "Ed25519", "ES256", "RS256", "EdDSA", "AQAB"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(|members| Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            )),
        ]
    })
}

fn everything_reads(bytes: &[u8]) {
    let key = ack_key();
    let text = String::from_utf8_lossy(bytes);
    let _ = CompactJws::parse(&text, 8192);
    let _ = strict_json::value(bytes);
    let _ = KeySet::from_jwks(bytes, &Algorithm::ALL);
    let _ = take(Some(&signed(7)), bytes, &trust());
    let _ = Answer::open(
        bytes,
        &key.mac(Label::Answer, &NONCE, &pod(), bytes),
        &key,
        &NONCE,
        &pod(),
    );
    let _ = Knock::claimed(bytes);
    let _ = KnockAnswer::open(
        bytes,
        &key.mac(Label::KnockAnswer, &NONCE, &pod(), bytes),
        &key,
        &NONCE,
        &pod(),
    );
    let _ = (
        text.parse::<Digest>(),
        text.parse::<TrustAnchor>(),
        text.parse::<Nonce>(),
    );
    if let Ok(decoded) = base64url::decode(bytes) {
        assert_eq!(base64url::encode(decoded).as_bytes(), bytes);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        everything_reads(&bytes);
    }

    #[test]
    fn no_json_makes_a_parser_panic(value in json()) {
        let text = value.to_string();
        everything_reads(text.as_bytes());
        let payload = base64url::encode(&text);
        everything_reads(format!("{payload}.{payload}.{payload}").as_bytes());
        let authentic = sign_payload(7, text.as_bytes());
        prop_assert!(HeldBundle::open(authentic.as_bytes(), &trust()).is_err());
        if let Value::Object(members) = value {
            let _ = Jwk::parse(&members, &Algorithm::ALL);
            let offer = Offer { jwk: members, pop: format!("{payload}.{payload}.{payload}") };
            prop_assert!(offer.verify(Algorithm::ES256, &NONCE, &chain(), &pod()).is_err());
        }
    }

    #[test]
    fn strict_json_reads_what_serde_json_wrote(value in json()) {
        let text = value.to_string();
        prop_assert_eq!(strict_json::value(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn selected_members_are_those_of_the_whole_object(text in "[{}\\[\\],:\"a-c0-2 ]{0,24}", value in json()) {
        for bytes in [text.as_bytes(), value.to_string().as_bytes()] {
            let selected = strict_json::select(bytes, &["a", "kid"]).ok();
            let whole = strict_json::object(bytes).ok();
            prop_assert_eq!(selected, whole.map(|whole| ["a", "kid"].map(|name| whole.get(name).cloned())));
        }
    }

    #[test]
    fn no_altered_bundle_is_taken(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let original = signed(7);
        let mut bytes = original.bytes().to_vec();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let taken = take(None, &bytes, &trust());
        prop_assert_eq!(matches!(taken, Taken::Accepted(_)), bytes.as_slice() == &original.bytes()[..]);
    }

    #[test]
    fn no_member_of_a_key_makes_it_panic(name in "[a-z]{1,7}|kty|crv|x|y|n|e", value in json()) {
        let mut jwk = object(serde_json::to_value(crate::fixtures::ES256.public_jwk()).unwrap());
        jwk.insert(name, value);
        let _ = Jwk::parse(&jwk, &Algorithm::ALL);
    }
}
