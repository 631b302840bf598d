//! One request and its answer on one connection to an upstream, driven by whoever wants the answer: no task of its own,
//! no channel, and a request that was not sent is still there to be sent elsewhere. Both directions go on at once, so
//! that an answer may come before the request has ended.
//!
//! It knows nothing of routes, addresses or retries.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answer_chunks::AnswerChunks;
use crate::answer_head::{self, AnswerHead, BadAnswer, Framing};
use crate::body::{BodyError, RequestBody};

/// A head that does not end within this is none.
const MAX_HEAD: usize = 256 * 1024;
/// Interim answers (RFC 9110 section 15.2) that are passed over before the final one.
const MAX_INTERIM: u32 = 16;
/// So much of a body goes out together with what stands before it.
const GATHERED: usize = 8 * 1024;

/// A request as it goes out, and the answer as it comes in.
#[derive(Debug)]
pub(crate) struct Conversation<S> {
    stream: S,
    method: Method,
    upload: Upload,
    reading: Reading,
    keeps_connection: bool,
}

/// What is to be sent, and how far that is.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Encoded bytes, of which so many are written. Those of a request without a body stay to the end: it may be sent
    /// again.
    bytes: Vec<u8>,
    written: usize,
    /// Goes out behind `bytes`, without being copied.
    data: Bytes,
    body: RequestBody,
    is_chunked: bool,
    /// Where the head says what is left of the deadline.
    remaining: Option<Range<usize>>,
    is_encoded: bool,
    /// Bytes that the stream took.
    taken: usize,
    /// The upstream takes no more; it may still have answered.
    was_refused: bool,
}

