//! An HTTP/1.1 client that sends exactly the bytes it is given and never repeats a request by itself. Every wait
//! has a deadline: a hang is a failure, not a test that does not end.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than any timeout of the chain under test.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One connection, kept alive.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// Connects when it must, and keeps the connection for as long as the server wants.
#[derive(Debug)]
pub struct Kept {
    address: SocketAddr,
    connection: Option<Connection>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The connection broke after something of the request was sent.
    Broken(String),
    /// No connection came about.
    Refused(String),
}

/// One answer, read whole.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = within(TcpStream::connect(address), "connect").await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends bytes, which need not be a request.
    pub async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        within(self.stream.write_all(bytes), "send").await
    }

    /// Reads one answer; `None` if the connection ended cleanly before it began.
    pub async fn answer(&mut self) -> anyhow::Result<Option<Answer>> {
        let head_end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.read_more().await? {
                if self.unread.is_empty() {
                    return Ok(None);
                }
                bail!("the connection ended within a head");
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_end).collect();
        let head = String::from_utf8(head).context("a head is text")?;
        let status = head
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .context("no status line")?;
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        answer.body = self.body(&answer).await?;
        Ok(Some(answer))
    }

    /// Sends one request and reads its answer.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.send(request).await?;
        self.answer()
            .await?
            .context("the connection ended without an answer")
    }

    async fn body(&mut self, answer: &Answer) -> anyhow::Result<Vec<u8>> {
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().context("content-length is no number")?;
            while self.unread.len() < length {
                if !self.read_more().await? {
                    bail!("the connection ended within a body");
                }
            }
            return Ok(self.unread.drain(..length).collect());
        }
        if answer.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(&size, 16).context("a chunk has a size")?;
                while self.unread.len() < size + 2 {
                    if !self.read_more().await? {
                        bail!("the connection ended within a chunk");
                    }
                }
                body.extend(self.unread.drain(..size));
                self.unread.drain(..2);
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        if matches!(answer.status, 204 | 304) {
            return Ok(Vec::new());
        }
        while self.read_more().await? {}
        Ok(std::mem::take(&mut self.unread))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line)?);
            }
            if !self.read_more().await? {
                bail!("the connection ended within a line");
            }
        }
    }

    async fn read_more(&mut self) -> anyhow::Result<bool> {
        Ok(within(self.stream.read_buf(&mut self.unread), "read").await? > 0)
    }
}

impl Kept {
    #[must_use]
    pub const fn to(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Sends one request and reads its answer.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer, Unanswered> {
        let mut open = match self.connection.take() {
            Some(open) => open,
            None => Connection::open(self.address)
                .await
                .map_err(|error| Unanswered::Refused(format!("{error:#}")))?,
        };
        let answer = open
            .ask(request)
            .await
            .map_err(|error| Unanswered::Broken(format!("{error:#}")))?;
        let is_last = answer
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !is_last {
            self.connection = Some(open);
        }
        Ok(answer)
    }
}

impl Answer {
    /// The only value of a header; `None` if it is absent or repeated.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = header_values(&self.head, name);
        values.next().filter(|_| values.next().is_none())
    }

    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}{}", self.head, String::from_utf8_lossy(&self.body)))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

/// The values of a header in a head, in order.
pub fn header_values<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    head.split("\r\n").skip(1).filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim_matches([' ', '\t']))
    })
}

/// A request with a body, which may be empty.
#[must_use]
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: shop.test\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(
            text,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// `GET path` on a connection of its own, with this token if any.
pub async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer
        .iter()
        .map(|bearer| ("authorization", bearer.as_str()))
        .collect();
    Connection::open(address)
        .await?
        .ask(&request("GET", path, &headers, ""))
        .await
}

/// `PUT path` on a connection of its own.
pub async fn put(address: SocketAddr, path: &str, token: &str, body: &str) -> anyhow::Result<Answer> {
    let bearer = format!("Bearer {token}");
    Connection::open(address)
        .await?
        .ask(&request("PUT", path, &[("authorization", &bearer)], body))
        .await
}

/// Sends bytes on a connection of their own and reads what comes: an answer, or the connection's end.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let mut connection = Connection::open(address).await?;
    // A server that refuses early may close while we still send; what counts is what it says.
    let _ = connection.send(bytes).await;
    connection.answer().await
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>, what: &str) -> anyhow::Result<T> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.with_context(|| format!("{what} took longer than {DEADLINE:?}"))?
        .with_context(|| format!("cannot {what}"))
}

pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
