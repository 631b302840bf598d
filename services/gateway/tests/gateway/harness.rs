//! A gateway of its own for each test: two cores, free ports, a chain with one issuer, a clock that stands still.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use servicechain_auth::specimen::Specimen;
use servicechain_auth::{Hop, Verifier};
use servicechain_gateway::{Config, Listeners, bind, run_with};
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::listen;

use crate::client::{Answer, Client};
use crate::upstream::Upstream;

pub(crate) const DRAIN_DELAY: Duration = Duration::from_millis(400);

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) chain: Specimen,
    pub(crate) verifier: Arc<Verifier>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    handle: tokio::runtime::Handle,
}

/// A configuration as YAML, its routes and limits as the test wants.
pub(crate) struct Setting {
    routes: String,
    limits: &'static str,
    more: &'static str,
}

impl Setting {
    pub(crate) fn new() -> Self {
        Self {
            routes: String::new(),
            limits: "",
            more: "",
        }
    }

    /// Adds a route to `upstream`; `more` is the rest of its YAML object, such as `authentication: None`.
    pub(crate) fn route(mut self, prefix: &str, upstream: &str, more: &str) -> Self {
        let name = self.routes.lines().count();
        let comma = if more.is_empty() { "" } else { ", " };
        let _ = writeln!(
            self.routes,
            "- {{name: r{name}, pathPrefix: {prefix}, upstream: \"{upstream}\", service: a{comma}{more}}}"
        );
        self
    }

    /// Replaces the limits, as the inside of a YAML object.
    pub(crate) fn limits(mut self, limits: &'static str) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a top-level line.
    pub(crate) fn line(mut self, line: &'static str) -> Self {
        self.more = line;
        self
    }

    pub(crate) fn start(self) -> Gateway {
        let Self { routes, limits, more } = self;
        let yaml = format!("hop: {{name: gateway}}\nlimits: {{{limits}}}\n{more}\nroutes:\n{routes}");
        Gateway::start(&Config::from_yaml(&yaml).unwrap())
    }
}

impl Gateway {
    /// In front of `upstream`, with a token required.
    pub(crate) fn before(upstream: &Upstream) -> Self {
        Setting::new().route("/", &upstream.url(), "").start()
    }

    /// In front of `upstream`, for everybody.
    pub(crate) fn open_before(upstream: &Upstream) -> Self {
        Setting::new()
            .route("/", &upstream.url(), "authentication: None")
            .start()
    }

    fn start(config: &Config) -> Self {
        let chain = Specimen::new();
        let verifier = Verifier::new(chain.config(Hop::new("gateway")));
        verifier.hold(chain.sign(&chain.bundle()));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners {
            main: bind(any, 2).unwrap(),
            admin: listen(any).unwrap(),
            keys: listen(any).unwrap(),
        };
        let address = listeners.main[0].local_addr().unwrap();
        let admin = listeners.admin.local_addr().unwrap();
        let lifecycle = Lifecycle::new(DRAIN_DELAY, Duration::from_secs(10));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let running = run_with(
            config.clone(),
            Arc::clone(&verifier),
            listeners,
            Arc::clone(&lifecycle),
        );
        let thread = std::thread::spawn(move || runtime.block_on(running));
        Self {
            address,
            admin,
            lifecycle,
            chain,
            verifier,
            thread: Some(thread),
            handle,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request)
    }

    /// `GET path` with a token that passes, and these header lines, each with its line end.
    pub(crate) fn get(&self, path: &str, lines: &str) -> Answer {
        self.ask(self.request("GET", path, lines))
    }

    /// A request with a token that passes.
    pub(crate) fn request(&self, method: &str, path: &str, lines: &str) -> String {
        let token = self.chain.token();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\n{lines}\r\n"
        )
    }

    pub(crate) fn drain(&self) {
        let _inside = self.handle.enter();
        self.lifecycle.drain();
    }

    /// Waits until it has ended, and how.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        let answer =
            Client::connect(self.admin).ask("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        String::from_utf8(answer.body).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.lifecycle.end_at_once();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}
