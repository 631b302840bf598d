//! The admin port: `/livez`, `/readyz` and `/metrics`, for the kubelet and the scraper.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// Alive as long as it answers; ready, or 503 with one line for each thing that is not.
pub fn router(lifecycle: Arc<Lifecycle>, metrics: Arc<Metrics>) -> Router {
    of(Vec::new, move || lifecycle.not_ready(), move || metrics.encode())
}

/// The same for a process with a life of its own: one line for each thing that is stuck, one for each that is not ready,
/// and its metrics in `OpenMetrics` text.
pub fn of(
    stuck: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    not_ready: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/livez", get(async move || answer("alive", &stuck())))
        .route("/readyz", get(async move || answer("ready", &not_ready())))
        .route("/metrics", get(async move || show(metrics())))
}

fn answer(good: &str, wrong: &[String]) -> (StatusCode, String) {
    if wrong.is_empty() {
        return (StatusCode::OK, format!("{good}\n"));
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not {good}\n{}\n", wrong.join("\n")),
    )
}

fn show(metrics: Result<String, fmt::Error>) -> Response {
    match metrics {
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
    #[tokio::test]
    async fn livez_names_what_is_stuck() {
        let stuck = || vec!["the watch of Pods made no progress for 2 s".to_owned()];
        let router = of(stuck, Vec::new, || Ok("# EOF\n".to_owned()));
        let said = "not alive\nthe watch of Pods made no progress for 2 s\n";
        assert_eq!(ask(&router, "/livez").await, (503, said.to_owned()));
        assert_eq!(ask(&router, "/readyz").await.0, 200);
    }
}
