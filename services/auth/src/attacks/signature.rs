//! Tokens whose signature proves nothing: none at all, by the wrong algorithm, by the wrong key.

use serde_json::json;
use servicechain_keys::{Algorithm, SigningKey, base64url};

use super::{Attack, Target, changed, text, tokens};

pub(super) fn attacks(target: &Target<'_>, stranger: &SigningKey) -> Vec<Attack> {
    let members = target.key.public_jwk().to_members();
    let raw_key: Vec<u8> = ["x", "y", "n"]
        .iter()
        .filter_map(|name| base64url::decode(members.get(*name)?.as_str()?).ok())
        .flatten()
        .collect();
    let good = target.good_token();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, _, signature] = parts[..] else {
        return Vec::new();
    };
    let length = base64url::decode(signature).map_or(0, |signature| signature.len());
    let other = if target.key.algorithm() == Algorithm::ES256 {
        "RS256"
    } else {
        "ES256"
    };
    let admin = base64url::encode(text(changed(target.claims(), json!({"sub": "admin"}))));
    let is_same_algorithm = stranger.algorithm() == target.key.algorithm();
    let mismatch = "algorithm is not the one pinned to the key";
    let unverified = "signature does not verify";

    let unsigned = tokens(
        "an unsigned token is anybody's, however none is spelt",
        "unsigned (alg none)",
        [
            ("alg none", target.unsigned("none")),
            ("alg None", target.unsigned("None")),
            ("alg NONE", target.unsigned("NONE")),
            ("alg nOnE", target.unsigned("nOnE")),
        ],
    );
    let unknown = tokens(
        "an algorithm is one of a list, not whatever is left after trimming",
        "unknown algorithm",
        [
            ("alg with a leading space", target.unsigned(" none")),
            ("alg empty", target.unsigned("")),
            ("alg as a pattern", target.unsigned("ES256|none")),
        ],
    );
    let symmetric = tokens(
        "a public key is no secret",
        "symmetric algorithm",
        [
            (
                "HS256 with the JWK as secret",
                target.by_hmac(text(members).as_bytes()),
            ),
            ("HS256 with the raw public key", target.by_hmac(&raw_key)),
            ("HS256 with an empty secret", target.by_hmac(b"")),
        ],
    );
    let chosen = tokens(
        "the token must not choose the algorithm (CVE-2016-10555)",
        mismatch,
        [(
            "another algorithm than the key's",
            target.with_header(json!({"alg": other})),
        )],
    );
    let blank = tokens(
        "nothing was signed",
        "empty signature",
        [("blank signature", format!("{header}.{admin}."))],
    );
    let wrong = tokens(
        "a signature is over what is said, and not a number of zeros (CVE-2022-21449)",
        unverified,
        [
            (
                "signature of zeros (r = s = 0)",
                target.with_signature(&vec![0; length]),
            ),
            ("signature cut short", target.with_signature(&vec![1; length / 2])),
            ("signature prolonged", target.with_signature(&vec![1; length + 1])),
            ("payload exchanged", format!("{header}.{admin}.{signature}")),
        ],
    );
    let strange = tokens(
        "a kid is a name, not a proof",
        if is_same_algorithm { unverified } else { mismatch },
        [(
            "a stranger's key under our kid",
            target.by_stranger(stranger, json!({})),
        )],
    );
    unsigned
        .chain(unknown)
        .chain(symmetric)
        .chain(chosen)
        .chain(blank)
        .chain(wrong)
        .chain(strange)
        .collect()
}
