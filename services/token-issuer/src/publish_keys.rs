//! What anybody may read: the issuer's public keys, from the bundle held and not from this pod's own, and the documents
//! by which clients find the endpoints (RFC 8414, `OpenID` Connect Discovery 1.0).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};
use servicechain_keys::HeldBundle;
use servicechain_runtime::problem::Problem;

use crate::clients::Clients;
use crate::config::Issuer;

/// Keys are published long before they sign, so a reader may be a minute late; a revoked key should not live on in
/// caches for longer.
const CACHING: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=60");

/// Every key that verifiers accept from this issuer, as RFC 7517 section 5 writes them.
pub(crate) fn key_set(held: Option<&HeldBundle>, issuer: &Issuer) -> Response {
    let entry = held.and_then(|held| held.bundle().issuers.iter().find(|entry| entry.iss == issuer.url));
    let Some(entry) = entry else {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-keys",
            "The keys are not known yet",
        )
        .detail("this issuer has no key bundle yet")
        .retry_after(1)
        .into_response();
    };
    let keys: Vec<_> = entry.keys.iter().map(|key| &key.jwk).collect();
    ([CACHING], Json(json!({"keys": keys}))).into_response()
}

pub(crate) fn metadata(issuer: &Issuer, clients: &Clients) -> Value {
    let url = &issuer.url;
    json!({
        "issuer": url,
        "token_endpoint": format!("{url}/oauth2/token"),
        "jwks_uri": format!("{url}/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": clients.scopes().collect::<Vec<_>>(),
        // There is no authorization endpoint, and the member is required.
        "response_types_supported": [],
        // Required by OpenID Connect Discovery 1.0 section 3.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [issuer.algorithm],
    })
}

pub(crate) fn cached(document: Value) -> Response {
    ([CACHING], Json(document)).into_response()
}
