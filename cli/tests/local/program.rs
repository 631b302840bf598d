//! The real program as a child process, and a client of what it serves.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// What is promised is a second or two.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A running `servicechain local`; killed if a test fails before it is told to end.
pub(crate) struct Local {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn servicechain(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_servicechain"));
    command
        .args(args)
        .env_clear()
        .env("SERVICECHAIN_STATE_DIR", state)
        .stdin(Stdio::null());
    command
}

impl Local {
    pub(crate) fn start(state: &Path, args: &[&str]) -> Self {
        let args = [&["local"], args].concat();
        Self::spawn(servicechain(state, &args))
    }

    /// Of a command as [`servicechain`] makes it.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout }
    }

    /// The next line, or a failure after the deadline.
    pub(crate) fn line(&mut self) -> String {
        let mut stdout = self.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            (stdout, line)
        });
        let deadline = Instant::now() + READY_WITHIN;
        while !reader.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        assert!(reader.is_finished(), "no line within {READY_WITHIN:?}");
        let (stdout, line) = reader.join().unwrap();
        self.stdout = Some(stdout);
        assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
        line
    }

    /// Reads lines up to the one that satisfies.
    pub(crate) fn lines_until(&mut self, satisfies: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| satisfies(line)) {
            lines.push(self.line());
        }
        lines
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn ends(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < ENDS_WITHIN, "it does not end");
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }
}

pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (Response<()>, Value) {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default()));
        let answer = self.0.request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            Response::from_parts(parts, ()),
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    pub(crate) async fn get(&self, url: &str, token: Option<&str>) -> (Response<()>, Value) {
        self.send(Method::GET, url, token, None).await
    }
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

pub(crate) fn of_hops(answer: &Value, field: &str) -> Vec<String> {
    let hops = answer["hops"]
        .as_array()
        .unwrap_or_else(|| panic!("no hops in {answer}"));
    hops.iter()
        .map(|hop| text(hop, &format!("/{field}")).to_owned())
        .collect()
}

pub(crate) fn output(mut command: Command) -> Output {
    command.output().unwrap()
}
