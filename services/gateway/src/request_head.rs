//! A request as it goes to an upstream, in bytes: the headers that were let through, what only the gateway may say, and
//! where the body ends. Whether a header may pass was decided before.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use http_body::Body as _;
use servicechain_runtime::deadline::{Deadline, REMAINING};
use servicechain_runtime::request_id::{RequestId, X_REQUEST_ID};
use servicechain_runtime::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

use crate::body::RequestBody;
use crate::conversation::Upload;

/// Most heads fit, token included.
const USUAL_HEAD: usize = 2048;

/// What of a client's head goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed<'a> {
    pub(crate) method: &'a Method,
    /// In origin form.
    pub(crate) target: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

/// What the gateway says, whatever the client said under the same names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    /// Whole lines about the client, unless they are among the headers.
    pub(crate) client_lines: &'a str,
    pub(crate) via: &'a HeaderValue,
    pub(crate) request_id: &'a RequestId,
    pub(crate) trace: &'a TraceContext,
}

/// Encodes a request, and in its head what is left of its deadline if it has one.
pub(crate) fn encode(passed: Passed<'_>, said: &Said<'_>, deadline: Deadline, body: RequestBody) -> Upload {
    let mut bytes = Vec::with_capacity(USUAL_HEAD);
    let target = passed
        .target
        .path_and_query()
        .map_or("/", |target| target.as_str());
    for part in [passed.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    for (name, value) in passed.headers {
        if !is_said_here(name) {
            line(&mut bytes, name.as_str(), value.as_bytes());
        }
    }
    bytes.extend_from_slice(said.client_lines.as_bytes());
    line(&mut bytes, "via", said.via.as_bytes());
    line(
        &mut bytes,
        X_REQUEST_ID.as_str(),
        said.request_id.as_header().as_bytes(),
    );
    line(&mut bytes, TRACEPARENT.as_str(), &said.trace.parent_text());
    if let Some(state) = said.trace.state() {
        line(&mut bytes, TRACESTATE.as_str(), state.as_bytes());
    }
    let is_chunked = encode_framing(&mut bytes, passed.headers, &body);
    let remaining = deadline.remaining().map(|left| {
        let left = left.as_millis().to_string();
        line(&mut bytes, REMAINING.as_str(), left.as_bytes());
        let end = bytes.len() - b"\r\n".len();
        end - left.len()..end
    });
    bytes.extend_from_slice(b"\r\n");
    Upload::new(bytes, remaining, body, is_chunked)
}

/// True for names under which a client's word does not count. `Via` is a list, to which a line is added.
fn is_said_here(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH
        || *name == X_REQUEST_ID
        || *name == TRACEPARENT
        || *name == TRACESTATE
        || *name == REMAINING
}

/// True where the body goes as chunks.
fn encode_framing(bytes: &mut Vec<u8>, headers: &HeaderMap, body: &RequestBody) -> bool {
    let length = match body {
        // A request that said it has none goes on saying so; most say nothing.
        RequestBody::Empty if !headers.contains_key(header::CONTENT_LENGTH) => return false,
        _ => body.size_hint().exact(),
    };
    match length {
        Some(length) => line(bytes, "content-length", length.to_string().as_bytes()),
        None => line(bytes, "transfer-encoding", b"chunked"),
    }
    length.is_none()
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_the_gateway_says_is_said_once_whatever_the_client_said() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::HOST, "a"),
            (header::VIA, "1.1 before"),
            (X_REQUEST_ID, "theirs"),
            (X_REQUEST_ID, "theirs too"),
            (TRACEPARENT, "theirs"),
            (TRACESTATE, "a=1"),
            (REMAINING, "999999"),
            (header::CONTENT_LENGTH, "0"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let (request_id, trace) = (RequestId::new(UNIX_EPOCH), TraceContext::start(false));
        let passed = Passed {
            method: &Method::PUT,
            target: &Uri::from_static("/a?b"),
            headers: &headers,
        };
        let said = Said {
            client_lines: "x-forwarded-for: 1.2.3.4\r\n",
            via: &HeaderValue::from_static("1.1 gateway"),
            request_id: &request_id,
            trace: &trace,
        };
        let upload = encode(passed, &said, Deadline::NONE, RequestBody::Empty);
        let parent = String::from_utf8(trace.parent_text().to_vec()).unwrap();
        assert_eq!(
            std::str::from_utf8(upload.encoded()).unwrap(),
            format!(
                "PUT /a?b HTTP/1.1\r\nhost: a\r\nvia: 1.1 before\r\nx-forwarded-for: 1.2.3.4\r\nvia: 1.1 gateway\r\n\
                 x-request-id: {}\r\ntraceparent: {parent}\r\ncontent-length: 0\r\n\r\n",
                request_id.as_str()
            )
        );
    }
}
