//! Requests that carry good tokens in ways that two programs would read differently.

use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Attack, Target, bearer, tokens};

pub(super) fn attacks(target: &Target<'_>) -> Vec<Attack> {
    let good = target.good_token();
    let carried = || (AUTHORIZATION, bearer(&good));
    let twice = "CVE-2025-64527: two hops might each believe another token";
    let dropped = "CVE-2024-45410: a proxy would drop the token on its way";
    let connection = |value| (CONNECTION, HeaderValue::from_static(value));
    let basic = (AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
    let several = "several Authorization headers";
    let named = "Connection names Authorization";
    let unusual = tokens(
        "two hops might each believe another part",
        "token has characters no bearer token has",
        [
            ("two tokens in one header", format!("{good}, Bearer {good}")),
            ("a token with a blank", good.replacen('.', ". ", 1)),
            ("a token in quotes", format!("\"{good}\"")),
            ("no token after the scheme", String::new()),
        ],
    );
    [
        malformed(
            "two Authorization headers",
            twice,
            several,
            [carried(), carried()],
        ),
        malformed("Authorization of two schemes", twice, several, [basic, carried()]),
        malformed(
            "Connection names Authorization",
            dropped,
            named,
            [carried(), connection("authorization")],
        ),
        malformed(
            "Connection names it among others",
            dropped,
            named,
            [carried(), connection("close, Authorization")],
        ),
    ]
    .into_iter()
    .chain(unusual)
    .collect()
}

/// Refused with 400.
fn malformed<const N: usize>(
    name: &'static str,
    why: &'static str,
    reason: &'static str,
    lines: [(HeaderName, HeaderValue); N],
) -> Attack {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, value);
    }
    Attack {
        name,
        why,
        headers,
        status: StatusCode::BAD_REQUEST,
        reason,
    }
}