#[derive(Debug)]
enum Reading {
    /// What has come of the head.
    Head {
        partial: Vec<u8>,
        interim: u32,
    },
    /// So much of the body has come before it was asked for.
    Body {
        early: Bytes,
        rest: Rest,
    },
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    Length(u64),
    Chunked(AnswerChunks),
    Close,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversationError {
    /// Nothing was sent; here it is again.
    #[error("the connection had ended")]
    Unsent(Box<Upload>),
    /// Something was sent, and not a byte came back.
    #[error("the connection ended without an answer")]
    Silent(Box<Upload>),
    /// The answer began and did not end, or is none.
    #[error("the answer broke off")]
    BrokeOff(#[source] io::Error),
    #[error("the request's body broke off")]
    Body(#[source] BodyError),
}

impl Upload {
    /// `head` is encoded, with its empty line. A body goes as chunks where its head says so.
    pub(crate) fn new(
        head: Vec<u8>,
        remaining: Option<Range<usize>>,
        body: RequestBody,
        is_chunked: bool,
    ) -> Self {
        Self {
            bytes: head,
            written: 0,
            data: Bytes::new(),
            is_encoded: body.is_empty(),
            body,
            is_chunked,
            remaining,
            taken: 0,
            was_refused: false,
        }
    }

    /// Says again what is left of the deadline: time has passed since. Only while nothing was sent.
    pub(crate) fn set_remaining(&mut self, left: Duration) {
        if let Some(digits) = &mut self.remaining {
            let left = left.as_millis().to_string();
            let end = digits.start + left.len();
            self.bytes.splice(digits.clone(), left.into_bytes());
            digits.end = end;
        }
    }

    /// The same once more, if all of it is still here.
    pub(crate) fn again(self) -> Option<Self> {
        let is_whole = self.body.is_empty();
        is_whole.then(|| Self::new(self.bytes, self.remaining, self.body, self.is_chunked))
    }

    #[cfg(test)]
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// Encodes what there is of the body, up to what is written at once.
    fn encode(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        while !self.is_encoded && self.data.is_empty() && self.bytes.len() < GATHERED {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(());
            };
            let Some(frame) = frame else {
                self.is_encoded = true;
                if self.is_chunked {
                    self.bytes.extend_from_slice(b"0\r\n\r\n");
                }
                return Ok(());
            };
            match frame?.into_data() {
                Ok(data) if self.is_chunked && !data.is_empty() => {
                    let size = format!("{:x}\r\n", data.len());
                    self.bytes.extend_from_slice(size.as_bytes());
                    self.bytes.extend_from_slice(&data);
                    self.bytes.extend_from_slice(b"\r\n");
                }
                Ok(data) if data.len() <= GATHERED => self.bytes.extend_from_slice(&data),
                Ok(data) => self.data = data,
                Err(_trailers) => (),
            }
        }
        Ok(())
    }

    /// Writes until nothing is left, the body or the stream must be waited for, or the upstream takes no more.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Result<(), BodyError> {
        while !self.was_refused {
            self.encode(cx)?;
            let waiting = match &self.bytes[self.written..] {
                [] => &self.data,
                bytes => bytes,
            };
            if waiting.is_empty() {
                break;
            }
            match Pin::new(&mut *stream).poll_write(cx, waiting) {
                Poll::Ready(Ok(count)) if count > 0 => self.advance(count),
                Poll::Ready(_) => self.was_refused = true,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if self.written == self.bytes.len() {
            self.data = self.data.slice(count..);
            return;
        }
        self.written += count;
        if self.written == self.bytes.len() && !self.body.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }

    fn has_ended(&self) -> bool {
        self.is_encoded && self.written == self.bytes.len() && self.data.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(stream: S, method: Method, upload: Upload) -> Self {
        Self {
            stream,
            method,
            upload,
            reading: Reading::Head {
                partial: Vec::new(),
                interim: 0,
            },
            keeps_connection: false,
        }
    }

    /// Sends on and waits for the head of the answer. `scratch` is room to read into. It must not be called again
    /// after it was ready.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<AnswerHead, ConversationError>> {
        if let Err(error) = self.upload.poll_write(&mut self.stream, cx) {
            return Poll::Ready(Err(ConversationError::Body(error)));
        }
        if self.upload.was_refused && self.upload.taken == 0 {
            return Poll::Ready(Err(ConversationError::Unsent(self.take_upload())));
        }
        loop {
            let count = match ready!(poll_read(&mut self.stream, cx, scratch)) {
                Ok(0) => return Poll::Ready(Err(self.ended_early(io::ErrorKind::UnexpectedEof.into()))),
                Ok(count) => count,
                Err(error) => return Poll::Ready(Err(self.ended_early(error))),
            };
            match self.take_head(&scratch[..count]) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => (),
                Err(bad) => return Poll::Ready(Err(ConversationError::BrokeOff(invalid(bad)))),
            }
        }
    }

    /// The next piece of the answer's body, `None` at its end; sends on meanwhile.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Err(error) = self.upload.poll_write(&mut self.stream, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Reading::Body { early, rest } = &mut self.reading else {
                return Poll::Ready(None);
            };
            let taken = if early.is_empty() {
                let count = match ready!(poll_read(&mut self.stream, cx, scratch)) {
                    Ok(0) if matches!(rest, Rest::Close) => {
                        self.reading = Reading::Over;
                        continue;
                    }
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    other => other,
                };
                match count {
                    Ok(count) => rest.take(&scratch[..count]),
                    Err(error) => return Poll::Ready(Some(Err(BodyError::Upstream(error)))),
                }
            } else {
                rest.take_shared(&std::mem::take(early))
            };
            match taken {
                Ok(Taken {
                    data,
                    left_over,
                    ended,
                }) => {
                    self.keeps_connection &= left_over == 0;
                    if ended {
                        self.reading = Reading::Over;
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Err(bad) => return Poll::Ready(Some(Err(BodyError::Upstream(invalid(bad))))),
            }
        }
    }

    /// True once the whole answer was handed out.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.reading, Reading::Over)
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match &self.reading {
            Reading::Body {
                rest: Rest::Length(left),
                ..
            } => Some(*left),
            Reading::Body { .. } | Reading::Head { .. } => None,
            Reading::Over => Some(0),
        }
    }

    /// The stream, if another request may follow on it.
    pub(crate) fn into_idle(self) -> Option<S> {
        (self.has_ended() && self.keeps_connection && self.upload.has_ended()).then_some(self.stream)
    }

    /// What was sent.
    pub(crate) fn into_upload(self) -> Upload {
        self.upload
    }

    fn ended_early(&mut self, error: io::Error) -> ConversationError {
        let came = match &self.reading {
            Reading::Head { partial, interim } => !partial.is_empty() || *interim > 0,
            Reading::Body { .. } | Reading::Over => true,
        };
        if came {
            ConversationError::BrokeOff(error)
        } else {
            ConversationError::Silent(self.take_upload())
        }
    }

    fn take_upload(&mut self) -> Box<Upload> {
        let nothing = Upload::new(Vec::new(), None, RequestBody::Empty, false);
        let mut upload = Box::new(std::mem::replace(&mut self.upload, nothing));
        upload.was_refused = false;
        upload
    }

    fn take_head(&mut self, came: &[u8]) -> Result<Option<AnswerHead>, BadAnswer> {
        let Reading::Head { partial, interim } = &mut self.reading else {
            return Ok(None);
        };
        partial.extend_from_slice(came);
        let mut bytes = Bytes::from(std::mem::take(partial));
        loop {
            match answer_head::read(&bytes, &self.method)? {
                None if bytes.len() > MAX_HEAD => return Err(BadAnswer::TOO_LARGE),
                None => {
                    *partial = bytes.into();
                    return Ok(None);
                }
                Some((head, length)) => {
                    let behind = bytes.split_off(length);
                    let is_interim = head.status.is_informational() && head.status.as_u16() != 101;
                    if is_interim && *interim < MAX_INTERIM {
                        *interim += 1;
                        bytes = behind;
                        continue;
                    }
                    self.begin_body(&head, behind);
                    return Ok(Some(head));
                }
            }
        }
    }

