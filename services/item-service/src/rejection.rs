//! Everything a client can be told instead of a reply, and the one place where that becomes HTTP. Causes go to the
//! log, once, from here.

use std::error::Error;

use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, ETAG, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use servicechain_runtime::problem::{Problem, TYPES};

use crate::item::{InvalidItem, InvalidItemId, MAX_ITEM_BYTES};
use crate::next_hop::NextHopError;
use crate::precondition::{EntityTag, MalformedTags};
use crate::reply::Reply;
use crate::store::{RowState, StoreError};

/// Why a request is not answered with 200, 201 or 304.
#[derive(Debug)]
pub(crate) enum Rejection {
    InvalidId(InvalidItemId),
    MalformedTags(MalformedTags),
    /// A read's `If-Match` named none of these.
    PreconditionFailed(EntityTag),
    /// 404, with what the hops behind this one have.
    NoItem(Reply),
    NoSuchPath,
    MethodNotAllowed(Method),
    /// What a later version will do; refused rather than ignored.
    NotSupportedYet(&'static str),
    MediaType,
    /// A part of an item, or one that is coded.
    NotWhole(&'static str),
    TooLarge,
    BodyBroken,
    InvalidItem(InvalidItem),
    /// Nothing was written unless the error says that this is unknown.
    Database(StoreErrorRef),
    /// The request's time ended before the write's outcome was known.
    WriteUnderWay,
    NextHop(String, NextHopError),
    /// A task of ours was lost.
    Lost,
}

/// A read's error is shared by all who waited for it; a write's is its own.
#[derive(Debug)]
pub(crate) enum StoreErrorRef {
    Shared(std::sync::Arc<StoreError>),
    Own(StoreError),
}

impl std::ops::Deref for StoreErrorRef {
    type Target = StoreError;

    fn deref(&self) -> &StoreError {
        match self {
            Self::Shared(error) => error,
            Self::Own(error) => error,
        }
    }
}

impl Rejection {
    /// The answer of this hop.
    pub(crate) fn into_response(self, hop: &str) -> Response {
        use StatusCode as S;
        let detail = |status, kind, title, detail: String| Problem::new(status, kind, title).detail(detail);
        let problem = match self {
            Self::InvalidId(error) => detail(
                S::BAD_REQUEST,
                "invalid-item-id",
                "The item id is invalid",
                error.to_string(),
            ),
            Self::MalformedTags(error) => detail(
                S::BAD_REQUEST,
                "malformed-precondition",
                "A precondition is malformed",
                error.to_string(),
            ),
            Self::PreconditionFailed(tag) => precondition_failed().header(ETAG, tag.header()),
            Self::NoItem(reply) => return no_item(hop, &reply),
            Self::NoSuchPath => {
                let text = "items are at /items/{id}".to_owned();
                detail(
                    S::NOT_FOUND,
                    "no-such-path",
                    "There is nothing at this path",
                    text,
                )
            }
            Self::MethodNotAllowed(method) => {
                let text = format!("{method} is not allowed here; GET, HEAD and PUT are");
                detail(
                    S::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    "The method is not allowed here",
                    text,
                )
                .header(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"))
            }
            Self::NotSupportedYet(what) => detail(
                S::NOT_IMPLEMENTED,
                "not-supported-yet",
                "Not supported yet",
                what.to_owned(),
            ),
            Self::MediaType => {
                let text = "send Content-Type: application/json".to_owned();
                detail(
                    S::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported-media-type",
                    "The content is not JSON",
                    text,
                )
            }
            Self::NotWhole(what) => detail(
                S::BAD_REQUEST,
                "not-whole",
                "An item is written whole",
                format!("{what} is not taken"),
            ),
            Self::TooLarge => Problem::body_too_large(MAX_ITEM_BYTES),
            Self::BodyBroken => {
                let text = "the body broke off before its end".to_owned();
                detail(S::BAD_REQUEST, "incomplete-body", "The body is incomplete", text)
            }
            Self::InvalidItem(error) => detail(
                S::BAD_REQUEST,
                "invalid-item",
                "The content is no item",
                error.to_string(),
            ),
            Self::Database(error) => return database(hop, &error),
            Self::WriteUnderWay => Problem::slow_hop(hop).detail(UNKNOWN).with("write", "unknown"),
            Self::NextHop(next, error) => return next_hop(&next, error),
            Self::Lost => Problem::new(S::INTERNAL_SERVER_ERROR, "internal", "This hop failed"),
        };
        problem.hop(hop).into_response()
    }
}

const UNKNOWN: &str = "the write may have been made: read the item, or repeat the request";

fn precondition_failed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition-failed",
        "The item is not as the request expects",
    )
}

fn database(hop: &str, error: &StoreErrorRef) -> Response {
    let unavailable = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database-unavailable",
            "A hop's database is not available",
        )
        .retry_after(1)
    };
    let problem = match &**error {
        StoreError::ConditionFailed(RowState { version, exists }) => {
            let problem = precondition_failed();
            if *exists {
                problem.header(ETAG, EntityTag::of([*version]).header())
            } else {
                problem
            }
        }
        StoreError::Unavailable(_) | StoreError::Slow => unavailable(),
        StoreError::OutcomeUnknown => unavailable().detail(UNKNOWN).with("write", "unknown"),
        StoreError::Broken(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "This hop failed")
        }
    };
    if problem.status().is_server_error() {
        tracing::warn!(hop, error = %chain(&**error), "the database did not serve a request");
    }
    problem.hop(hop).into_response()
}

