//! Errors as clients see them: problem details for HTTP APIs (RFC 9457).
//!
//! A problem says what went wrong and at which hop; causes, tokens and claims belong in the log.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

/// Where the meaning of each problem type is written down.
pub const TYPES: &str = "https://servicechain.dev/problems/";

/// One problem, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// `kind` is the last segment of the problem's `type`, a stable word such as `slow-hop`;
    /// `title` is the same for every problem of that type.
    #[must_use]
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        let members = Map::from_iter([
            ("type".to_owned(), format!("{TYPES}{kind}").into()),
            ("title".to_owned(), title.into()),
            ("status".to_owned(), status.as_u16().into()),
        ]);
        Self {
            status,
            members,
            headers: HeaderMap::new(),
        }
    }

    /// 504: this hop did not answer before the request's deadline.
    #[must_use]
    pub fn slow_hop(hop: &str) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "slow-hop",
            "A hop did not answer in time",
        )
        .hop(hop)
    }

    /// 502: this hop could not be reached, or broke off.
    #[must_use]
    pub fn unreachable_hop(hop: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "unreachable-hop",
            "A hop could not be reached",
        )
        .hop(hop)
    }

    /// 503: this hop refuses a token that is good at the hop before it.
    #[must_use]
    pub fn hop_refuses_good_token(hop: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "hop-refuses-good-token",
            "A hop refuses a good token",
        )
        .detail("its keys or its clock are not what they should be; the token is good, so come again with it")
        .hop(hop)
        .retry_after(1)
    }

    /// 413: a body of more than `limit` bytes.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The request body is too large",
        )
        .detail(format!("at most {limit} bytes are accepted"))
    }

    /// What is special about this occurrence, for a person.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        self.with("detail", detail.into())
    }

    /// The hop at fault.
    #[must_use]
    pub fn hop(self, hop: &str) -> Self {
        self.with("hop", hop)
    }

    /// An extension member (RFC 9457 section 3.2).
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// When to try again, in whole seconds (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer, without a body type of any framework.
    #[must_use]
    pub fn into_http(self) -> http::Response<Bytes> {
        let body = Bytes::from(Value::Object(self.members).to_string());
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_http().map(axum::body::Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_when_to_try_again() {
        let problem = Problem::slow_hop("b")
            .detail("2s passed")
            .with("tried", 2)
            .retry_after(1);
        let response = problem.into_http();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "https://servicechain.dev/problems/slow-hop",
                "title": "A hop did not answer in time",
                "status": 504, "hop": "b", "detail": "2s passed", "tried": 2
            })
        );
    }
}
