//! Every way a request ends here instead of at its service, and the one mapping of each to HTTP. A problem says
//! whose fault it is (Client, Upstream or Internal) and names the hop; causes belong in the log.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use servicechain_auth::Rejected;
use servicechain_runtime::problem::Problem;

/// A client that is told to come again should give the chain a moment.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request is answered by the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// 400: two servers could read it in different ways, or none. A sentence for the client.
    Malformed(&'static str),
    /// 501: valid HTTP that this gateway does not do. A sentence for the client.
    NotSupportedYet(&'static str),
    /// 417: an `Expect` other than `100-continue`.
    Expectation,
    /// 404: no route has this host and path.
    NoRoute,
    /// 413: the body is larger than this many bytes.
    BodyTooLarge(u64),
    /// 408: the client did not send its body in time.
    SlowClient,
    /// 400: the client's body broke off.
    BodyBrokeOff,
    /// 400, 401, 403 or 503: what the verifier said.
    Refused(Rejected),
    /// 401: an unsafe request could outlive its token, and half of it be refused.
    ExpiresTooSoon,
    /// 503: no address of the upstream took a connection; nothing was sent.
    Unreachable,
    /// 502: the upstream's connection ended, or what it sent is no HTTP answer.
    BrokeOff,
    /// 503: the upstream refuses a token that is good here, at two of its addresses or at the only one.
    RefusesGoodToken,
    /// 504: the deadline passed before the upstream answered.
    SlowUpstream,
}

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Client,
    Upstream,
    Internal,
}

impl Rejection {
    /// The answer; `hop` is this gateway's name and `service` the upstream's, if a route was found.
    pub(crate) fn response(&self, hop: &str, service: Option<&str>) -> Response<Bytes> {
        let named = match self.fault() {
            Fault::Upstream => service.unwrap_or(hop),
            Fault::Client | Fault::Internal => hop,
        };
        self.problem(named)
            .hop(named)
            .with("fault", self.fault().as_str())
            .into_http()
    }

    /// A fixed phrase for the access record.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(sentence) | Self::NotSupportedYet(sentence) => sentence,
            Self::Expectation => "unknown expectation",
            Self::NoRoute => "no route",
            Self::BodyTooLarge(_) => "body too large",
            Self::SlowClient => "client too slow",
            Self::BodyBrokeOff => "body broke off",
            Self::Refused(rejected) => rejected.reason(),
            Self::ExpiresTooSoon => "expires before the request could complete",
            Self::Unreachable => "upstream unreachable",
            Self::BrokeOff => "upstream broke off",
            Self::RefusesGoodToken => "upstream refuses a good token",
            Self::SlowUpstream => "upstream too slow",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Refused(rejected) if rejected.status().is_server_error() => Fault::Internal,
            Self::Unreachable | Self::BrokeOff | Self::RefusesGoodToken | Self::SlowUpstream => {
                Fault::Upstream
            }
            Self::Malformed(_)
            | Self::NotSupportedYet(_)
            | Self::Expectation
            | Self::NoRoute
            | Self::BodyTooLarge(_)
            | Self::SlowClient
            | Self::BodyBrokeOff
            | Self::Refused(_)
            | Self::ExpiresTooSoon => Fault::Client,
        }
    }

    fn problem(&self, named: &str) -> Problem {
        match self {
            Self::Malformed(sentence) => Problem::new(
                StatusCode::BAD_REQUEST,
                "malformed-request",
                "The request is malformed",
            )
            .detail(*sentence),
            Self::NotSupportedYet(sentence) => Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                "not-supported-yet",
                "The gateway does not do this yet",
            )
            .detail(*sentence)
            .header(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ),
            Self::Expectation => Problem::new(
                StatusCode::EXPECTATION_FAILED,
                "unknown-expectation",
                "The expectation is unknown",
            )
            .detail("only 100-continue is understood"),
            Self::NoRoute => Problem::new(
                StatusCode::NOT_FOUND,
                "no-route",
                "No route has this host and path",
            ),
            Self::BodyTooLarge(limit) => {
                Problem::body_too_large(usize::try_from(*limit).unwrap_or(usize::MAX))
            }
            Self::SlowClient => Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow-client",
                "The request did not arrive in time",
            ),
            Self::BodyBrokeOff => Problem::new(
                StatusCode::BAD_REQUEST,
                "body-broke-off",
                "The request body ended before its end",
            ),
            Self::Refused(rejected) => refusal(rejected),
            Self::ExpiresTooSoon => refusal_to_start(),
            Self::Unreachable => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unreachable-hop",
                "A hop could not be reached",
            )
            .detail("no address took a connection; nothing was sent, so the request can be repeated")
            .retry_after(RETRY_AFTER_SECONDS),
            Self::BrokeOff => Problem::new(
                StatusCode::BAD_GATEWAY,
                "broken-hop",
                "A hop did not answer in full",
            )
            .detail("its connection ended, or its answer is not HTTP"),
            Self::RefusesGoodToken => Problem::hop_refuses_good_token(named),
            Self::SlowUpstream => Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "slow-hop",
                "A hop did not answer in time",
            ),
        }
    }
}

