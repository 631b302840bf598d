//! Tokens aimed at whoever parses them: other forms, huge, deep, ambiguous.

use serde_json::{Value, json};
use servicechain_keys::base64url;

use super::{Attack, Target, text, tokens};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(super) fn attacks(target: &Target<'_>) -> Vec<Attack> {
    on_form(target)
        .chain(on_encoding(target))
        .chain(on_json(target))
        .collect()
}

fn on_form(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let good = target.good_token();
    let inside = base64url::encode(target.unsigned("none"));
    let wrap = base64url::encode(r#"{"alg":"RSA-OAEP","enc":"A128GCM","cty":"JWT"}"#);
    let parts = tokens(
        "a token has three parts, and the third is looked at (CVE-2026-29000)",
        "token has not three parts",
        [
            (
                "five parts around an unsigned token",
                [wrap.as_str(), &inside, &inside, &inside, &inside].join("."),
            ),
            (
                "two parts",
                good.rsplit_once('.').map_or("", |(input, _)| input).to_owned(),
            ),
            ("four parts", format!("{good}.{inside}")),
            ("one part", "opaque".to_owned()),
            ("many dots", ".".repeat(4000)),
        ],
    );
    let large = tokens(
        "size is bounded before anything is parsed",
        "token too large",
        [
            ("a megabyte", "a".repeat(1 << 20)),
            (
                "kid of megabytes",
                target.with_header(json!({"kid": "k".repeat(2 << 20)})),
            ),
            (
                "header of 16 KiB",
                target.with_header(json!({"x": "y".repeat(16_384)})),
            ),
        ],
    );
    parts.chain(large)
}

fn on_encoding(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let good = target.good_token();
    let mut stray = good.clone();
    // The last character of these signatures has bits that decode to nothing.
    let last = stray
        .pop()
        .and_then(|last| ALPHABET.iter().position(|&letter| char::from(letter) == last));
    stray.extend(
        last.and_then(|last| ALPHABET.get(last ^ 1))
            .copied()
            .map(char::from),
    );
    tokens(
        "one token has one spelling, or a cache and a revocation miss the other",
        "token is not canonical base64url",
        [
            ("padded base64", format!("{good}=")),
            ("base64 with stray bits", stray),
            ("characters of plain base64", format!("{good}+/")),
        ],
    )
}

fn on_json(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let header = text(target.header());
    let algorithm = Value::from(target.key.algorithm().name());
    let twice = header.replacen('{', &format!(r#"{{"alg":{algorithm},"#), 1);
    let claims = text(target.claims());
    let mut no_utf8 = claims.clone().into_bytes();
    no_utf8.splice(1..1, b"\"x\":\"\xff\",".iter().copied());
    let deep = format!(r#""x":{}{}"#, "[".repeat(1000), "]".repeat(1000));
    let exp = format!(r#""exp":{}"#, target.now.as_seconds() + 60);
    let payloads = tokens(
        "two parsers might read two tokens, or one might not return",
        "claims are no strict JSON object",
        [
            ("exp twice", target.with_raw_claim(&exp)),
            (
                "sub twice, once escaped",
                target.with_raw_claim(r#""\u0073ub":"admin""#),
            ),
            ("exp 1e999999", target.with_raw_exp("1e999999")),
            ("nested a thousand deep", target.with_raw_claim(&deep)),
            ("claims that are no UTF-8", target.signed(&header, &no_utf8)),
            ("payload that is no object", target.signed(&header, b"[]")),
            ("payload empty", target.signed(&header, b"")),
            (
                "payload of two objects",
                target.signed(&header, format!("{claims}{claims}").as_bytes()),
            ),
        ],
    );
    let headers = tokens(
        "two parsers might read two algorithms",
        "header is no strict JSON object",
        [
            ("alg twice", target.signed(&twice, claims.as_bytes())),
            (
                "header that is no JSON",
                target.signed("alg=none", claims.as_bytes()),
            ),
        ],
    );
    payloads.chain(headers)
}