fn next_hop(next: &str, error: NextHopError) -> Response {
    match error {
        NextHopError::Problem(problem) => problem.into_response(),
        NextHopError::TokenEnded(rejected) => rejected.into_response(),
        NextHopError::Slow => Problem::slow_hop(next).into_response(),
        NextHopError::Unreachable(error) => {
            tracing::warn!(next, error = %chain(&error), "the next hop cannot be reached");
            Problem::unreachable_hop(next).into_response()
        }
        NextHopError::RefusesGoodToken => Problem::hop_refuses_good_token(next).into_response(),
        NextHopError::Unusable(error) => {
            tracing::warn!(next, error = %chain(&error), "the next hop's answer cannot be used");
            Problem::new(
                StatusCode::BAD_GATEWAY,
                "unusable-answer",
                "A hop's answer cannot be used",
            )
            .hop(next)
            .into_response()
        }
    }
}

/// A 404 that still says what the other hops have, so that the hop before can fold it. Items are copied as they
/// are, which a [`Problem`] of parsed values could not do.
fn no_item(hop: &str, reply: &Reply) -> Response {
    #[derive(Serialize)]
    struct NoItem<'a> {
        r#type: String,
        title: &'static str,
        status: u16,
        hop: &'a str,
        #[serde(flatten)]
        reply: &'a Reply,
    }
    let body = NoItem {
        r#type: format!("{TYPES}no-such-item"),
        title: "There is no such item",
        status: StatusCode::NOT_FOUND.as_u16(),
        hop,
        reply,
    };
    let headers = [("content-type", "application/problem+json")];
    match serde_json::to_string(&body) {
        Ok(body) => (StatusCode::NOT_FOUND, headers, body).into_response(),
        Err(_) => Rejection::Lost.into_response(hop),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl From<InvalidItemId> for Rejection {
    fn from(error: InvalidItemId) -> Self {
        Self::InvalidId(error)
    }
}

impl From<MalformedTags> for Rejection {
    fn from(error: MalformedTags) -> Self {
        Self::MalformedTags(error)
    }
}

impl From<InvalidItem> for Rejection {
    fn from(error: InvalidItem) -> Self {
        match error {
            InvalidItem::TooLarge => Self::TooLarge,
            error @ InvalidItem::NoObject(_) => Self::InvalidItem(error),
        }
    }
}
