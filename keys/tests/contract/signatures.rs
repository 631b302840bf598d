//! Signatures that are well formed and wrong.

use std::sync::Arc;

use servicechain_keys::{Algorithm, BadSignature, SigningKey, VerificationKey};

use crate::fixtures::{ED25519, ES256, RS256};

fn verifier(key: &SigningKey) -> Arc<VerificationKey> {
    Arc::new(VerificationKey::new(key.public_jwk()))
}

const MESSAGE: &[u8] = b"header.payload";

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    let rsa = RS256.to_pkcs8().unwrap();
    for algorithm in Algorithm::ALL {
        let key = if algorithm.is_rsa() {
            SigningKey::from_pkcs8(algorithm, &rsa).unwrap()
        } else {
            SigningKey::generate(algorithm).unwrap()
        };
        let again = SigningKey::from_pkcs8(algorithm, &key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.kid(), key.kid());
        let signature = again.sign(MESSAGE).unwrap();
        let verifier = verifier(&key);
        assert_eq!(verifier.verify(MESSAGE, &signature), Ok(()), "{algorithm}");
        assert_eq!(
            verifier.verify(b"header.payloae", &signature),
            Err(BadSignature),
            "{algorithm}"
        );
        let mut flipped = signature.clone();
        flipped[20] ^= 1;
        assert_eq!(
            verifier.verify(MESSAGE, &flipped),
            Err(BadSignature),
            "{algorithm}"
        );
        assert_eq!(
            verifier.verify(MESSAGE, &signature[..signature.len() - 1]),
            Err(BadSignature),
            "{algorithm}"
        );
        assert_eq!(
            verifier.verify(MESSAGE, &[signature.as_slice(), &[0]].concat()),
            Err(BadSignature)
        );
        assert_eq!(verifier.verify(MESSAGE, &[]), Err(BadSignature), "{algorithm}");
        assert_eq!(
            verifier.verify(MESSAGE, &vec![0; signature.len()]),
            Err(BadSignature),
            "{algorithm}"
        );
    }
}

#[test]
fn ecdsa_zero_and_group_order_are_no_signature() {
    // The order of P-256 (FIPS 186-4 D.1.2.3), which is zero modulo itself: CVE-2022-21449 in its other spellings.
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let valid = ES256.sign(MESSAGE).unwrap();
    let (r, s) = valid.split_at(32);
    let zero = [0; 32];
    for (r, s) in [
        (&zero[..], &zero[..]),
        (r, &zero),
        (&zero, s),
        (&order, &order),
        (r, &order),
        (&order, s),
    ] {
        assert_eq!(
            verifier(&ES256).verify(MESSAGE, &[r, s].concat()),
            Err(BadSignature)
        );
    }
}

#[test]
fn ecdsa_signature_in_der_is_refused() {
    let valid = ES256.sign(MESSAGE).unwrap();
    let integer = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
    let body = [integer(&valid[..32]), integer(&valid[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
    assert_eq!(verifier(&ES256).verify(MESSAGE, &der), Err(BadSignature));
}

#[test]
fn ed25519_signature_has_one_spelling() {
    // RFC 8032 section 5.1.7: S is below the group order, or a second signature could be made from the first.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10_u8,
    ];
    let mut signature = ED25519.sign(MESSAGE).unwrap();
    assert_eq!(verifier(&ED25519).verify(MESSAGE, &signature), Ok(()));
    let mut carry = 0;
    for (byte, addend) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(addend) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(verifier(&ED25519).verify(MESSAGE, &signature), Err(BadSignature));
}

#[test]
fn pss_and_pkcs1_of_the_same_key_are_not_interchangeable() {
    let pss = SigningKey::from_pkcs8(Algorithm::PS256, &RS256.to_pkcs8().unwrap()).unwrap();
    assert_eq!(
        verifier(&RS256).verify(MESSAGE, &pss.sign(MESSAGE).unwrap()),
        Err(BadSignature)
    );
    assert_eq!(
        verifier(&pss).verify(MESSAGE, &RS256.sign(MESSAGE).unwrap()),
        Err(BadSignature)
    );
}

#[test]
fn private_keys_are_not_shown() {
    for key in [&*ES256, &*ED25519, &*RS256] {
        let shown = format!("{key:?}");
        assert!(
            shown.starts_with("SigningKey { kid: ") && shown.len() < 120,
            "{shown}"
        );
    }
}
