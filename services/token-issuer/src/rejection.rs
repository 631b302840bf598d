//! Every way in which the token endpoint says no, as RFC 6749 section 5.2 writes it. Nothing of the request is repeated.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::client_credentials::Method;
use crate::form::FormFault;
use crate::signing_keys::CannotSign;

/// A new key becomes Active a round of the operator later, which takes about a second.
const RETRY_AFTER_SECONDS: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    InvalidRequest(&'static str),
    TooLarge,
    /// Unknown client or wrong secret: which of the two is not said.
    InvalidClient(Method),
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    /// RFC 8707 section 2.
    InvalidTarget,
    Unavailable(CannotSign),
}

impl Rejection {
    /// The `error` of RFC 6749 and RFC 8707, which also names it in logs and metrics.
    pub(crate) const fn error(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::TooLarge => "invalid_request",
            Self::InvalidClient(_) => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            // Of client credentials: they are the grant (RFC 6749 section 1.3.4), and they were right, so the client is
            // not unknown; what they entitle to is revoked.
            Self::Unavailable(CannotSign::ClientRevoked { .. }) => "invalid_grant",
            Self::Unavailable(_) => "temporarily_unavailable",
        }
    }

    fn description(self) -> String {
        match self {
            Self::InvalidRequest(description) => description.to_owned(),
            Self::TooLarge => "the form is too large".to_owned(),
            Self::InvalidClient(_) => "unknown client or wrong secret".to_owned(),
            Self::UnauthorizedClient => "the client may not use this grant".to_owned(),
            Self::UnsupportedGrantType => "use grant_type client_credentials".to_owned(),
            Self::InvalidScope => "the client may not have this scope".to_owned(),
            Self::InvalidTarget => "the client may not have tokens for this audience".to_owned(),
            Self::Unavailable(
                why @ (CannotSign::ClientRevoked { seconds } | CannotSign::AllRevoked { seconds }),
            ) => {
                format!("{why}; one that is issued in {seconds} s is not")
            }
            Self::Unavailable(why) => format!("{why}; try again"),
        }
    }

    /// In seconds, where asking again helps.
    const fn retry_after(self) -> Option<u64> {
        match self {
            Self::Unavailable(CannotSign::ClientRevoked { seconds } | CannotSign::AllRevoked { seconds }) => {
                Some(seconds)
            }
            Self::Unavailable(_) => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable(CannotSign::ClientRevoked { .. }) => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<FormFault> for Rejection {
    fn from(fault: FormFault) -> Self {
        Self::InvalidRequest(match fault {
            FormFault::Encoding => "the form is not well encoded",
            FormFault::Duplicate => "a parameter is sent twice",
        })
    }
}

impl From<CannotSign> for Rejection {
    fn from(why: CannotSign) -> Self {
        Self::Unavailable(why)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error(), "error_description": self.description()});
        let mut response = (self.status(), Json(body)).into_response();
        forbid_storing(&mut response);
        let headers = response.headers_mut();
        if self == Self::InvalidClient(Method::Basic) {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"token\", charset=\"UTF-8\""),
            );
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// RFC 6749 section 5.1, for whatever the token endpoint answers.
pub(crate) fn forbid_storing(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}
