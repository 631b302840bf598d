//! What a proxy tells of its client: `Forwarded` (RFC 7239) and the older `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! What came in under these names is judged by `headers`, and was taken away unless a trusted proxy sent it.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is said of a client on all requests of its connection, made once.
#[derive(Debug)]
pub(crate) struct ClientHeaders {
    forwarded_for: HeaderValue,
    forwarded: HeaderValue,
    /// All of it as it goes out where nobody before it is believed.
    lines: Box<str>,
}

impl ClientHeaders {
    pub(crate) fn new(address: IpAddr) -> Self {
        let text = address.to_string();
        // RFC 7239 section 6: an IPv6 address stands in brackets and quotes.
        let node = if address.is_ipv6() {
            format!("\"[{text}]\"")
        } else {
            text.clone()
        };
        let value =
            |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            lines: format!(
                "forwarded: for={node};proto=http\r\nx-forwarded-for: {text}\r\nx-forwarded-proto: http\r\n"
            )
            .into(),
            forwarded_for: value(text),
            forwarded: value(format!("for={node};proto=http")),
        }
    }

    /// What an upstream is told of a client that is no trusted proxy: of what it said itself nothing is left.
    pub(crate) fn lines(&self) -> &str {
        &self.lines
    }

    /// Adds this client to what trusted proxies before it have told.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        // A Forwarded header that lacks the proxies before would name one of them as the client.
        if headers.contains_key(header::FORWARDED) || !headers.contains_key(X_FORWARDED_FOR) {
            append(headers, header::FORWARDED, &self.forwarded);
        }
        append(headers, X_FORWARDED_FOR, &self.forwarded_for);
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static("http"));
    }
}

/// Adds an element to a list header, as one line: many servers read only the first.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, element.clone());
        return;
    }
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    let value = HeaderValue::from_bytes(&list).unwrap_or_else(|_| element.clone());
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::screen_request;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let host = [("host", "shop.example")];
        let mut headers = HeaderMap::new();
        for (name, value) in host.iter().chain(lines) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn forwarded_headers_are_believed_from_trusted_proxies_only() {
        let lines = &[
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "1.2.3.4"),
        ];
        let client = ClientHeaders::new("10.0.0.1".parse().unwrap());
        let mut headers = map(lines);
        screen_request(&mut headers, false).unwrap();
        assert_eq!(headers.len(), 1, "only Host is left");
        assert_eq!(
            client.lines(),
            "forwarded: for=10.0.0.1;proto=http\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\n"
        );
        let mut headers = map(lines);
        screen_request(&mut headers, true).unwrap();
        client.add_to(&mut headers);
        assert_eq!(
            [header::FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO]
                .map(|name| headers[name].to_str().unwrap().to_owned()),
            [
                "for=1.2.3.4, for=10.0.0.1;proto=http",
                "1.2.3.4, 10.0.0.1",
                "https"
            ]
        );
    }

    #[test]
    fn several_lines_become_one_list_and_a_missing_forwarded_is_not_invented() {
        let mut headers = map(&[
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-For", "2.2.2.2, 3.3.3.3"),
        ]);
        ClientHeaders::new("::1".parse().unwrap()).add_to(&mut headers);
        assert_eq!(headers[X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 3.3.3.3, ::1");
        assert_eq!(headers.get(header::FORWARDED), None);
        let mut fresh = map(&[]);
        ClientHeaders::new("::1".parse().unwrap()).add_to(&mut fresh);
        assert_eq!(fresh[header::FORWARDED], "for=\"[::1]\";proto=http");
    }
}
