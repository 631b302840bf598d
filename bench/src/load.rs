//! One thread with one event loop that is both ends of a proxy: clients that ask as fast as they are answered, or at a
//! steady rate, and the upstream that answers. So that the other core has nothing but the proxy on it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::http::{self, Framing};
use crate::upstream::{Answers, Connection};

/// Clients' tokens begin at 1, the upstream's connections here.
const UPSTREAM: usize = 1 << 20;
/// And here the upstream's listeners.
const LISTENERS: usize = 1 << 24;
/// A proxy that answers nothing for so long is broken.
const SILENCE: Duration = Duration::from_secs(5);
const SCRATCH: usize = 128 * 1024;
/// Requests in flight while connections are opened.
const AT_ONCE: usize = 64;

/// Requests in turn, and what a good answer is.
pub(crate) struct Requests {
    texts: Vec<Vec<u8>>,
    next: usize,
    least_body: usize,
}

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each client asks again as soon as it is answered.
    Saturate,
    /// So many requests a second, whatever the answers do; time counts from when a request was due.
    PerSecond(f64),
}

/// Connections, and how many of them ask at the same time: all take their turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clients {
    pub(crate) connections: usize,
    pub(crate) at_once: usize,
}

/// What one window saw.
#[derive(Debug)]
pub(crate) struct Seen<M> {
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) took: Duration,
    /// Of each answer; only at a steady rate.
    pub(crate) latencies: Vec<Duration>,
    /// What was read when the window began and when it ended.
    pub(crate) marks: (M, M),
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

pub(crate) struct Load {
    poll: Poll,
    events: Events,
    /// The first, and those of [`Load::listen_on`].
    listeners: Vec<TcpListener>,
    answers: Answers,
    upstream: Vec<Option<Connection>>,
    clients: Vec<Client>,
    scratch: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    request: usize,
    written: usize,
    input: Vec<u8>,
    body: Body,
    asked: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Body {
    /// The head is not complete.
    None,
    Length(usize),
    Chunked(usize),
}

/// What became of an event of a client.
enum Step {
    Waiting,
    Answered { good: bool },
    Ended,
}

impl<M> Seen<M> {
    /// Microseconds of `used` for each answer.
    pub(crate) fn micros_each(&self, used: Duration) -> f64 {
        used.as_secs_f64() * 1e6 / divisor(self.answered)
    }

    pub(crate) fn per_second(&self) -> f64 {
        divisor(self.answered) / self.took.as_secs_f64()
    }
}

/// Nothing counts as one.
fn divisor(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX).max(1))
}

impl Requests {
    pub(crate) fn new(texts: Vec<Vec<u8>>, least_body: usize) -> Self {
        Self {
            texts,
            next: 0,
            least_body,
        }
    }

    /// How many that differ from each other.
    pub(crate) fn count(&self) -> usize {
        self.texts.len()
    }

    fn turn(&mut self) -> usize {
        let turn = self.next;
        self.next = (turn + 1) % self.texts.len();
        turn
    }
}

