//! One small HTTP exchange with an authority (operator or issuer): pooled, bounded in time and size. Everything that
//! comes back is authenticated by whoever asked for it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// No authority may keep anybody waiting longer; shorter than the second between two questions.
pub(super) const LONGEST: Duration = Duration::from_millis(950);
const IDLE: Duration = Duration::from_secs(30);

pub(super) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no answer in time")]
    TooSlow,
    #[error("no connection or no HTTP answer")]
    Http(#[from] hyper_util::client::legacy::Error),
    #[error("answer cut off or larger than it may be")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(LONGEST));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1)
        .build(connector)
}

/// Sends a request and reads the whole answer, of at most `largest` bytes.
pub(super) async fn exchange(
    client: &HttpClient,
    request: Request<Full<Bytes>>,
    largest: usize,
) -> Result<Reply, ExchangeError> {
    let exchange = async {
        let (parts, body) = client.request(request).await?.into_parts();
        let body = Limited::new(body, largest)
            .collect()
            .await
            .map_err(ExchangeError::Body)?
            .to_bytes();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    };
    tokio::time::timeout(LONGEST, exchange)
        .await
        .unwrap_or(Err(ExchangeError::TooSlow))
}
