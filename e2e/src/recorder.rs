//! A TCP proxy that keeps the requests passing through it, byte for byte: what a hop really received.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::{find, header_values};

/// Sits before one hop until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

/// The head of one request, as it came.
#[derive(Clone, Debug)]
pub struct Received(String);

impl Recorder {
    pub async fn before(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream, Arc::clone(&keep)));
            }
        });
        Ok(Self {
            address,
            received,
            task,
        })
    }

    /// Where to connect instead of the hop.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, in the order in which their heads were complete.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Forgets what was received.
    pub fn clear(&self) {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    /// All values of a header, in order.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<&str> {
        header_values(&self.0, name).collect()
    }

    /// Request line and headers.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.0
    }
}

async fn pass(client: TcpStream, upstream: SocketAddr, received: Arc<Mutex<Vec<Received>>>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forth = async {
        let mut requests = Requests::default();
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut chunk).await {
            requests.take(
                &chunk[..count],
                &mut received.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if to_server.write_all(&chunk[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(forth, back);
}

/// Finds the heads among the bytes of one connection.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    /// What is left of a body whose head has been kept.
    body: Body,
}

#[derive(Clone, Copy, Default)]
enum Body {
    #[default]
    None,
    Length(usize),
    Chunked,
}

impl Requests {
    fn take(&mut self, bytes: &[u8], received: &mut Vec<Received>) {
        self.bytes.extend_from_slice(bytes);
        loop {
            match self.body {
                Body::None => {
                    let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
                        return;
                    };
                    let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let length = header_values(&head, "content-length")
                        .next()
                        .and_then(|length| length.parse().ok());
                    self.body = match length {
                        Some(length) => Body::Length(length),
                        None if header_values(&head, "transfer-encoding").next().is_some() => Body::Chunked,
                        None => Body::None,
                    };
                    received.push(Received(head));
                }
                Body::Length(left) => {
                    let here = left.min(self.bytes.len());
                    self.bytes.drain(..here);
                    if here < left {
                        self.body = Body::Length(left - here);
                        return;
                    }
                    self.body = Body::None;
                }
                Body::Chunked => {
                    // Good enough for what tests send: no chunk of theirs holds the last chunk's bytes.
                    let Some(end) = find(&self.bytes, b"0\r\n\r\n") else {
                        return;
                    };
                    self.bytes.drain(..end + 5);
                    self.body = Body::None;
                }
            }
        }
    }
}
