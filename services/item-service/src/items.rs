//! The requests about items: parse, decide, answer.

mod get;
mod put;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, header};
use servicechain_auth::Caller;

use crate::item::{InvalidItemId, ItemId, ItemKey, Owner};
use crate::lookup::LookAside;
use crate::next_hop::NextHop;
use crate::rejection::Rejection;

pub(crate) use get::get_item;
pub(crate) use put::put_item;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    pub(crate) hop: Arc<str>,
    pub(crate) look_aside: LookAside,
    /// `None` at the last hop.
    pub(crate) next: Option<NextHop>,
}

/// Lists come with a later version: answering an empty one would be a lie.
pub(crate) async fn list_items(State(items): State<Items>) -> Response {
    Rejection::NotSupportedYet("lists of items are not supported yet; read them one by one at /items/{id}")
        .into_response(&items.hop)
}

/// A row must leave a tombstone, which comes with a later version.
pub(crate) async fn delete_item(State(items): State<Items>) -> Response {
    Rejection::NotSupportedYet("DELETE is not supported yet").into_response(&items.hop)
}

pub(crate) async fn method_not_allowed(State(items): State<Items>, method: Method) -> Response {
    Rejection::MethodNotAllowed(method).into_response(&items.hop)
}

pub(crate) async fn no_such_path(State(items): State<Items>) -> Response {
    Rejection::NoSuchPath.into_response(&items.hop)
}

/// The key is the verified caller's: another's item is simply not there.
fn key_of(caller: &Caller, id: Result<Path<String>, PathRejection>) -> Result<ItemKey, Rejection> {
    // A segment that is no UTF-8 once decoded has characters that no id has.
    let id = id.map_err(|_| InvalidItemId::Character)?;
    let owner = Owner::new(caller.issuer(), caller.subject());
    Ok(ItemKey {
        owner,
        id: ItemId::new(&id)?,
    })
}

/// Answers are one caller's own, and are asked for again each time (RFC 9111 section 5.2.2).
fn private(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("authorization"));
    response
}
