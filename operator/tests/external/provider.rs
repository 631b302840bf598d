//! An `OpenID` provider on loopback that does what it is told, good or bad, and counts what it is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use servicechain_keys::{Algorithm, SigningKey};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// What is answered to who asks for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    Silent,
    Garbage,
    Redirects,
    /// 10 MB.
    Endless,
    /// 429, come back in an hour.
    Throttles,
    Broken,
    Empty,
}

pub(crate) struct Provider {
    pub url: String,
    state: Arc<Published>,
    address: SocketAddr,
    /// None while it is away.
    serving: Option<JoinHandle<()>>,
    /// Listens to nobody, and keeps the port while it is away.
    _port: TcpSocket,
}

#[derive(Default)]
struct Published {
    url: Mutex<String>,
    keys: Mutex<Vec<Value>>,
    manner: Mutex<Option<Manner>>,
    asked: AtomicUsize,
    unchanged: AtomicUsize,
    strayed: AtomicUsize,
}

impl Provider {
    #[expect(clippy::unused_async, reason = "it must be called where tasks run")]
    pub(crate) async fn start() -> Self {
        let port = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = port.local_addr().unwrap();
        let url = format!("http://{address}");
        let state = Arc::new(Published::default());
        state.url.lock().unwrap().clone_from(&url);
        let mut provider = Self {
            url,
            state,
            address,
            serving: None,
            _port: port,
        };
        provider.start_again();
        provider
    }

    /// From now on nobody listens at its address.
    pub(crate) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    /// At the address it had.
    pub(crate) fn start_again(&mut self) {
        let listener = socket(self.address).listen(64).unwrap();
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/elsewhere", get(elsewhere))
            .with_state(Arc::clone(&self.state));
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        self.serving = Some(tokio::spawn(serve));
    }

    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        let keys = keys.iter().map(|key| jwk(key)).collect();
        self.publish_as(keys);
    }

    pub(crate) fn publish_as(&self, keys: Vec<Value>) {
        *self.state.keys.lock().unwrap() = keys;
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = Some(manner);
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// How often it answered that they are the same.
    pub(crate) fn unchanged(&self) -> usize {
        self.state.unchanged.load(Ordering::SeqCst)
    }

    /// How often somebody followed its redirect.
    pub(crate) fn strayed(&self) -> usize {
        self.state.strayed.load(Ordering::SeqCst)
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // Two may have a port of which at most one listens.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

pub(crate) fn jwk(key: &SigningKey) -> Value {
    serde_json::to_value(key.public_jwk()).unwrap()
}

pub(crate) fn new_key() -> SigningKey {
    SigningKey::generate(Algorithm::ES256).unwrap()
}

async fn discovery(State(published): State<Arc<Published>>) -> Response {
    let url = published.url.lock().unwrap().clone();
    let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": url});
    document.to_string().into_response()
}

async fn keys(State(published): State<Arc<Published>>, headers: HeaderMap) -> Response {
    published.asked.fetch_add(1, Ordering::SeqCst);
    let manner = published.manner.lock().unwrap().unwrap_or(Manner::Well);
    let set = json!({"keys": *published.keys.lock().unwrap()}).to_string();
    let tag = format!("\"{}\"", servicechain_keys::Digest::of(set.as_bytes()));
    match manner {
        Manner::Well if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag) => {
            published.unchanged.fetch_add(1, Ordering::SeqCst);
            StatusCode::NOT_MODIFIED.into_response()
        }
        Manner::Well => ([(ETAG, tag), (CACHE_CONTROL, "max-age=86400".to_owned())], set).into_response(),
        Manner::Silent => std::future::pending().await,
        Manner::Garbage => "<html>welcome to this wifi</html>".into_response(),
        Manner::Redirects => Redirect::temporary("/elsewhere").into_response(),
        Manner::Endless => Body::from(vec![b' '; 10_000_000]).into_response(),
        Manner::Throttles => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "3600")]).into_response(),
        Manner::Broken => (StatusCode::INTERNAL_SERVER_ERROR, set).into_response(),
        Manner::Empty => r#"{"keys": []}"#.into_response(),
    }
}

async fn elsewhere(State(published): State<Arc<Published>>) -> Response {
    published.strayed.fetch_add(1, Ordering::SeqCst);
    json!({"keys": *published.keys.lock().unwrap()})
        .to_string()
        .into_response()
}
