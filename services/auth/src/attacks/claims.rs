//! Tokens of the right key that say something they must not: too long, for others, by others.

use serde_json::json;

use super::{Attack, Target, tokens};

pub(super) fn attacks(target: &Target<'_>) -> Vec<Attack> {
    on_time(target)
        .chain(on_issuer(target))
        .chain(on_audience(target))
        .chain(on_the_rest(target))
        .collect()
}

fn on_time(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let now = target.now.as_seconds();
    let with = |changes| target.with_claims(changes);
    let odd = tokens(
        "a date of a wrong type or range must not mean no limit (CVE-2026-25537)",
        "claim exp has a wrong type or range",
        [
            ("exp as a string", with(json!({"exp": "9999999999"}))),
            ("exp null", with(json!({"exp": null}))),
            ("exp true", with(json!({"exp": true}))),
            ("exp in an array", with(json!({"exp": [now + 600]}))),
            ("exp negative", with(json!({"exp": -1}))),
            ("exp beyond 64 bits", target.with_raw_exp("18446744073709551616")),
            ("exp 1e300", target.with_raw_exp("1e300")),
        ],
    );
    let missing = tokens(
        "a token ends",
        "claim exp missing",
        [("exp missing", target.without_claim("exp"))],
    );
    let ageless = tokens(
        "its age is unknown",
        "claim iat missing",
        [("iat missing", target.without_claim("iat"))],
    );
    let past = with(json!({"iat": now - 7200, "exp": now - 3600}));
    let expired = tokens("a token ends when it says", "expired", [("expired", past)]);
    let early = with(json!({"nbf": now + 300}));
    let early = tokens(
        "a token begins when it says",
        "not valid yet",
        [("not valid yet", early)],
    );
    let future = with(json!({"iat": now + 600, "exp": now + 700}));
    let future = tokens(
        "the lifetime is counted from iat",
        "issued in the future",
        [("issued in the future", future)],
    );
    let years = with(json!({"exp": now + 10 * 31_536_000}));
    let long = tokens(
        "it would outlive every revocation",
        "lives longer than allowed",
        [("lives for years", years)],
    );
    odd.chain(missing)
        .chain(ageless)
        .chain(expired)
        .chain(early)
        .chain(future)
        .chain(long)
}

fn on_issuer(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let with = |changes| target.with_claims(changes);
    let almost = tokens(
        "an issuer is compared whole and exactly: no prefix, no pattern, no folding",
        "issuer unknown",
        [
            ("iss cut short", with(json!({"iss": cut(target.iss)}))),
            (
                "iss prolonged",
                with(json!({"iss": format!("{}.evil.example", target.iss)})),
            ),
            (
                "iss with a slash",
                with(json!({"iss": format!("{}/", target.iss)})),
            ),
            (
                "iss with a leading space",
                with(json!({"iss": format!(" {}", target.iss)})),
            ),
            ("iss as a pattern", with(json!({"iss": ".*"}))),
            (
                "iss in other letters",
                with(json!({"iss": target.iss.to_uppercase()})),
            ),
            (
                "iss of somebody else",
                with(json!({"iss": "https://evil.example"})),
            ),
        ],
    );
    let nobody = tokens(
        "keys belong to an issuer, and nobody is none",
        "claim iss missing",
        [
            ("iss missing", target.without_claim("iss")),
            ("iss empty", with(json!({"iss": ""}))),
        ],
    );
    let several = with(json!({"iss": [target.iss]}));
    let several = tokens(
        "one issuer, one string",
        "claim has a wrong type",
        [("iss in an array", several)],
    );
    almost.chain(nobody).chain(several)
}

fn on_audience(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let with = |changes| target.with_claims(changes);
    let other = tokens(
        "a token stays where it belongs, and an audience is compared whole and exactly",
        "audience not accepted",
        [
            ("aud cut short", with(json!({"aud": cut(target.audience)}))),
            (
                "aud prolonged",
                with(json!({"aud": format!("{}-admin", target.audience)})),
            ),
            (
                "aud as a list in a string",
                with(json!({"aud": format!("{} other", target.audience)})),
            ),
            ("aud of another service", with(json!({"aud": ["elsewhere"]}))),
        ],
    );
    let nobody = tokens(
        "a token is for somebody",
        "claim aud missing",
        [
            ("aud missing", target.without_claim("aud")),
            ("aud empty", with(json!({"aud": ""}))),
            ("aud empty array", with(json!({"aud": []}))),
        ],
    );
    let odd = tokens(
        "an audience is a string or strings",
        "claim aud has a wrong type",
        [
            ("aud as an object", with(json!({"aud": {"a": target.audience}}))),
            ("aud with a number", with(json!({"aud": [target.audience, 1]}))),
        ],
    );
    other.chain(nobody).chain(odd)
}

fn on_the_rest(target: &Target<'_>) -> impl Iterator<Item = Attack> {
    let nameless = tokens(
        "a caller has a name",
        "claim sub missing",
        [
            ("sub missing", target.without_claim("sub")),
            ("sub empty", target.with_claims(json!({"sub": ""}))),
        ],
    );
    let bound = target.with_claims(json!({"cnf": {"jkt": "x"}}));
    let bound = tokens(
        "whoever holds it has proved nothing",
        "token is bound to a proof (cnf)",
        [("bound to a proof", bound)],
    );
    let typed = tokens(
        "an ID token, a key bundle and a proof of possession are no access tokens",
        "token type not accepted",
        [
            ("typ of an ID token", target.with_header(json!({"typ": "id+jwt"}))),
            (
                "typ of a key bundle",
                target.with_header(json!({"typ": "servicechain-bundle+jws"})),
            ),
            (
                "typ of a proof",
                target.with_header(json!({"typ": "servicechain-pop+jws"})),
            ),
        ],
    );
    nameless.chain(bound).chain(typed)
}

/// Without its last character.
fn cut(text: &str) -> &str {
    text.char_indices().next_back().map_or("", |(at, _)| &text[..at])
}
