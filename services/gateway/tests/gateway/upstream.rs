//! A service that writes down every request it is sent and answers as its test wants.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::client::{PATIENCE, header};

/// What came: the head's bytes as text, the body's as they travelled.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Which of the upstream's connections it came on, from 0.
    pub(crate) connection: usize,
}

/// An upstream; it listens until the test's process ends.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<(Mutex<Vec<Received>>, Condvar)>,
}

/// A connection with a request whose head has been read, for the test to go on with.
pub(crate) struct Conversation<'a> {
    pub(crate) stream: &'a mut TcpStream,
    pub(crate) received: Received,
}

/// What a request of no interest is answered with.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok";

impl Upstream {
    /// Answers every request with [`OK`].
    pub(crate) fn start() -> Self {
        Self::answering(|_| OK.to_owned())
    }

    /// Answers every request with what `answer` makes of it.
    pub(crate) fn answering(answer: impl Fn(&Received) -> String + Send + Sync + 'static) -> Self {
        Self::conversing(true, move |conversation| {
            let answer = answer(&conversation.received);
            conversation.stream.write_all(answer.as_bytes()).is_ok()
        })
    }

    /// Leaves the connection to `converse` once a head has come, and its body too if `reads_body`. The connection
    /// goes on as long as that returns true.
    pub(crate) fn conversing(
        reads_body: bool,
        converse: impl Fn(Conversation<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let (upstream, converse) = (this.clone(), Arc::new(converse));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (upstream, converse, mut stream) =
                    (upstream.clone(), Arc::clone(&converse), stream.unwrap());
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    while let Some(received) = read(&mut stream, connection, reads_body) {
                        upstream.note(received.clone());
                        if !converse(Conversation {
                            stream: &mut stream,
                            received,
                        }) {
                            return;
                        }
                    }
                });
            }
        });
        this
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything so far. The gateway answers after its upstream, so that after an answer nothing is missing.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.seen.0.lock().unwrap().clone()
    }

    pub(crate) fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:#?}");
        received[0].clone()
    }

    /// Waits until so many requests have come.
    pub(crate) fn await_requests(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap();
        while seen.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} of {count} requests came", seen.len());
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }

    fn note(&self, received: Received) {
        self.seen.0.lock().unwrap().push(received);
        self.seen.1.notify_all();
    }
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

fn read(stream: &mut TcpStream, connection: usize, reads_body: bool) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut body = Vec::new();
    if reads_body {
        if let Some(length) = header(&head, "content-length") {
            body.resize(length.parse().unwrap(), 0);
            stream.read_exact(&mut body).ok()?;
        } else if header(&head, "transfer-encoding").is_some() {
            while !body.ends_with(b"0\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).ok()? == 0 {
                    return None;
                }
                body.push(byte[0]);
            }
        }
    }
    Some(Received {
        head,
        body,
        connection,
    })
}