    fn begin_body(&mut self, head: &AnswerHead, early: Bytes) {
        self.keeps_connection = head.keeps_connection;
        let rest = match head.framing {
            Framing::Length(0) => {
                self.keeps_connection &= early.is_empty();
                self.reading = Reading::Over;
                return;
            }
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(AnswerChunks::default()),
            Framing::Close => Rest::Close,
        };
        self.reading = Reading::Body { early, rest };
    }
}

/// What of some bytes belongs to a body.
struct Taken {
    data: Bytes,
    /// Bytes behind its end.
    left_over: usize,
    ended: bool,
}

impl Rest {
    fn take(&mut self, came: &[u8]) -> Result<Taken, BadAnswer> {
        match self {
            Self::Chunked(_) => self.dechunk(came),
            Self::Length(_) | Self::Close => {
                let here = self.share(came.len());
                self.take_shared(&Bytes::copy_from_slice(&came[..here]))
                    .map(|taken| Taken {
                        left_over: came.len() - here,
                        ..taken
                    })
            }
        }
    }

    fn take_shared(&mut self, came: &Bytes) -> Result<Taken, BadAnswer> {
        let here = self.share(came.len());
        match self {
            Self::Chunked(_) => self.dechunk(came),
            Self::Length(left) => {
                *left -= here as u64;
                Ok(Taken {
                    data: came.slice(..here),
                    left_over: came.len() - here,
                    ended: *left == 0,
                })
            }
            Self::Close => Ok(Taken {
                data: came.clone(),
                left_over: 0,
                ended: false,
            }),
        }
    }

    fn share(&self, came: usize) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).map_or(came, |left| left.min(came)),
            Self::Chunked(_) | Self::Close => came,
        }
    }

    fn dechunk(&mut self, came: &[u8]) -> Result<Taken, BadAnswer> {
        let Self::Chunked(chunks) = self else {
            return Err(BadAnswer::CHUNKS);
        };
        // Payloads of one read leave as one piece.
        let mut payload = Vec::with_capacity(came.len());
        let read = chunks.read(came, &mut payload)?;
        Ok(Taken {
            data: payload.into(),
            left_over: came.len() - read,
            ended: chunks.has_ended(),
        })
    }
}

fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut room = ReadBuf::new(scratch);
    ready!(Pin::new(stream).poll_read(cx, &mut room))?;
    Poll::Ready(Ok(room.filled().len()))
}

