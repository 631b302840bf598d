//! The one pass over a request's headers, and the shorter one over a response's: what belongs to one connection
//! goes (RFC 9110 section 7.6.1), and what only the chain may set goes.
//!
//! It decides by names alone. Tokens, bodies and routes are none of its business.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use servicechain_auth::second_opinion::VERDICT;

/// What servers behind a gateway take for an identity or for another request than the one that was checked.
/// Whoever may set one of these from outside is whoever it says.
const IDENTITIES: [&str; 14] = [
    "remote-user",
    "x-remote-user",
    "x-user",
    "x-userinfo",
    "x-username",
    "x-email",
    "x-webauth-user",
    "x-client-cert",
    "x-original-url",
    "x-original-method",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// The same by how they begin.
const IDENTITY_PREFIXES: [&str; 15] = [
    "servicechain-",
    "x-servicechain-",
    "x-auth-request-",
    "x-authenticated-",
    "x-user-",
    "x-jwt-",
    "x-token-",
    "x-consumer-",
    "x-credential-",
    "x-identity-",
    "x-amzn-oidc-",
    "x-goog-authenticated-",
    "x-ms-client-principal",
    "x-ssl-client-",
    "ssl-client-",
];

/// What a trusted proxy may tell of the client.
const FORWARDED: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
];

/// What the chain relies on from end to end: `Connection` may not name it away, and no alias of it passes.
const RELIED_ON: [&str; 18] = [
    "authorization",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "cookie",
    "expect",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "idempotency-key",
    "x-request-id",
    "traceparent",
    "tracestate",
    "via",
    "cache-control",
];

/// Why a request's headers cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// A sentence for the client.
    Malformed(&'static str),
    /// `Upgrade` to something this gateway does not speak.
    Upgrade,
    /// An `Expect` other than `100-continue`.
    Expectation,
}

/// Takes away everything that must not reach an upstream. `trusts_forwarded` says that the peer is a proxy whose
/// word about the client counts.
///
/// # Errors
/// [`HeaderFault`] when the headers contradict themselves or ask for what is not done here.
pub(crate) fn screen_request(headers: &mut HeaderMap, trusts_forwarded: bool) -> Result<(), HeaderFault> {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let mut hosts = 0;
    let mut seen = None;
    for (name, value) in headers.iter() {
        // Repeated lines of one name follow each other; only the sensitive ones are looked at again.
        let repeated = seen == Some(name);
        seen = Some(name);
        match *name {
            header::HOST => hosts += 1,
            header::CONNECTION => {
                name_connection_options(value, &mut unwanted)?;
                unwanted.push(header::CONNECTION);
            }
            header::UPGRADE if !is_h2c(value) => return Err(HeaderFault::Upgrade),
            header::EXPECT if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                return Err(HeaderFault::Expectation);
            }
            header::EXPECT => unwanted.push(header::EXPECT),
            _ if repeated => (),
            _ if is_hop_by_hop(name) || !may_pass(name, trusts_forwarded) => unwanted.push(name.clone()),
            _ => (),
        }
    }
    if hosts != 1 {
        return Err(HeaderFault::Malformed(
            "the request needs exactly one Host header",
        ));
    }
    for name in unwanted {
        headers.remove(name);
    }
    Ok(())
}

/// Takes away what belongs to the connection with the upstream.
pub(crate) fn screen_response(headers: &mut HeaderMap) {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    for (name, value) in headers.iter() {
        if *name == header::CONNECTION {
            // An upstream that names too much loses nothing that clients rely on.
            let _ = name_connection_options(value, &mut unwanted);
        }
        // What hops say to each other is for no client.
        if is_hop_by_hop(name) || *name == VERDICT {
            unwanted.push(name.clone());
        }
    }
    for name in unwanted {
        headers.remove(name);
    }
}

/// Collects what `Connection` names besides the options that need no removal.
fn name_connection_options(value: &HeaderValue, unwanted: &mut Vec<HeaderName>) -> Result<(), HeaderFault> {
    for option in value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
    {
        if option.is_empty()
            || option.eq_ignore_ascii_case(b"keep-alive")
            || option.eq_ignore_ascii_case(b"close")
        {
            continue;
        }
        let Ok(name) = HeaderName::from_bytes(option) else {
            return Err(HeaderFault::Malformed(
                "the Connection header names what is no header",
            ));
        };
        let canonical = canonical(name.as_str());
        if RELIED_ON.contains(&&*canonical) || FORWARDED.contains(&&*canonical) || is_identity(&canonical) {
            return Err(HeaderFault::Malformed(
                "the Connection header names a header that must reach the service",
            ));
        }
        unwanted.push(name);
    }
    Ok(())
}

/// RFC 9110 section 7.6.1, and what older proxies send.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION => true,
        _ => matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings" | "proxy-authentication-info"
        ),
    }
}

fn may_pass(name: &HeaderName, trusts_forwarded: bool) -> bool {
    let name = name.as_str();
    let is_odd = name.bytes().any(|byte| byte == b'_' || byte == b'.');
    match name.as_bytes()[0] {
        _ if is_odd => {
            // Servers fold `x_user`, `x.user` and `x-user` into one variable (CGI, RFC 3875 section 4.1.18).
            let canonical = canonical(name);
            !is_identity(&canonical)
                && !FORWARDED.contains(&&*canonical)
                && !RELIED_ON.contains(&&*canonical)
                && canonical != "transfer-encoding"
        }
        b'x' | b's' | b'r' => !is_identity(name) && (trusts_forwarded || !FORWARDED.contains(&name)),
        b'f' => trusts_forwarded || name != "forwarded",
        _ => true,
    }
}

