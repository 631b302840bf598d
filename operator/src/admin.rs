//! The admin port: `/livez`, `/readyz` and `/metrics`, for the kubelet and the scraper. It decides nothing.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};

use crate::health::Health;
use crate::metrics::Metrics;

/// Each answers 200, or 503 with one line for each thing that is wrong.
pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(show).with_state(metrics))
}

async fn livez(State(health): State<Health>) -> impl IntoResponse {
    answer("alive", &health.stuck())
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    answer("ready", &health.not_ready())
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

async fn show(State(metrics): State<Metrics>) -> impl IntoResponse {
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

    #[tokio::test(start_paused = true)]
    async fn the_admin_port_says_what_is_not_ready_and_what_is_stuck() {
        let health = Health::default();
        let router = router(health.clone(), Metrics::default());
        assert_eq!(ask(&router, "/readyz").await, (200, "ready\n".to_owned()));
        health.close("schema", "the CRDs are older than this operator");
        assert_eq!(
            ask(&router, "/readyz").await,
            (
                503,
                "not ready\nschema: the CRDs are older than this operator\n".to_owned()
            )
        );
        health.open("schema");
        assert_eq!(ask(&router, "/readyz").await.0, 200);

        let _pulse = health.expect("the watch of Pods", Duration::from_secs(1));
        assert_eq!(ask(&router, "/livez").await, (200, "alive\n".to_owned()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ask(&router, "/livez").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let metrics = Metrics::default();
        metrics.reconciled("done", Duration::from_millis(30));
        let (status, text) = ask(&router(Health::default(), metrics), "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            text.contains("servicechain_operator_reconciles_total{outcome=\"done\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
