//! What a request asks for: its method, its target in one spelling and the host it names. Forms of targets that
//! this gateway does not serve, and targets that contradict the Host header, are refused (RFC 9112 section 3.2).

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri};

use crate::path;
use crate::rejection::Rejection;

/// Where a request goes, as every hop after this one will read it.
#[derive(Debug)]
pub(crate) struct Target {
    /// In origin form, its path normalised.
    pub(crate) uri: Uri,
    pub(crate) host: HeaderValue,
}

impl Target {
    /// # Errors
    /// [`Rejection`] for methods, targets and hosts that are not served or have two readings.
    pub(crate) fn of(head: &Parts) -> Result<Self, Rejection> {
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Rejection::NotSupportedYet("CONNECT and TRACE are not served"));
        }
        let host = only_host(&head.headers)?;
        if let Some(authority) = head.uri.authority() {
            check_absolute_form(&head.uri, authority, &host)?;
        }
        Ok(Self {
            uri: normal_uri(&head.uri)?,
            host,
        })
    }

    pub(crate) fn host(&self) -> &str {
        // only_host has let in ASCII alone.
        self.host.to_str().unwrap_or_default()
    }
}

fn only_host(headers: &HeaderMap) -> Result<HeaderValue, Rejection> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(host.clone()),
        (Some(_), None) => Err(Rejection::Malformed("the Host header is no host and port")),
        _ => Err(Rejection::Malformed("the request needs exactly one Host header")),
    }
}

/// RFC 9112 section 3.2.2, stricter: whoever routed this request by its target and whoever routes it by its Host
/// must have meant the same.
fn check_absolute_form(uri: &Uri, authority: &Authority, host: &HeaderValue) -> Result<(), Rejection> {
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err(Rejection::Malformed(
            "the request target has another scheme than http",
        ));
    }
    if !authority
        .as_str()
        .as_bytes()
        .eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(Rejection::Malformed(
            "the request target and the Host header name different hosts",
        ));
    }
    Ok(())
}

fn normal_uri(uri: &Uri) -> Result<Uri, Rejection> {
    let path = path::normalise(uri.path()).map_err(|bad| Rejection::Malformed(bad.sentence()))?;
    if matches!(path, Cow::Borrowed(_)) && uri.authority().is_none() {
        return Ok(uri.clone());
    }
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let path_and_query = PathAndQuery::try_from(path_and_query);
    path_and_query
        .map(Uri::from)
        .map_err(|_| Rejection::Malformed("the request target is no path"))
}

/// RFC 3986 section 3.2.2 and a port, without the characters that no host name has.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host[colon..].contains(&b']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let is_name = match name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")) {
        Some(address) => {
            !address.is_empty()
                && address
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        None => {
            !name.is_empty()
                && name
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte))
        }
    };
    is_name && port.is_none_or(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn target(method: Method, uri: &str, hosts: &[&str]) -> Result<Target, Rejection> {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        Target::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_target_is_origin_form_with_a_normal_path_and_the_query_as_it_came() {
        for (uri, normal) in [
            ("/items/1", "/items/1"),
            ("/items//%61?q=%61//..", "/items/a?q=%61//.."),
            ("http://shop.example/items/./1", "/items/1"),
            ("http://SHOP.example?x", "/?x"),
        ] {
            let target = target(Method::GET, uri, &["shop.example"]).unwrap();
            assert_eq!(target.uri.to_string(), normal);
            assert_eq!(target.host(), "shop.example");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for host in [
            "a",
            "shop.example:8080",
            "127.0.0.1:1",
            "[::1]:80",
            "[::1]",
            "a_b.c",
        ] {
            assert!(target(Method::GET, "/", &[host]).is_ok(), "{host}");
        }
        for host in [
            "", "a b", "a/b", "user@a", "a:b", "a:", ":80", "[::1", "[]", "a,b", "a\u{e9}", "a#b", "a?b",
            "[::1]x",
        ] {
            assert!(target(Method::GET, "/", &[host]).is_err(), "{host}");
        }
    }

    #[test]
    fn what_contradicts_itself_or_is_not_served_is_refused() {
        for (method, uri, hosts) in [
            (Method::GET, "/", &[] as &[&str]),
            (Method::GET, "/", &["a", "a"]),
            (Method::GET, "http://b/", &["a"]),
            (Method::GET, "http://a:80/", &["a"]),
            (Method::GET, "http://user@a/", &["a"]),
            (Method::GET, "https://a/", &["a"]),
            (Method::OPTIONS, "*", &["a"]),
            (Method::TRACE, "/", &["a"]),
            (Method::CONNECT, "a:80", &["a:80"]),
            (Method::GET, "/a%2Fb", &["a"]),
        ] {
            assert!(
                target(method.clone(), uri, hosts).is_err(),
                "{method} {uri} {hosts:?}"
            );
        }
    }
}