impl From<Rejected> for Rejection {
    fn from(rejected: Rejected) -> Self {
        Self::Refused(rejected)
    }
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "Client",
            Self::Upstream => "Upstream",
            Self::Internal => "Internal",
        }
    }
}

fn refusal(rejected: &Rejected) -> Problem {
    let (kind, title) = match rejected {
        Rejected::NoToken | Rejected::ForeignScheme => ("no-token", "A token is required"),
        Rejected::Request(_) => ("malformed-request", "The request is malformed"),
        Rejected::Token(_) => ("invalid-token", "The token is not accepted"),
        Rejected::Forbidden(_) => ("insufficient-scope", "The token does not allow this"),
        Rejected::Unavailable(_) => ("cannot-verify", "The token cannot be verified at the moment"),
    };
    let mut problem = Problem::new(rejected.status(), kind, title)
        .detail(rejected.detail())
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = rejected.www_authenticate() {
        problem = problem.header(WWW_AUTHENTICATE, challenge);
    }
    if rejected.retry_after().is_some() {
        problem = problem.retry_after(RETRY_AFTER_SECONDS);
    }
    problem
}

fn refusal_to_start() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "invalid-token",
        "The token is not accepted",
    )
    .detail("the token expires before the request could complete; get a new one from its issuer")
    .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    .header(
        WWW_AUTHENTICATE,
        HeaderValue::from_static(r#"Bearer error="invalid_token""#),
    )
}

#[cfg(test)]
mod tests {
    use servicechain_auth::rejected::{TokenFault, Unavailable};

    use super::*;

    #[test]
    fn every_rejection_has_its_status_its_fault_and_the_hop_at_fault() {
        for (rejection, status, fault, hop) in [
            (Rejection::Malformed("odd"), 400, "Client", "gateway"),
            (Rejection::NotSupportedYet("odd"), 501, "Client", "gateway"),
            (Rejection::Expectation, 417, "Client", "gateway"),
            (Rejection::NoRoute, 404, "Client", "gateway"),
            (Rejection::BodyTooLarge(10), 413, "Client", "gateway"),
            (Rejection::SlowClient, 408, "Client", "gateway"),
            (Rejection::BodyBrokeOff, 400, "Client", "gateway"),
            (Rejected::NoToken.into(), 401, "Client", "gateway"),
            (
                Rejected::Token(TokenFault::Expired).into(),
                401,
                "Client",
                "gateway",
            ),
            (
                Rejected::Unavailable(Unavailable::NoKeys).into(),
                503,
                "Internal",
                "gateway",
            ),
            (Rejection::ExpiresTooSoon, 401, "Client", "gateway"),
            (Rejection::Unreachable, 503, "Upstream", "a"),
            (Rejection::BrokeOff, 502, "Upstream", "a"),
            (Rejection::RefusesGoodToken, 503, "Upstream", "a"),
            (Rejection::SlowUpstream, 504, "Upstream", "a"),
        ] {
            let response = rejection.response("gateway", Some("a"));
            assert_eq!(response.status(), status, "{rejection:?}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(
                (body["fault"].as_str(), body["hop"].as_str()),
                (Some(fault), Some(hop)),
                "{rejection:?}"
            );
            assert_eq!(
                response.headers().contains_key("www-authenticate"),
                status == 401,
                "{rejection:?}"
            );
            assert_eq!(
                response.headers().contains_key("retry-after"),
                status == 503,
                "{rejection:?}"
            );
        }
    }
}