impl Load {
    pub(crate) fn new() -> Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        poll.registry()
            .register(&mut listener, Token(LISTENERS), Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listeners: vec![listener],
            answers: Answers::new(),
            upstream: Vec::new(),
            clients: Vec::new(),
            scratch: vec![0; SCRATCH],
        })
    }

    /// Where proxies forward to.
    pub(crate) fn upstream_address(&self) -> Result<SocketAddr> {
        Ok(self.listeners[0].local_addr()?)
    }

    /// Makes the upstream listen on another address too, on the same port.
    pub(crate) fn listen_on(&mut self, address: Ipv4Addr) -> Result<()> {
        let address = SocketAddr::from((address, self.upstream_address()?.port()));
        let mut listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let token = Token(LISTENERS + self.listeners.len());
        self.poll
            .registry()
            .register(&mut listener, token, Interest::READABLE)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// Opens `clients` connections to `target`, asks through them, and counts for `window` after a warm-up. `mark` is
    /// called as the window begins and as it ends.
    pub(crate) fn run<M>(
        &mut self,
        target: SocketAddr,
        requests: &mut Requests,
        pace: Pace,
        clients: Clients,
        (warm_up, window): (Duration, Duration),
        mut mark: impl FnMut() -> Result<M>,
    ) -> Result<Seen<M>> {
        self.connect(target, clients.connections)?;
        let busy = clients.at_once.min(clients.connections);
        let started = Instant::now();
        let mut idle: VecDeque<usize> = (0..clients.connections).collect();
        // Of the idle ones, those that stay so.
        let spare = clients.connections - busy;
        let (mut answered, mut errors) = (0, 0);
        let mut latencies = Vec::new();
        let mut due = 0_u32;
        let mut measuring: Option<(Instant, M)> = None;
        let mut last_answer = started;
        loop {
            let now = Instant::now();
            match &measuring {
                None if now >= started + warm_up => {
                    (answered, errors) = (0, 0);
                    latencies.clear();
                    measuring = Some((now, mark()?));
                }
                Some((began, _)) if now >= *began + window => break,
                _ => (),
            }
            if now > last_answer + SILENCE {
                bail!("{target} has answered nothing for {SILENCE:?}");
            }
            match pace {
                Pace::Saturate => {
                    for client in idle.drain(..idle.len().saturating_sub(spare)) {
                        self.clients[client].ask(requests, now);
                    }
                }
                Pace::PerSecond(rate) => loop {
                    let at = started + Duration::from_secs_f64(f64::from(due) / rate);
                    if at > now || idle.len() <= spare {
                        break;
                    }
                    due += 1;
                    if let Some(client) = idle.pop_front() {
                        self.clients[client].ask(requests, at);
                    }
                },
            }
            let wait = match pace {
                Pace::Saturate => Duration::from_millis(20),
                Pace::PerSecond(_) => Duration::ZERO,
            };
            self.poll_events(wait)?;
            for (client, step) in self.client_events(requests) {
                match step {
                    Step::Waiting => (),
                    Step::Answered { good } => {
                        last_answer = Instant::now();
                        answered += u64::from(good);
                        errors += u64::from(!good);
                        if let (Pace::PerSecond(_), Some(asked)) = (pace, self.clients[client].asked.take()) {
                            latencies.push(last_answer - asked);
                        }
                        idle.push_back(client);
                    }
                    Step::Ended => {
                        errors += u64::from(self.clients[client].asked.is_some());
                        self.clients[client] = self.client(target, client)?;
                        idle.push_back(client);
                    }
                }
            }
        }
        let (began, first) = measuring.context("the window never began")?;
        let marks = (first, mark()?);
        let took = began.elapsed();
        self.clients.clear();
        Ok(Seen {
            answered,
            errors,
            took,
            latencies,
            marks,
        })
    }

    /// Opens so many connections to `target`, which take turns until so many requests are answered, and keeps them open
    /// until the next run.
    ///
    /// # Errors
    /// When a request is not answered well.
    pub(crate) fn open(
        &mut self,
        target: SocketAddr,
        requests: &mut Requests,
        connections: usize,
        answers: usize,
    ) -> Result<()> {
        self.connect(target, connections)?;
        let mut idle: VecDeque<usize> = (0..connections).collect();
        let (mut asked, mut answered) = (0, 0);
        let mut last_answer = Instant::now();
        while answered < answers {
            let now = Instant::now();
            while asked < answers
                && asked - answered < AT_ONCE
                && let Some(client) = idle.pop_front()
            {
                self.clients[client].ask(requests, now);
                asked += 1;
            }
            if now > last_answer + SILENCE {
                bail!("{target} has answered nothing for {SILENCE:?}");
            }
            self.poll_events(Duration::from_millis(20))?;
            for (client, step) in self.client_events(requests) {
                match step {
                    Step::Waiting => (),
                    Step::Answered { good: true } => {
                        last_answer = Instant::now();
                        answered += 1;
                        idle.push_back(client);
                    }
                    Step::Answered { good: false } => {
                        bail!(
                            "{target} answers\n{}",
                            String::from_utf8_lossy(&self.clients[client].input)
                        )
                    }
                    Step::Ended => bail!("{target} hung up"),
                }
            }
        }
        Ok(())
    }

    /// Closes what [`Load::open`] opened.
    pub(crate) fn close(&mut self) {
        self.clients.clear();
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&mut self, target: SocketAddr, request: &[u8]) -> Result<Answer> {
        self.connect(target, 1)?;
        let mut requests = Requests::new(vec![request.to_vec()], 0);
        let asked = Instant::now();
        self.clients[0].ask(&mut requests, asked);
        while asked.elapsed() < SILENCE {
            self.poll_events(Duration::from_millis(20))?;
            for (client, step) in self.client_events(&mut requests) {
                match step {
                    Step::Waiting => (),
                    Step::Answered { .. } => {
                        let text = std::mem::take(&mut self.clients[client].input);
                        return Ok(Answer {
                            status: http::status(&text).context("an answer without a status")?,
                            text: String::from_utf8_lossy(&text).into_owned(),
                        });
                    }
                    Step::Ended => bail!("{target} hung up"),
                }
            }
        }
        bail!("{target} did not answer within {SILENCE:?}")
    }

    fn connect(&mut self, target: SocketAddr, clients: usize) -> Result<()> {
        self.clients.clear();
        for number in 0..clients {
            let client = self.client(target, number)?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn client(&self, target: SocketAddr, number: usize) -> Result<Client> {
        // Blocking, so that nobody asks before it is connected.
        let stream =
            std::net::TcpStream::connect(target).with_context(|| format!("{target} takes no connection"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(number + 1), interest)?;
        Ok(Client {
            stream,
            request: 0,
            written: 0,
            input: Vec::with_capacity(4096),
            body: Body::None,
            asked: None,
        })
    }

    fn poll_events(&mut self, wait: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => Ok(other?),
        }
    }

    /// Serves the upstream's events, and returns what clients saw.
    fn client_events(&mut self, requests: &mut Requests) -> Vec<(usize, Step)> {
        let mut steps = Vec::new();
        for event in &self.events {
            match event.token() {
                Token(token) if token >= LISTENERS => {
                    while let Ok((mut stream, _)) = self.listeners[token - LISTENERS].accept() {
                        let _ = stream.set_nodelay(true);
                        let place = self
                            .upstream
                            .iter()
                            .position(Option::is_none)
                            .unwrap_or(self.upstream.len());
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        if self
                            .poll
                            .registry()
                            .register(&mut stream, Token(UPSTREAM + place), interest)
                            .is_err()
                        {
                            continue;
                        }
                        let connection = Some(Connection::new(stream));
                        match self.upstream.get_mut(place) {
                            Some(free) => *free = connection,
                            None => self.upstream.push(connection),
                        }
                    }
                }
                Token(token) if token >= UPSTREAM => {
                    if let Some(place) = self.upstream.get_mut(token - UPSTREAM)
                        && let Some(connection) = place
                        && connection.advance(&self.answers, &mut self.scratch).is_err()
                    {
                        *place = None;
                    }
                }
                Token(token) => {
                    if let Some(client) = self.clients.get_mut(token - 1) {
                        let step = client.advance(requests, &mut self.scratch);
                        if !matches!(step, Step::Waiting) {
                            steps.push((token - 1, step));
                        }
                    }
                }
            }
        }
        steps
    }
}

impl Client {
    fn ask(&mut self, requests: &mut Requests, due: Instant) {
        self.request = requests.turn();
        self.written = 0;
        self.input.clear();
        self.body = Body::None;
        self.asked = Some(due);
        // A failure shows when the answer is read.
        let _ = self.write(requests);
    }

    fn write(&mut self, requests: &Requests) -> io::Result<()> {
        let text = &requests.texts[self.request];
        while self.written < text.len() {
            match self.stream.write(&text[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, requests: &Requests, scratch: &mut [u8]) -> Step {
        if self.asked.is_some() && self.write(requests).is_err() {
            return Step::Ended;
        }
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Step::Ended,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waiting,
                Err(_) => return Step::Ended,
            };
            if self.take(&scratch[..read]) {
                let status = http::status(&self.input);
                let good = matches!(status, Some(200..=299)) && self.body_bytes() >= requests.least_body;
                return Step::Answered { good };
            }
            if read < scratch.len() {
                return Step::Waiting;
            }
        }
    }

    /// True once the answer has ended.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        if matches!(self.body, Body::None) {
            let Some(head) = http::head(&self.input) else {
                return false;
            };
            self.body = match head.framing {
                Framing::Length(length) => Body::Length(head.length + length),
                Framing::Chunked => Body::Chunked(head.length),
            };
        }
        match self.body {
            Body::None => false,
            Body::Length(whole) => self.input.len() >= whole,
            Body::Chunked(head) => http::ends_chunked(&self.input[head..]),
        }
    }

    fn body_bytes(&self) -> usize {
        let head = http::head(&self.input).map_or(0, |head| head.length);
        self.input.len() - head
    }
}
