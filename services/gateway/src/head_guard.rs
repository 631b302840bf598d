//! Reads along with hyper and sees what its parser hides: the raw lines of every request head. A head that two
//! parsers could frame in different ways (RFC 9112 section 11.2) is remembered as a violation, and a connection
//! whose next head cannot be located with certainty ends after the current answer. So every head that is ever
//! served began at the first byte of a read and was looked at whole.
//!
//! It only observes: bytes pass through unchanged, and refusing is the business of `app`.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::chunks::{Chunks, Found};

/// What is wrong with a head: a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(&'static str);

impl Violation {
    pub(crate) fn sentence(self) -> &'static str {
        self.0
    }
}

/// Shared by a connection's stream, which shows it every byte, and by its requests, which ask.
#[derive(Debug, Default)]
pub(crate) struct HeadGuard {
    phase: Cell<Phase>,
    violation: Cell<Option<Violation>>,
    head: RefCell<Head>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The next byte belongs to a head.
    #[default]
    Head,
    /// So many bytes of a body are still to come before the next head.
    Body(u64),
    /// A chunked body, whose end is known when it comes.
    Chunked(Chunks),
    /// Where the next head begins is not known: there must be none.
    Adrift,
}

/// A head that is being read, line by line.
#[derive(Debug, Default)]
struct Head {
    /// What earlier reads brought of it; empty when one read brings it whole, which is the rule.
    partial: Vec<u8>,
    /// Where the first line that was not yet complete begins.
    line_start: usize,
    lines: usize,
    is_http_10: bool,
    content_length: Option<u64>,
    is_chunked: bool,
    violation: Option<Violation>,
}

/// Bytes behind a body in the same read would be a head that did not begin with its read: then the place of the
/// next head is not known.
impl Phase {
    fn after_known(left: u64, came: usize) -> Self {
        match left.checked_sub(came as u64) {
            None => Self::Adrift,
            Some(0) => Self::Head,
            Some(left) => Self::Body(left),
        }
    }

    fn after_chunks(found: Found) -> Self {
        match found {
            Found::More(chunks) => Self::Chunked(chunks),
            Found::End(0) => Self::Head,
            Found::End(_) | Found::Doubt => Self::Adrift,
        }
    }
}

impl HeadGuard {
    /// The first violation seen on this connection. It stays: nothing after it can be trusted.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    /// True when no further request may be read from this connection.
    pub(crate) fn must_close(&self) -> bool {
        self.phase.get() == Phase::Adrift
    }

    /// True when a head has begun to arrive and is not complete.
    pub(crate) fn is_inside_head(&self) -> bool {
        self.phase.get() == Phase::Head && !self.head.borrow().partial.is_empty()
    }

    /// True when the client may still be sending what nobody will read.
    pub(crate) fn may_have_more_to_send(&self) -> bool {
        self.phase.get() != Phase::Head || self.is_inside_head()
    }

    fn observe(&self, bytes: &[u8]) {
        match self.phase.get() {
            Phase::Head => self.observe_head(bytes),
            Phase::Body(left) => self.phase.set(Phase::after_known(left, bytes.len())),
            Phase::Chunked(chunks) => self.phase.set(Phase::after_chunks(chunks.read(bytes))),
            Phase::Adrift => (),
        }
    }

    fn observe_head(&self, bytes: &[u8]) {
        let mut head = self.head.borrow_mut();
        let head = &mut *head;
        let end = if head.partial.is_empty() {
            let end = head.read(bytes);
            if end.is_none() {
                head.partial.extend_from_slice(bytes);
            }
            end.map(|end| bytes.len() - end)
        } else {
            let mut whole = std::mem::take(&mut head.partial);
            whole.extend_from_slice(bytes);
            let end = head.read(&whole).map(|end| whole.len() - end);
            head.partial = whole;
            end
        };
        let Some(beyond) = end else { return };
        let head = std::mem::take(head);
        self.violation.set(self.violation.get().or(head.verdict()));
        self.phase.set(match self.violation.get() {
            Some(_) => Phase::Adrift,
            None if head.is_chunked => {
                Phase::after_chunks(Chunks::default().read(&bytes[bytes.len() - beyond..]))
            }
            None => Phase::after_known(head.content_length.unwrap_or(0), beyond),
        });
    }
}

