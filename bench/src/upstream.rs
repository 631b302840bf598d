//! What proxies forward to: a server that answers at once and costs as little as a server can. Its path says what it
//! answers; a request's body is read and thrown away.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::http::{self, Framing};

/// 41 bytes of JSON.
pub(crate) const SMALL: &str = r#"{"id":"1","name":"a thing","version":123}"#;
pub(crate) const STREAMED_CHUNKS: usize = 16;
pub(crate) const CHUNK_BYTES: usize = 4096;

/// All there is to answer, made once.
pub(crate) struct Answers {
    small: Vec<u8>,
    kib_1: Vec<u8>,
    kib_64: Vec<u8>,
    /// Written one by one.
    streamed: Vec<Vec<u8>>,
    accepted: Vec<u8>,
}

/// One connection of a proxy.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    state: State,
    answer: Which,
    /// What of the answer is out: its piece and how much of that.
    written: (usize, usize),
    is_answering: bool,
}

#[derive(Clone, Copy)]
enum State {
    Head,
    Body(usize),
    Chunked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Small,
    Kib1,
    Kib64,
    Streamed,
    Accepted,
}

impl Answers {
    pub(crate) fn new() -> Self {
        let whole = |body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        };
        let chunk = "x".repeat(CHUNK_BYTES);
        let mut streamed = vec![
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec(),
        ];
        streamed.extend((0..STREAMED_CHUNKS).map(|_| format!("{CHUNK_BYTES:x}\r\n{chunk}\r\n").into_bytes()));
        streamed.push(b"0\r\n\r\n".to_vec());
        Self {
            small: whole(SMALL),
            kib_1: whole(&"x".repeat(1024)),
            kib_64: whole(&"x".repeat(64 * 1024)),
            streamed,
            accepted: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }

    fn pieces(&self, which: Which) -> &[Vec<u8>] {
        match which {
            Which::Small => std::slice::from_ref(&self.small),
            Which::Kib1 => std::slice::from_ref(&self.kib_1),
            Which::Kib64 => std::slice::from_ref(&self.kib_64),
            Which::Streamed => &self.streamed,
            Which::Accepted => std::slice::from_ref(&self.accepted),
        }
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            state: State::Head,
            answer: Which::Small,
            written: (0, 0),
            is_answering: false,
        }
    }

    /// Reads what there is and answers what is complete.
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn advance(&mut self, answers: &Answers, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            if self.is_answering && !self.write(answers)? {
                return Ok(());
            }
            let read = match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.take(&scratch[..read]) {
                self.is_answering = true;
                self.written = (0, 0);
                if !self.write(answers)? {
                    return Ok(());
                }
            }
            // The next byte will be told of by another event.
            if read < scratch.len() {
                return Ok(());
            }
        }
    }

    /// True once a request has ended.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let rest = match self.state {
            State::Head => {
                self.input.extend_from_slice(bytes);
                let Some(head) = http::head(&self.input) else {
                    return false;
                };
                self.answer = which(&self.input);
                let body = self.input.len() - head.length;
                match head.framing {
                    Framing::Length(length) => {
                        self.state = State::Body(length);
                        body
                    }
                    Framing::Chunked => {
                        self.input.drain(..head.length);
                        self.state = State::Chunked;
                        return self.chunked(&[]);
                    }
                }
            }
            State::Body(_) => bytes.len(),
            State::Chunked => return self.chunked(bytes),
        };
        let State::Body(left) = self.state else {
            return false;
        };
        self.input.clear();
        self.state = State::Body(left.saturating_sub(rest));
        self.ended(left <= rest)
    }

    /// Only the end of a chunked body is of interest.
    fn chunked(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        let ended = http::ends_chunked(&self.input);
        let kept = self.input.len().min(16);
        self.input.drain(..self.input.len() - kept);
        self.ended(ended)
    }

    fn ended(&mut self, ended: bool) -> bool {
        if ended {
            self.state = State::Head;
            self.input.clear();
        }
        ended
    }

    /// True once the answer is out.
    fn write(&mut self, answers: &Answers) -> io::Result<bool> {
        let pieces = answers.pieces(self.answer);
        while let Some(piece) = pieces.get(self.written.0) {
            match self.stream.write(&piece[self.written.1..]) {
                Ok(written) if self.written.1 + written == piece.len() => {
                    self.written = (self.written.0 + 1, 0);
                }
                Ok(written) => self.written.1 += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.is_answering = false;
        Ok(true)
    }
}

fn which(request: &[u8]) -> Which {
    let line = &request[..memchr::memchr(b'\r', request).unwrap_or(request.len())];
    let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if path.ends_with(b"/1k") {
        Which::Kib1
    } else if path.ends_with(b"/64k") {
        Which::Kib64
    } else if path.ends_with(b"/streamed") {
        Which::Streamed
    } else if path == b"/v1/traces" {
        Which::Accepted
    } else {
        Which::Small
    }
}
