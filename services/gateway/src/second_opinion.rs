//! What becomes of an upstream's 401 for a token that passed here: it is the client's, unless it is the verdict of a hop
//! and the token is still good. Then another address is asked, once, and after that the hop is at fault and not the token.
//!
//! It is the gateway's half of a rule of the key protocol; which 401 is a verdict is `servicechain_auth`'s to know.

use http::{Method, StatusCode};
use servicechain_auth::SecondOpinion;
use servicechain_runtime::deadline::Deadline;

use crate::app::Worker;
use crate::exchange::Exchange;
use crate::forward::{self, Answer};
use crate::rejection::Rejection;

/// The answer for the client, `answer` being a 401 of the route's upstream.
///
/// # Errors
/// [`Rejection`]: the token has ended, or the upstream refuses a good one.
pub(crate) async fn heed(
    worker: &Worker,
    route: usize,
    method: &Method,
    answer: Answer,
    deadline: Deadline,
    exchange: &mut Exchange,
) -> Result<Answer, Rejection> {
    if !disagrees(worker, route, &answer, exchange)? {
        return Ok(answer);
    }
    let address = answer.address();
    // A verifier stands before whatever its service does, so the request was not applied and may be repeated whatever its
    // method (RFC 9110 section 9.2.2). A body that went by is gone.
    let request = answer.into_request().ok_or(Rejection::RefusesGoodToken)?;
    let upstream = &worker.gateway.upstreams[route];
    let sent = forward::send(upstream, &worker.pool, method, request, deadline, Some(address));
    match deadline.bound(sent).await {
        Ok(Ok(second)) if !disagrees(worker, route, &second, exchange)? => Ok(second),
        Ok(_) => Err(Rejection::RefusesGoodToken),
        Err(_passed) => Err(Rejection::SlowUpstream),
    }
}

/// Whether the answer refuses a token that is still good here.
fn disagrees(
    worker: &Worker,
    route: usize,
    answer: &Answer,
    exchange: &mut Exchange,
) -> Result<bool, Rejection> {
    // Without a caller no token went along.
    let Some(caller) = exchange
        .caller()
        .filter(|_| answer.response.status() == StatusCode::UNAUTHORIZED)
    else {
        return Ok(false);
    };
    match worker
        .gateway
        .verifier
        .second_opinion(&caller, answer.response.headers())
    {
        SecondOpinion::Theirs => Ok(false),
        SecondOpinion::Agrees(rejected) => {
            let rejection = rejected.into();
            exchange.is_refused(&rejection);
            Err(rejection)
        }
        SecondOpinion::Disagrees => {
            exchange.disagrees();
            let service = &worker.gateway.upstreams[route].service;
            let address = answer.address();
            tracing::error!(next = service, %address, "the next hop refuses a token that is good here: compare the keys and the clocks of both");
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests;