impl Head {
    /// Takes in the lines that are complete. Returns where the head ends, if `bytes` holds its end.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(length) = memchr::memchr(b'\n', &bytes[self.line_start..]) {
            let line = &bytes[self.line_start..self.line_start + length];
            self.line_start += length + 1;
            let Some(line) = line.strip_suffix(b"\r") else {
                self.refuse("a line of the request's head ends without a carriage return");
                if line.is_empty() {
                    return Some(self.line_start);
                }
                continue;
            };
            match (self.lines, line) {
                // RFC 9112 section 2.2: empty lines before the request line are passed over.
                (0, []) => continue,
                (0, line) => self.request_line(line),
                (_, []) => return Some(self.line_start),
                (_, line) => self.field_line(line),
            }
            self.lines += 1;
        }
        None
    }

    fn request_line(&mut self, line: &[u8]) {
        if memchr::memchr(b'#', line).is_some() {
            self.refuse("the request target has a fragment");
        }
        self.is_http_10 = line.ends_with(b"HTTP/1.0");
    }

    fn field_line(&mut self, line: &[u8]) {
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value_of(line, b"content-length") {
                    self.content_length_line(value);
                }
            }
            b't' | b'T' => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    self.transfer_encoding_line(value);
                }
            }
            b' ' | b'\t' => self.refuse("a header is folded over several lines"),
            _ => (),
        }
    }

    fn content_length_line(&mut self, value: &[u8]) {
        let digits = value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|_| digits)
            .and_then(|value| value.parse().ok());
        if number.is_none() {
            self.refuse("Content-Length is no plain number");
        }
        if self.content_length.is_some() {
            self.refuse("the request has more than one Content-Length");
        }
        self.content_length = number.or(Some(0));
    }

    fn transfer_encoding_line(&mut self, value: &[u8]) {
        if self.is_chunked {
            self.refuse("the request has more than one Transfer-Encoding");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            self.refuse("Transfer-Encoding is something else than chunked");
        }
        self.is_chunked = true;
    }

    fn verdict(&self) -> Option<Violation> {
        if self.violation.is_some() {
            self.violation
        } else if self.is_chunked && self.content_length.is_some() {
            Some(Violation(
                "the request has both Transfer-Encoding and Content-Length",
            ))
        } else if self.is_chunked && self.is_http_10 {
            Some(Violation("an HTTP/1.0 request cannot have a Transfer-Encoding"))
        } else {
            None
        }
    }

    fn refuse(&mut self, why: &'static str) {
        self.violation.get_or_insert(Violation(why));
    }
}

/// The value of a field line if it has this (lower-case) name. hyper refuses space before the colon.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then_some(value.trim_ascii())
}

/// A client's stream under guard.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    guard: Rc<HeadGuard>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, guard: Rc<HeadGuard>) -> Self {
        Self { stream, guard }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.guard.observe(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(reads: &[&[u8]]) -> HeadGuard {
        let guard = HeadGuard::default();
        for read in reads {
            guard.observe(read);
        }
        guard
    }

    fn verdict(head: &str) -> Option<&'static str> {
        after(&[head.as_bytes()]).violation().map(|violation| violation.0)
    }

    #[test]
    fn ordinary_heads_follow_each_other_on_one_connection() {
        let guard = after(&[
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab",
            b"cd",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab",
            b"\r\n0\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\nTraceparent: x\r\nCookie: y\r\n\r\n",
        ]);
        assert_eq!(guard.violation(), None);
        assert!(!guard.must_close());
        assert!(!guard.may_have_more_to_send());
        guard.observe(b"PUT / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(guard.violation().is_some(), "the guard still looks at each head");
    }

    #[test]
    fn heads_with_two_readings_are_violations() {
        for head in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\nCONTENT-LENGTH: 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /public#/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n continued\r\n\r\n",
        ] {
            assert!(verdict(head).is_some(), "{head:?}");
        }
    }

    #[test]
    fn harmless_heads_are_not() {
        for head in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked \r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length-X: a\r\nTe: trailers\r\nX: #\r\n\r\n",
        ] {
            assert_eq!(verdict(head), None, "{head:?}");
        }
    }

    #[test]
    fn a_connection_whose_next_head_cannot_be_located_must_close() {
        for reads in [
            &[b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;odd\r\n\r\n".as_slice()]
                as &[&[u8]],
            &[
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            ],
            &[b"GET / HTTP/1.1\r\n\r\nGET /two HTTP/1.1\r\n\r\n"],
            &[
                b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n",
                b"abGET / HTTP/1.1\r\n\r\n",
            ],
        ] {
            let guard = after(reads);
            assert!(guard.must_close(), "{reads:?}");
            assert_eq!(guard.violation(), None);
        }
    }

    proptest! {
        #[test]
        fn how_a_head_is_cut_into_reads_changes_nothing(
            lines in prop::collection::vec(prop_oneof![
                Just("Content-Length: 3\r\n"), Just("content-length: x\r\n"), Just("Transfer-Encoding: chunked\r\n"),
                Just("Host: a\r\n"), Just("X: y\n"), Just(" z\r\n"),
            ], 0..5),
            body in "[a-c]{0,3}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let message = format!("POST /x HTTP/1.1\r\n{}\r\n{body}", lines.concat());
            let bytes = message.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).filter(|piece| !piece.is_empty()).collect();
            let (whole, cut) = (after(&[bytes]), after(&pieces));
            prop_assert_eq!(whole.violation(), cut.violation());
            // A body beyond its length is a next head if it comes in a read of its own.
            if lines.contains(&"Content-Length: 3\r\n") && body.len() <= 3 {
                prop_assert_eq!(whole.phase.get(), cut.phase.get());
            }
        }
    }
}
