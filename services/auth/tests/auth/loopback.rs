//! Servers and requests on this machine, on ports the kernel chooses.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// Longer than anything here takes; a test that reaches it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Serves until the test's runtime ends.
pub(crate) async fn serve(router: Router) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}").parse().unwrap()
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap()
}

pub(crate) async fn send(request: Request<Vec<u8>>) -> (StatusCode, HeaderMap, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = tokio::time::timeout(
        DEADLINE,
        client.request(request.map(|body| Full::new(Bytes::from(body)))),
    );
    let (parts, body) = response.await.expect("an answer in time").unwrap().into_parts();
    (
        parts.status,
        parts.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}