fn is_identity(name: &str) -> bool {
    IDENTITIES.contains(&name)
        || IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with("x-forwarded-") && !FORWARDED.contains(&name)
}

fn canonical(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

/// An offer to speak HTTP/2 without TLS may be ignored (RFC 9110 section 7.8); some clients make it by default.
fn is_h2c(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"h2c")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("shop.example"));
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn screened(lines: &[(&str, &str)], trusted: bool) -> Vec<String> {
        let mut headers = map(lines);
        screen_request(&mut headers, trusted).unwrap();
        let mut names: Vec<String> = headers
            .keys()
            .map(ToString::to_string)
            .filter(|name| name != "host")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn connection_headers_and_what_they_name_are_removed() {
        let left = screened(
            &[
                ("Connection", "keep-alive, X-Debug"),
                ("connection", "x-other"),
                ("X-Debug", "1"),
                ("x-other", "2"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "keep-alive"),
                ("Proxy-Authorization", "Basic x"),
                ("TE", "trailers"),
                ("Trailer", "x"),
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAA"),
                ("Expect", "100-continue"),
                ("Authorization", "Bearer t"),
                ("Accept", "*/*"),
            ],
            false,
        );
        assert_eq!(left, ["accept", "authorization"]);
    }

    #[test]
    fn connection_cannot_name_away_what_the_chain_relies_on() {
        for option in [
            "authorization",
            "AUTHORIZATION",
            "close, Authorization",
            "Host",
            "X-Forwarded-For",
            "servicechain-remaining-ms",
            "x_request_id",
            "a b",
        ] {
            let fault = screen_request(&mut map(&[("Connection", option)]), true);
            assert!(matches!(fault, Err(HeaderFault::Malformed(_))), "{option}");
        }
    }

    #[test]
    fn identity_headers_and_their_aliases_are_removed_even_from_trusted_proxies() {
        for name in [
            "servicechain-remaining-ms",
            "Servicechain-Anything",
            "servicechain_remaining_ms",
            "SERVICECHAIN.X",
            "x-servicechain-user",
            "X-User",
            "x_user",
            "x.user",
            "X-User-Id",
            "X-Forwarded-User",
            "x_forwarded_email",
            "X-Forwarded-Client-Cert",
            "X-Auth-Request-Email",
            "Remote-User",
            "remote_user",
            "X-Consumer-Id",
            "X-Original-URL",
            "X-HTTP-Method-Override",
            "content_length",
            "transfer_encoding",
            "x_forwarded_for",
            "x.real.ip",
        ] {
            assert!(screened(&[(name, "x")], true).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_not_done_here_is_told_apart() {
        let fault = |lines: &[(&str, &str)]| screen_request(&mut map(lines), false).unwrap_err();
        assert_eq!(
            fault(&[("Upgrade", "websocket"), ("Connection", "upgrade")]),
            HeaderFault::Upgrade
        );
        assert_eq!(fault(&[("Expect", "200-ok")]), HeaderFault::Expectation);
        assert!(matches!(fault(&[("Host", "other")]), HeaderFault::Malformed(_)));
        assert!(matches!(
            screen_request(&mut HeaderMap::new(), false),
            Err(HeaderFault::Malformed(_))
        ));
    }

    #[test]
    fn a_response_loses_its_connection_headers_and_keeps_the_rest() {
        let mut headers = map(&[
            ("Connection", "close, x-hop"),
            ("x-hop", "1"),
            ("Keep-Alive", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Type", "text/plain"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
        ]);
        screen_response(&mut headers);
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "content-type", "set-cookie", "set-cookie"]);
    }

    fn header_line() -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof![
            "[a-zA-Z][a-zA-Z0-9_.-]{0,20}",
            prop::sample::select(vec![
                "Connection",
                "connection",
                "X-User",
                "x_user",
                "X-Forwarded-For",
                "servicechain-x",
                "Servicechain_X",
                "TE",
                "Accept",
                "Authorization",
                "X-Request-Id",
                "Forwarded",
                "Keep-Alive",
                "Cookie",
            ])
            .prop_map(str::to_owned),
        ];
        let value = prop_oneof![
            "[ -~]{0,12}".prop_map(|value| value.trim().to_owned()),
            Just("x-custom, close".to_owned())
        ];
        (name, value)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn whatever_comes_in_nothing_of_ours_and_nothing_of_the_connection_goes_out(
            lines in prop::collection::vec(header_line(), 0..12),
            trusted in any::<bool>(),
        ) {
            let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let before = map(&lines);
            let mut after = before.clone();
            if screen_request(&mut after, trusted).is_err() {
                return Ok(());
            }
            for (name, _) in &after {
                let canonical = canonical(name.as_str());
                prop_assert!(!is_identity(&canonical), "{}", name);
                prop_assert!(!is_hop_by_hop(name), "{}", name);
                prop_assert!(trusted || !FORWARDED.contains(&canonical.as_str()), "{}", name);
            }
            // What is left is what came in, line for line, and the token above all.
            for name in after.keys() {
                let lines = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
                prop_assert_eq!(lines(&before), lines(&after));
            }
            prop_assert_eq!(before.get(header::AUTHORIZATION), after.get(header::AUTHORIZATION));
            prop_assert_eq!(before.get(header::ACCEPT), after.get(header::ACCEPT));
            let mut again = after.clone();
            prop_assert_eq!(screen_request(&mut again, trusted), Ok(()));
            prop_assert_eq!(again, after);
        }
    }
}
