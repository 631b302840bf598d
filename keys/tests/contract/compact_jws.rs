//! Strings that look like tokens and must not be taken for one.

use servicechain_keys::{Algorithm, CompactJws, Malformed, base64url};

use crate::fixtures::{ES256, RS256};

fn token(header: &str) -> String {
    format!(
        "{}.{}.{}",
        base64url::encode(header),
        base64url::encode("{}"),
        base64url::encode([1; 64])
    )
}

fn parse(token: &str) -> Result<CompactJws<'_>, Malformed> {
    CompactJws::parse(token, 8192)
}

#[test]
fn signed_token_parses_into_what_was_signed() {
    let token = ES256.sign_compact("at+jwt", b"{\"sub\":\"a\"}").unwrap();
    let jws = parse(&token).unwrap();
    assert_eq!(jws.header.algorithm, Algorithm::ES256);
    assert_eq!(jws.header.kid.as_deref(), Some(ES256.kid()));
    assert_eq!(jws.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(jws.payload, b"{\"sub\":\"a\"}");
    assert!(token.as_bytes().starts_with(jws.signing_input));
    let shown = format!("{jws:?}");
    assert!(!shown.contains("sub") && !shown.contains("signature"), "{shown}");
}

#[test]
fn alg_none_is_refused_in_any_case() {
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        assert_eq!(parse(&token(&header)).unwrap_err(), Malformed::Unsigned);
        let unsigned = format!("{}.{}.", base64url::encode(&header), base64url::encode("{}"));
        assert_eq!(parse(&unsigned).unwrap_err(), Malformed::Unsigned);
    }
}

#[test]
fn hmac_with_the_public_key_as_secret_is_refused() {
    let secret = serde_json::to_vec(RS256.public_jwk()).unwrap();
    let input = format!(
        "{}.{}",
        base64url::encode(r#"{"alg":"HS256"}"#),
        base64url::encode("{}")
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
    let forged = format!("{input}.{}", base64url::encode(tag));
    assert_eq!(parse(&forged).unwrap_err(), Malformed::SymmetricAlgorithm);
    for alg in ["HS384", "HS512", "hs256"] {
        assert_eq!(
            parse(&token(&format!(r#"{{"alg":"{alg}"}}"#))).unwrap_err(),
            Malformed::SymmetricAlgorithm
        );
    }
}

#[test]
fn unknown_algorithm_is_refused_and_names_are_exact() {
    for alg in [
        "es256",
        " ES256",
        "ES256 ",
        "ES256K",
        "ES.56",
        "RS1",
        "ECDH-ES",
        "",
        "\\u0000none",
    ] {
        assert_eq!(
            parse(&token(&format!(r#"{{"alg":"{alg}"}}"#))).unwrap_err(),
            Malformed::UnknownAlgorithm,
            "{alg}"
        );
    }
    for header in [r#"{"alg":null}"#, r#"{"alg":["ES256"]}"#, r#"{"alg":256}"#, "{}"] {
        assert_eq!(parse(&token(header)).unwrap_err(), Malformed::Parameter("alg"));
    }
}

#[test]
fn header_that_carries_or_points_to_a_key_is_refused() {
    for name in ["crit", "jwk", "x5c", "jku", "x5u", "zip", "b64"] {
        for value in ["[\"exp\"]", "{}", "\"https://attacker.example\"", "null", "false"] {
            let header = format!(r#"{{"alg":"ES256","{name}":{value}}}"#);
            assert_eq!(
                parse(&token(&header)).unwrap_err(),
                Malformed::RefusedParameter(name)
            );
        }
    }
}

#[test]
fn anything_but_three_parts_is_refused() {
    let good = token(r#"{"alg":"ES256"}"#);
    let five = format!(
        "{}.{}.{}.{good}.x",
        base64url::encode(r#"{"alg":"RSA-OAEP","enc":"A128GCM"}"#),
        "a",
        "b"
    );
    let dots = ".".repeat(8000);
    for bad in [
        "",
        ".",
        "a.b",
        &format!("{good}."),
        &format!("{good}.{good}"),
        &five,
        &dots,
    ] {
        assert_eq!(parse(bad).unwrap_err(), Malformed::NotThreeParts);
    }
}

#[test]
fn size_is_bounded_before_anything_is_read() {
    let good = token(r#"{"alg":"ES256"}"#);
    assert!(CompactJws::parse(&good, good.len()).is_ok());
    assert_eq!(
        CompactJws::parse(&good, good.len() - 1).unwrap_err(),
        Malformed::TooLarge
    );
    let long_kid = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(257));
    assert_eq!(parse(&token(&long_kid)).unwrap_err(), Malformed::Parameter("kid"));
}

#[test]
fn base64url_that_is_not_canonical_is_refused_in_each_part() {
    let header = base64url::encode(r#"{"alg":"ES256"}"#);
    // 64 bytes take 86 characters, whose last carries two bits only: "Q" is canonical, "R" spells the same bytes.
    let signature = base64url::encode([1; 64]);
    assert!(signature.ends_with('Q'));
    let stray = format!("{}R", &signature[..signature.len() - 1]);
    for bad in [
        format!("{header}.e30.{stray}"),
        format!("{header}.e30.{signature}=="),
        format!("{header}.e31.{signature}"),
        format!("{header}.e30=.{signature}"),
        format!("{header}=.e30.{signature}"),
        format!("{header} .e30.{signature}"),
        format!("{header}.e30\n.{signature}"),
        format!("{header}.e30.{}", signature.replace('Q', "+")),
        format!(" {header}.e30.{signature}"),
    ] {
        assert_eq!(parse(&bad).unwrap_err(), Malformed::NotBase64url, "{bad}");
    }
}

#[test]
fn blank_signature_is_refused() {
    let header = base64url::encode(r#"{"alg":"ES256"}"#);
    assert_eq!(
        parse(&format!("{header}.e30.")).unwrap_err(),
        Malformed::EmptySignature
    );
}

#[test]
fn header_with_duplicate_members_or_of_another_form_is_refused() {
    let deep = format!(r#"{{"alg":"ES256","a":{}}}"#, "[".repeat(4000));
    for header in [
        r#"{"alg":"ES256","alg":"ES256"}"#,
        r#"{"alg":"ES256","\u0061lg":"none"}"#,
        r#"{"alg":"ES256","a":{"b":1,"b":2}}"#,
        "[]",
        "null",
        "{",
        &deep,
    ] {
        assert_eq!(parse(&token(header)).unwrap_err(), Malformed::Header, "{header}");
    }
    let not_utf8 = format!(
        "{}.e30.AA",
        base64url::encode(b"{\"alg\":\"ES256\",\"kid\":\"\xff\"}")
    );
    assert_eq!(parse(&not_utf8).unwrap_err(), Malformed::Header);
}
