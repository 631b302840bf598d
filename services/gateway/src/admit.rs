//! Who may pass: the verifier's judgement of the token, and what the route asks beyond it. It also decides whether
//! an Authorization header goes on: the verified token unchanged, or none at all.

use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use servicechain_auth::rejected::RequestFault;
use servicechain_auth::{Caller, Judged, Rejected, Verifier};
use servicechain_keys::NumericDate;
use servicechain_runtime::deadline::Deadline;

use crate::config::{Authentication, Route};
use crate::rejection::Rejection;

/// The caller of a request that may pass, or `None` where the route lets nobody in particular pass. It awaits
/// only where the token's key is unknown and somebody can be asked.
///
/// # Errors
/// [`Rejection`] with 400, 401, 403 or 503.
pub(crate) async fn admit(
    verifier: &Verifier,
    route: &Route,
    head: &mut Parts,
    deadline: Deadline,
) -> Result<Option<Caller>, Rejection> {
    if route.authentication == Authentication::None {
        keep_foreign_credentials(&mut head.headers)?;
        return Ok(None);
    }
    let caller = match judge(verifier, &head.headers, deadline).await {
        Ok(Some(caller)) => caller,
        Ok(None) if route.authentication == Authentication::Optional => {
            head.headers.remove(AUTHORIZATION);
            return Ok(None);
        }
        Ok(None) => return Err(Rejected::NoToken.into()),
        Err(rejected) => return Err(rejected.into()),
    };
    route.check(&caller)?;
    if !head.method.is_safe() {
        check_lifetime(&caller, deadline, verifier.now())?;
    }
    Ok(Some(caller))
}

async fn judge(
    verifier: &Verifier,
    headers: &HeaderMap,
    deadline: Deadline,
) -> Result<Option<Caller>, Rejected> {
    use servicechain_auth::Authentication::{Absent, Rejected, Verified};
    match verifier.judge(headers) {
        Judged::Absent => Ok(None),
        Judged::Verified(caller) => Ok(Some(caller)),
        Judged::Rejected(rejected) => Err(rejected),
        // Rare and large, so not a part of every request's future.
        Judged::UnknownKey(_) => match Box::pin(verifier.authenticate(headers, deadline.at())).await {
            Absent => Ok(None),
            Verified(caller) => Ok(Some(caller)),
            Rejected(rejected) => Err(rejected),
        },
    }
}

/// A hop that holds no verified token sends none, so a route that looks at no token drops it. `Basic` is no token
/// of the chain: it is how clients authenticate at an issuer's token endpoint (RFC 6749 section 2.3.1).
fn keep_foreign_credentials(headers: &mut HeaderMap) -> Result<(), Rejected> {
    let mut credentials = headers.get_all(AUTHORIZATION).iter();
    match (credentials.next(), credentials.next()) {
        (_, Some(_)) => Err(RequestFault::SeveralAuthorizationHeaders.into()),
        (Some(only), None) => {
            let is_basic = only
                .as_bytes()
                .get(..6)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
            if !is_basic {
                headers.remove(AUTHORIZATION);
            }
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// An unsafe request that outlives its token may be done by one hop and refused by the next.
fn check_lifetime(caller: &Caller, deadline: Deadline, now: NumericDate) -> Result<(), Rejection> {
    match deadline.remaining() {
        Some(left) if caller.remaining(now) < left => Err(Rejection::ExpiresTooSoon),
        _ => Ok(()),
    }
}
