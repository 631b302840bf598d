//! The admin port: `/livez`, `/readyz` and `/metrics`, for the kubelet and the scraper.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// Alive as long as it answers; ready, or 503 with one line for each thing that is not.
pub fn router(lifecycle: Arc<Lifecycle>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(lifecycle))
        .route("/metrics", get(show).with_state(metrics))
}

async fn readyz(State(lifecycle): State<Arc<Lifecycle>>) -> impl IntoResponse {
    let not_ready = lifecycle.not_ready();
    if not_ready.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready\n{}\n", not_ready.join("\n")),
    )
}

async fn show(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use std::time::Duration;
    use tower::ServiceExt as _;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readyz_names_what_is_not_ready() {
        let lifecycle = Lifecycle::new(Duration::ZERO, Duration::ZERO);
        let router = router(Arc::clone(&lifecycle), Arc::new(Metrics::new()));
        let keys = lifecycle.gate("keys");
        keys.close("no bundle yet");
        assert_eq!(
            ask(&router, "/readyz").await,
            (503, "not ready\nkeys: no bundle yet\n".to_owned())
        );
        keys.open();
        assert_eq!(ask(&router, "/readyz").await, (200, "ready\n".to_owned()));
        lifecycle.drain();
        assert_eq!(
            ask(&router, "/readyz").await,
            (503, "not ready\nprocess: draining\n".to_owned())
        );
        assert_eq!(ask(&router, "/livez").await.0, 200);
        assert_eq!(ask(&router, "/metrics").await, (200, "# EOF\n".to_owned()));
    }
}
