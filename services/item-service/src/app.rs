//! The whole path of a request through this service, on one screen.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{map_request, map_response};
use axum::response::Response;
use axum::routing::{any, get};
use http_body_util::Limited;
use servicechain_auth::{AuthorizationRules, Caller, Rejected, RequireTokenLayer, Verifier};
use servicechain_runtime::access::{AccessNotes, Verdict};
use servicechain_runtime::deadline::Deadline;
use servicechain_runtime::request_context::RequestContextLayer;
use tower::ServiceBuilder;

use crate::item::MAX_ITEM_BYTES;
use crate::items::{Items, delete_item, get_item, list_items, method_not_allowed, no_such_path, put_item};

/// Routes, and around them the layers, outermost first.
pub(crate) fn app(
    items: Items,
    context: RequestContextLayer,
    verifier: Arc<Verifier>,
    rules: Option<AuthorizationRules>,
) -> Router {
    let token = RequireTokenLayer::new(verifier).with_deadline(Arc::new(|headers| {
        Deadline::from_headers(headers, std::time::Duration::ZERO).at()
    }));
    let token = match rules {
        Some(rules) => token.with_rules(rules),
        None => token,
    };
    let layers = ServiceBuilder::new()
        // Id, trace, deadline, counters and the access record: around everything, so that refusals have them too.
        .layer(context)
        // What the token's verdict was, taken from the answer for the record; hence around the layer that gives it.
        .layer(map_response(note_verdict))
        // No handler can read more of a body than an item may have, whatever it forgets to check.
        .layer(map_request(bound_body))
        // Nobody but a verified caller who may do this gets further, not even to learn which paths there are.
        .layer(token);
    Router::new()
        .route("/items", any(list_items))
        .route(
            "/items/{id}",
            get(get_item)
                .put(put_item)
                .delete(delete_item)
                .fallback(method_not_allowed),
        )
        .fallback(no_such_path)
        .with_state(items)
        .layer(layers)
}

async fn bound_body(request: Request) -> Request {
    request.map(|body| Body::new(Limited::new(body, MAX_ITEM_BYTES)))
}

async fn note_verdict(mut response: Response) -> Response {
    let extensions = response.extensions_mut();
    let caller = extensions.remove::<Caller>();
    let rejected = extensions.remove::<Rejected>();
    let mut notes = extensions.remove::<AccessNotes>().unwrap_or_default();
    notes.verdict = match (&caller, &rejected) {
        (_, Some(rejected)) if *rejected != Rejected::NoToken => Verdict::Rejected,
        (Some(_), None) => Verdict::Verified,
        _ => Verdict::Absent,
    };
    notes.caller = caller.map(|caller| caller.to_string());
    notes.reason = rejected.map(|rejected| rejected.reason());
    extensions.insert(notes);
    response
}
