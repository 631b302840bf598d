//! What a token says of itself, before anybody believed it. Whatever cannot be read is left out.

use serde_json::{Map, Value};
use servicechain_keys::{CompactJws, NumericDate};

use super::explanation::{About, Claim};
use crate::paint::tame;

/// What many servers and libraries allow for all headers, or for one.
const COMMON_HEADER_BYTES: usize = 8 * 1024;
/// What else such a header line holds: `authorization: Bearer `.
const BEFORE_THE_TOKEN: usize = "authorization: Bearer ".len();
/// Longest text of a claim that is printed.
const LONGEST_TEXT: usize = 120;

/// The claims of a token, not verified.
pub(crate) fn claims(token: &str) -> Map<String, Value> {
    CompactJws::parse(token, token.len())
        .ok()
        .and_then(|jws| serde_json::from_slice(&jws.payload).ok())
        .unwrap_or_default()
}

pub(crate) fn about(token: &str, now: NumericDate) -> About {
    let claims = claims(token);
    let text = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .map(|text| tame(text, LONGEST_TEXT))
    };
    let largest_claim = claims
        .iter()
        .map(|(name, value)| Claim {
            name: tame(name, LONGEST_TEXT),
            bytes: value.to_string().len(),
        })
        .max_by_key(|claim| claim.bytes);
    let now = i64::try_from(now.as_seconds()).unwrap_or(i64::MAX);
    About {
        bytes: token.len(),
        subject: text("sub"),
        issuer: text("iss"),
        expires_in_seconds: claims
            .get("exp")
            .and_then(Value::as_i64)
            .map(|exp| exp.saturating_sub(now)),
        warning: warning(token.len(), largest_claim.as_ref()),
        largest_claim,
    }
}

fn warning(bytes: usize, largest: Option<&Claim>) -> Option<String> {
    let line = bytes + BEFORE_THE_TOKEN;
    let near = COMMON_HEADER_BYTES * 3 / 4;
    if line < near {
        return None;
    }
    let which = largest.map_or_else(String::new, |claim| {
        format!("; the largest claim is {}", claim.name)
    });
    let standing = if line > COMMON_HEADER_BYTES {
        "is over"
    } else {
        "is near"
    };
    Some(format!(
        "the token {standing} the 8 KiB that many servers allow for headers{which}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_token_is_warned_of_and_its_largest_claim_named() {
        let groups = Claim {
            name: "groups".to_owned(),
            bytes: 5000,
        };
        assert_eq!(warning(6000, Some(&groups)), None);
        assert_eq!(
            warning(7000, Some(&groups)).unwrap(),
            "the token is near the 8 KiB that many servers allow for headers; the largest claim is groups"
        );
        assert_eq!(
            warning(9000, None).unwrap(),
            "the token is over the 8 KiB that many servers allow for headers"
        );
    }

    #[test]
    fn what_is_no_token_says_nothing_of_itself() {
        let about = about("not a token", NumericDate::from_seconds(0));
        assert_eq!(
            about,
            About {
                bytes: 11,
                ..About::default()
            }
        );
    }
}
