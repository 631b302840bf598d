//! Tokens that bring their key along, say where it is, or change how they are to be read.

use serde_json::{Value, json};
use servicechain_keys::SigningKey;

use super::{Attack, Target, tokens};

pub(super) fn attacks(target: &Target<'_>, stranger: &SigningKey) -> Vec<Attack> {
    let jwk = Value::Object(stranger.public_jwk().to_members());
    let brought = tokens(
        "a token must not say by which key to believe it (CVE-2018-0114)",
        "header parameter not accepted",
        [
            ("embedded jwk", target.by_stranger(stranger, json!({"jwk": jwk}))),
            (
                "embedded x5c",
                target.by_stranger(stranger, json!({"x5c": ["MIIB"]})),
            ),
            (
                "jku",
                target.by_stranger(stranger, json!({"jku": "https://evil.example/jwks.json"})),
            ),
            (
                "x5u",
                target.by_stranger(stranger, json!({"x5u": "https://evil.example/chain.pem"})),
            ),
        ],
    );
    let changed = tokens(
        "what is verified must be what is read, and what must be understood is not",
        "header parameter not accepted",
        [
            ("crit", target.with_header(json!({"crit": ["exp"], "exp": 1}))),
            ("b64 false", target.with_header(json!({"b64": false}))),
            ("zip", target.with_header(json!({"zip": "DEF"}))),
        ],
    );
    let odd = tokens(
        "a kid is a short string",
        "header parameter of a wrong type or size",
        [
            ("kid of another type", target.with_header(json!({"kid": 1}))),
            (
                "kid of a kibibyte",
                target.with_header(json!({"kid": "k".repeat(1024)})),
            ),
        ],
    );
    brought.chain(changed).chain(odd).collect()
}

/// Kids that are paths, statements or patterns. They are only names here, so that they are unknown: whoever has an
/// authority to ask asks it, and refuses with 401 by its word or answers 503 without one.
#[must_use]
pub fn odd_kids(target: &Target<'_>) -> Vec<(&'static str, String)> {
    [
        ("kid as a path", "../../../../dev/null"),
        ("kid as a statement", "x' UNION SELECT 'secret"),
        ("kid as a command", "|/bin/true"),
        ("kid as a URL", "https://evil.example/jwks.json"),
        ("kid as a pattern", ".*"),
        ("kid with a zero byte", "k\0"),
        ("kid with a leading space", " "),
        ("kid empty", ""),
    ]
    .into_iter()
    .map(|(name, kid)| {
        let kid = if kid == " " {
            format!(" {}", target.kid)
        } else {
            kid.to_owned()
        };
        (name, target.with_header(json!({"kid": kid})))
    })
    .collect()
}
