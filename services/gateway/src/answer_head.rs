//! The head of an upstream's answer, read by httparse, and where its body ends (RFC 9112 section 6.3). An answer that
//! two parsers could frame in different ways is none: whoever shares its connection could be given somebody else's.
//!
//! It is pure; bytes come from `conversation`.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

/// More header lines than any server sends.
const MAX_LINES: usize = 100;

/// Whoever passes the answer on adds so many.
const ADDED_LINES: usize = 2;

/// An answer's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// Whether another request may follow on its connection.
    pub(crate) keeps_connection: bool,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// With its connection.
    Close,
}

/// This is no answer to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadAnswer(&'static str);

impl BadAnswer {
    pub(crate) const CHUNKS: Self = Self("the answer's body is not chunked as it says");
    pub(crate) const TOO_LARGE: Self = Self("the answer's head is too large");
}

/// The head at the beginning of `bytes` and its length; `None` while it is not there whole. `method` is what was asked
/// with. The headers share the memory of `bytes`.
///
/// # Errors
/// [`BadAnswer`] for what is no HTTP/1 answer, or has no certain end.
pub(crate) fn read(bytes: &Bytes, method: &Method) -> Result<Option<(AnswerHead, usize)>, BadAnswer> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut answer = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, bytes, &mut lines);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadAnswer("the answer's head is no HTTP")),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(BadAnswer("the answer's status is no status"))?;
    let is_http_11 = answer.version == Some(1);
    let mut headers = HeaderMap::with_capacity(answer.headers.len() + ADDED_LINES);
    let mut sizes = Sizes::default();
    let mut keeps_connection = is_http_11;
    for line in answer.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let name = name.map_err(|_| BadAnswer("a header's name is no name"))?;
        match name {
            header::CONTENT_LENGTH => sizes.content_length(line.value)?,
            header::TRANSFER_ENCODING => sizes.transfer_encoding(line.value)?,
            header::CONNECTION => {
                let says = |option: &[u8]| {
                    line.value
                        .split(|byte| *byte == b',')
                        .any(|found| found.trim_ascii().eq_ignore_ascii_case(option))
                };
                keeps_connection = !says(b"close") && (keeps_connection || says(b"keep-alive"));
            }
            _ => (),
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
        headers.append(
            name,
            value.map_err(|_| BadAnswer("a header's value is no value"))?,
        );
    }
    let framing = sizes.framing(status, method, is_http_11)?;
    Ok(Some((
        AnswerHead {
            status,
            headers,
            framing,
            keeps_connection: keeps_connection && framing != Framing::Close,
        },
        length,
    )))
}

/// What a head says of its body's size.
#[derive(Default)]
struct Sizes {
    length: Option<u64>,
    is_chunked: bool,
}

impl Sizes {
    fn content_length(&mut self, value: &[u8]) -> Result<(), BadAnswer> {
        let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if self.length.is_some() {
            return Err(BadAnswer("the answer has more than one Content-Length"));
        }
        self.length = Some(number.ok_or(BadAnswer("Content-Length is no plain number"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), BadAnswer> {
        if self.is_chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(BadAnswer("Transfer-Encoding is something else than chunked"));
        }
        self.is_chunked = true;
        Ok(())
    }

    fn framing(self, status: StatusCode, method: &Method, is_http_11: bool) -> Result<Framing, BadAnswer> {
        if self.is_chunked && (self.length.is_some() || !is_http_11) {
            return Err(BadAnswer(
                "the answer has both Transfer-Encoding and Content-Length, or is HTTP/1.0",
            ));
        }
        let has_no_body = method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match (has_no_body, self.is_chunked, self.length) {
            (true, ..) => Framing::Length(0),
            (false, true, _) => Framing::Chunked,
            (false, false, Some(length)) => Framing::Length(length),
            (false, false, None) => Framing::Close,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Option<(AnswerHead, usize)>, BadAnswer> {
        read(&Bytes::copy_from_slice(text.as_bytes()), &Method::GET)
    }

    fn framing(text: &str, method: &Method) -> (Framing, bool) {
        let (head, length) = read(&Bytes::copy_from_slice(text.as_bytes()), method)
            .unwrap()
            .unwrap();
        assert_eq!(length, text.len());
        (head.framing, head.keeps_connection)
    }

    #[test]
    fn a_body_ends_where_rfc_9112_says() {
        for (text, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                (Framing::Length(7), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                (Framing::Chunked, true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", (Framing::Close, false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", (Framing::Length(0), true)),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                (Framing::Length(0), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 7\r\n\r\n",
                (Framing::Length(7), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n",
                (Framing::Length(7), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\n",
                (Framing::Length(7), true),
            ),
        ] {
            assert_eq!(framing(text, &Method::GET), expected, "{text}");
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(framing(head, &Method::HEAD), (Framing::Length(0), true));
    }

    #[test]
    fn an_answer_with_two_readings_is_none() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 099 Odd\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
        assert_eq!(read_text("HTTP/1.1 200 OK\r\nContent-Le"), Ok(None));
    }
}
