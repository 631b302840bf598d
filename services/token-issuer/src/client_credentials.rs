//! Which client asks, as it says in exactly one of two ways: Basic authentication, or parameters of the form
//! (RFC 6749 section 2.3.1). It must not know which clients there are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::form::{self, Parameters};
use crate::rejection::Rejection;

pub(crate) struct Credentials {
    pub(crate) id: Zeroizing<String>,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) method: Method,
}

/// A client that used Basic is answered with a challenge (RFC 6749 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Basic,
    Post,
}

impl Credentials {
    pub(crate) fn of(headers: &HeaderMap, form: &Parameters) -> Result<Self, Rejection> {
        let mut authorizations = headers.get_all(AUTHORIZATION).iter();
        let authorization = authorizations.next();
        if authorizations.next().is_some() {
            return Err(Rejection::InvalidRequest("send one Authorization header"));
        }
        match (authorization, form.get("client_secret")) {
            (Some(_), Some(_)) => Err(Rejection::InvalidRequest(
                "authenticate in one way, by header or by form",
            )),
            (Some(authorization), None) => {
                let credentials =
                    basic(authorization.as_bytes()).ok_or(Rejection::InvalidClient(Method::Basic))?;
                if form.get("client_id").is_some_and(|id| *id != credentials.id) {
                    return Err(Rejection::InvalidRequest(
                        "client_id differs from the Authorization header's",
                    ));
                }
                Ok(credentials)
            }
            (None, secret) => {
                let id = form
                    .get("client_id")
                    .ok_or(Rejection::InvalidClient(Method::Post))?;
                let secret = secret.ok_or(Rejection::InvalidClient(Method::Post))?;
                Ok(Self {
                    id: id.clone(),
                    secret: secret.clone(),
                    method: Method::Post,
                })
            }
        }
    }
}

/// RFC 7617, each half form-encoded first.
fn basic(authorization: &[u8]) -> Option<Credentials> {
    let (scheme, encoded) = authorization.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (id, secret) = (form::decode(&pair[..colon])?, form::decode(&pair[colon + 1..])?);
    Some(Credentials {
        id,
        secret,
        method: Method::Basic,
    })
}
