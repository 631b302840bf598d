//! `GET /items/{id}`: own item, then what the next hop folded, in one reply.
//!
//! A hop answers for its own item: where that is missing it answers 404, naming itself, with the same `id` and
//! `hops` as in a reply. The hop before folds it as `item: null`. So the client gets 404 exactly if the first hop
//! has no such item, and sees in any case what the others have.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::header::ETAG;
use http::{HeaderMap, StatusCode};
use servicechain_auth::Caller;
use servicechain_runtime::access::AccessNotes;
use servicechain_runtime::request_context::RequestContext;

use super::{Items, key_of, private};
use crate::precondition::{Preconditions, ReadVerdict};
use crate::rejection::{Rejection, StoreErrorRef};
use crate::reply::{HopReply, Reply};

pub(crate) async fn get_item(
    State(items): State<Items>,
    id: Result<Path<String>, PathRejection>,
    caller: Caller,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
) -> Response {
    let mut notes = AccessNotes {
        upstream: items.next.as_ref().map(|next| next.name().to_owned()),
        ..<_>::default()
    };
    let answer = answer(&items, id, &caller, &context, &headers, &mut notes).await;
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
    notes: &mut AccessNotes,
) -> Result<Response, Rejection> {
    let key = key_of(caller, id)?;
    let preconditions = Preconditions::from_headers(headers)?;

    let found = items.look_aside.get(&key, &context.trace).await;
    let found = found.map_err(|error| Rejection::Database(StoreErrorRef::Shared(error)))?;
    notes.source = Some(found.source.as_str());
    let own = HopReply::own(&items.hop, &found, caller.generation());
    let behind = match &items.next {
        None => Vec::new(),
        Some(next) => {
            let got = next.get(&key.id, caller, context, notes).await;
            got.map_err(|error| Rejection::NextHop(next.name().to_owned(), error))?
        }
    };

    let reply = Reply::fold(&key.id, own, behind);
    if found.stored.item.is_none() {
        return Err(Rejection::NoItem(reply));
    }
    let tag = reply.tag();
    match preconditions.judge_read(&tag) {
        ReadVerdict::Answer => Ok(([(ETAG, tag.header())], Json(reply)).into_response()),
        ReadVerdict::NotModified => Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag.header())]).into_response()),
        ReadVerdict::Failed => Err(Rejection::PreconditionFailed(tag)),
    }
}
