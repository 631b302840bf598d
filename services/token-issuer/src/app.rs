//! The issuer's one router: its layers outermost first, its routes, and the steps of a token request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest as _, RawForm, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::Value;
use servicechain_auth::Verifier;
use servicechain_runtime::access::AccessNotes;
use servicechain_runtime::clock::Clock;
use servicechain_runtime::metrics::{Metrics, RequestMetrics};
use servicechain_runtime::problem::Problem;
use servicechain_runtime::request_context::RequestContextLayer;

use crate::config::Config;
use crate::form;
use crate::issue_token::{self, Outcome};
use crate::metrics::TokenMetrics;
use crate::publish_keys;
use crate::rejection::Rejection;
use crate::signing_keys::SigningKeys;

/// A token request is a few names and a secret.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// Nothing here waits for anybody but the client.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

struct Shared {
    config: Config,
    verifier: Arc<Verifier>,
    keys: Arc<SigningKeys>,
    metadata: Value,
    metrics: TokenMetrics,
}

pub fn app(
    config: Config,
    verifier: Arc<Verifier>,
    keys: Arc<SigningKeys>,
    metrics: &mut Metrics,
    clock: Clock,
) -> Router {
    let hop = config.issuer.name.clone();
    let shared = Shared {
        metadata: publish_keys::metadata(&config.issuer, &config.clients),
        config,
        verifier,
        keys,
        metrics: TokenMetrics::register(metrics),
    };
    Router::new()
        .route("/oauth2/token", post(token))
        .route("/jwks.json", get(key_set))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/.well-known/openid-configuration", get(metadata))
        .fallback(not_found)
        // Innermost: a form is bounded before any of it is read.
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        // Outermost: every answer has an id, a record and an end.
        .layer(RequestContextLayer::new(
            hop.clone(),
            TIMEOUT,
            RequestMetrics::register(metrics, &hop),
            clock,
        ))
        .with_state(Arc::new(shared))
}

async fn token(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Outcome { client, answer } = match read(request).await {
        Err(rejection) => Outcome {
            client: None,
            answer: Err(rejection),
        },
        Ok((headers, form)) => {
            let Shared { config, keys, .. } = &*shared;
            issue_token::answer(&config.clients, &config.issuer, keys, &headers, &form)
        }
    };
    let caller = client.map(|id| format!("client:{id}"));
    let reason = answer.as_ref().err().map(|rejection| rejection.error());
    shared.metrics.answered(reason.unwrap_or("issued"));
    let mut response = answer.into_response();
    response.extensions_mut().insert(AccessNotes {
        caller,
        reason,
        ..AccessNotes::default()
    });
    response
}

async fn read(request: Request) -> Result<(http::HeaderMap, form::Parameters), Rejection> {
    // Credentials in a URL end up in logs (RFC 6749 section 2.3.1).
    if request.uri().query().is_some() {
        return Err(Rejection::InvalidRequest(
            "send parameters in the form, not in the URL",
        ));
    }
    let headers = request.headers().clone();
    let RawForm(body) = RawForm::from_request(request, &()).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Rejection::TooLarge
        } else {
            Rejection::InvalidRequest("send a form (application/x-www-form-urlencoded)")
        }
    })?;
    Ok((headers, form::parse(&body)?))
}

async fn key_set(State(shared): State<Arc<Shared>>) -> Response {
    publish_keys::key_set(shared.verifier.held().as_deref(), &shared.config.issuer)
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Response {
    publish_keys::cached(shared.metadata.clone())
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
        .detail("see /.well-known/oauth-authorization-server")
}