fn invalid(bad: BadAnswer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, bad)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::Request;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A status, headers and a whole body; `None` for anything else.
    type Understood = Option<(u16, Vec<(String, Vec<u8>)>, Vec<u8>)>;

    fn lines(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
        let lines = headers.iter();
        lines
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect()
    }

    fn upload(body: RequestBody) -> Upload {
        Upload::new(REQUEST.into(), None, body, false)
    }

    /// Waits for the request's head, writes the pieces one by one and hangs up.
    async fn serve(mut stream: DuplexStream, pieces: Vec<Vec<u8>>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        for piece in pieces {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }

    /// What we make of an answer, and whether its connection could be used again.
    async fn ours(pieces: Vec<Vec<u8>>, method: Method, scratch: usize) -> (Understood, bool) {
        let (stream, upstream) = tokio::io::duplex(256);
        let server = tokio::spawn(serve(upstream, pieces));
        let mut scratch = vec![0; scratch];
        let mut conversation = Conversation::new(stream, method, upload(RequestBody::Empty));
        let understood = async {
            let head = poll_fn(|cx| conversation.poll_head(cx, &mut scratch))
                .await
                .ok()?;
            let mut body = Vec::new();
            while !conversation.has_ended() {
                match poll_fn(|cx| conversation.poll_data(cx, &mut scratch)).await {
                    None => break,
                    Some(data) => body.extend_from_slice(&data.ok()?),
                }
            }
            Some((head.status.as_u16(), lines(&head.headers), body))
        }
        .await;
        let is_idle = conversation.into_idle().is_some();
        server.abort();
        (understood, is_idle)
    }

    /// What hyper makes of it.
    async fn hypers(pieces: Vec<Vec<u8>>, method: Method) -> Understood {
        let (stream, upstream) = tokio::io::duplex(256);
        let server = tokio::spawn(serve(upstream, pieces));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = Request::builder().method(method).header("host", "a");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let understood = async {
            let answer = sender.send_request(request).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.ok()?.to_bytes().to_vec();
            Some((head.status.as_u16(), lines(&head.headers), body))
        }
        .await;
        driver.abort();
        server.abort();
        understood
    }

    fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec());
        pieces.filter(|piece| !piece.is_empty()).collect()
    }

    /// Answers made of what matters, whole and broken, so that odd neighbours meet often.
    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let line = prop::sample::select(vec![
            "Content-Length: 5\r\n",
            "content-length: 0\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: x\r\n",
            "Content-Length:  5 \r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding: CHUNKED \r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "X-Odd : 1\r\n",
            "X: a\r\n b\r\n",
            "X: \u{e9}\r\n",
            "Set-Cookie: a=1\r\n",
            "Set-Cookie: b=2\r\n",
            "X-Bare: 1\n",
        ]);
        let status = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200\r\n",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/1.1 204 No Content\r\n",
            "HTTP/1.1 304 Not Modified\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
            "HTTP/2 200 OK\r\n",
            "HTTP/1.1 20 OK\r\n",
        ]);
        let body = prop_oneof![
            Just("first".to_owned()),
            Just(String::new()),
            Just("fir".to_owned()),
            Just("5\r\nfirst\r\n0\r\n\r\n".to_owned()),
            Just("5;x=y\r\nfirst\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n".to_owned()),
            Just("5\r\nfirst\r\n".to_owned()),
            Just("0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned()),
            Just("5\nfirst\n0\n\n".to_owned()),
            "[0-9a-f\r\n]{0,30}",
        ];
        (status, prop::collection::vec(line, 0..4), body)
            .prop_map(|(status, lines, body)| format!("{status}{}\r\n{body}", lines.concat()).into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_answer_is_understood_otherwise_than_hyper_understands_it(
            answer in answer(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            is_head in any::<bool>(),
            scratch in prop::sample::select(vec![1, 7, 4096]),
        ) {
            let method = if is_head { Method::HEAD } else { Method::GET };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pieces = cut(&answer, &cuts);
                let (ours, is_idle) = ours(pieces.clone(), method.clone(), scratch).await;
                let (whole, _) = self::ours(vec![answer.clone()], method.clone(), 4096).await;
                prop_assert_eq!(&ours, &whole, "how it is cut into reads changes nothing");
                prop_assert!(ours.is_some() || !is_idle, "a connection out of step is not used again");
                if ours.is_some() {
                    // We refuse more than hyper does, and never read something else.
                    prop_assert_eq!(ours, hypers(pieces, method).await);
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_connection_is_idle_only_when_nothing_is_left_of_its_answer() {
        for (answer, idle) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst", true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\nx", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfirst",
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nfirst", false),
        ] {
            let (understood, is_idle) = ours(vec![answer.into()], Method::GET, 4096).await;
            assert!(understood.is_some(), "{answer:?}");
            assert_eq!(is_idle, idle, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn what_was_not_sent_comes_back_and_what_was_sent_can_be_made_again() {
        // Closed before it was used: nothing can be written.
        let (stream, upstream) = tokio::io::duplex(256);
        drop(upstream);
        let mut conversation = Conversation::new(stream, Method::GET, upload(RequestBody::Empty));
        let error = poll_fn(|cx| conversation.poll_head(cx, &mut [0; 64]))
            .await
            .unwrap_err();
        let ConversationError::Unsent(unsent) = error else {
            panic!("{error}");
        };
        assert_eq!(unsent.encoded(), REQUEST.as_bytes());

        // Closed after the request had come.
        let (stream, mut upstream) = tokio::io::duplex(256);
        let mut conversation = Conversation::new(stream, Method::GET, *unsent);
        let hang_up = async {
            upstream.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
            drop(upstream);
        };
        let (error, ()) = tokio::join!(poll_fn(|cx| conversation.poll_head(cx, &mut [0; 64])), hang_up);
        let Err(ConversationError::Silent(sent)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(sent.again().unwrap().encoded(), REQUEST.as_bytes());
    }

    #[test]
    fn what_is_left_of_a_deadline_is_said_anew() {
        let head = b"GET / HTTP/1.1\r\nleft: 5000\r\n\r\n";
        let mut upload = Upload::new(head.to_vec(), Some(22..26), RequestBody::Empty, false);
        for (left, line) in [(900, "left: 900\r\n\r\n"), (4999, "left: 4999\r\n\r\n")] {
            upload.set_remaining(Duration::from_millis(left));
            assert!(upload.encoded().ends_with(line.as_bytes()), "{left}");
        }
    }
}
