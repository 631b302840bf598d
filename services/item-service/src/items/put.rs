//! `PUT /items/{id}`: writes this hop's own item.
//!
//! Writes do not travel along the chain yet. A request that asks for what only such writes give, by an
//! `Idempotency-Key`, is refused: taking the key and forgetting it would break the promise it stands for.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError};
use servicechain_auth::Caller;
use servicechain_runtime::access::AccessNotes;
use servicechain_runtime::request_context::RequestContext;
use tokio::time::Instant;

use super::{Items, key_of, private};
use crate::item::{Item, Stored};
use crate::lookup::{Found, Source};
use crate::precondition::{EntityTag, Preconditions};
use crate::rejection::{Rejection, StoreErrorRef};
use crate::reply::{HopReply, Reply};
use crate::store::RowState;

pub(crate) async fn put_item(
    State(items): State<Items>,
    id: Result<Path<String>, PathRejection>,
    caller: Caller,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut notes = AccessNotes::default();
    let answer = answer(&items, id, &caller, &context, &headers, body, &mut notes).await;
    let mut response = answer.unwrap_or_else(|rejection| rejection.into_response(&items.hop));
    response.extensions_mut().insert(notes);
    private(response)
}

async fn answer(
    items: &Items,
    id: Result<Path<String>, PathRejection>,
    caller: &Caller,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Body,
    notes: &mut AccessNotes,
) -> Result<Response, Rejection> {
    let key = key_of(caller, id)?;
    let preconditions = Preconditions::from_headers(headers)?;
    refuse_what_is_no_whole_item(headers)?;
    let item = Item::from_json(&whole(body).await?)?;

    notes.source = Some(Source::Database.as_str());
    let begun = Instant::now();
    let condition = move |row: RowState| preconditions.allow_write(row.exists.then_some(row.version));
    let id = key.id.clone();
    let write = items
        .look_aside
        .put(key, item.clone(), Box::new(condition), context.trace.clone());
    // Whoever stops waiting here, the write goes on in its own task.
    let written = context
        .deadline
        .bound(write)
        .await
        .map_err(|_| Rejection::WriteUnderWay)?;
    let written = written.map_err(|_| Rejection::Lost)?;
    let written = written.map_err(|error| Rejection::Database(StoreErrorRef::Own(error)))?;

    let stored = Stored {
        version: written.version,
        item: Some(item),
    };
    let found = Found {
        stored,
        source: Source::Database,
        took: begun.elapsed(),
    };
    let reply = Reply::fold(
        &id,
        HopReply::own(&items.hop, &found, caller.generation()),
        Vec::new(),
    );
    let status = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        [(ETAG, EntityTag::of([written.version]).header())],
        Json(reply),
    )
        .into_response())
}

fn refuse_what_is_no_whole_item(headers: &HeaderMap) -> Result<(), Rejection> {
    if headers.contains_key("idempotency-key") {
        let what =
            "Idempotency-Key is not supported yet; PUT is idempotent by itself, send If-Match to be safe";
        return Err(Rejection::NotSupportedYet(what));
    }
    // RFC 9110 section 14.5: a part must not be taken for the whole.
    for (name, what) in [
        (CONTENT_RANGE, "Content-Range"),
        (CONTENT_ENCODING, "Content-Encoding"),
    ] {
        if headers.contains_key(name) {
            return Err(Rejection::NotWhole(what));
        }
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Rejection::MediaType)
    }
}

/// Bounded by the layer around all handlers.
async fn whole(body: Body) -> Result<bytes::Bytes, Rejection> {
    let body = body.collect().await.map_err(|error| {
        if error.into_inner().is::<LengthLimitError>() {
            Rejection::TooLarge
        } else {
            Rejection::BodyBroken
        }
    })?;
    Ok(body.to_bytes())
}
