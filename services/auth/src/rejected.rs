//! Why a request is refused, and what its sender is told (RFC 6750 section 3, RFC 9457). The reason is for logs
//! and traces; the answer says only which kind of refusal it is, so that it teaches a forger nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use servicechain_keys::Malformed;

/// How long a client is asked to wait where only time or an authority's word helps.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A refusal. [`Rejected::status`] and [`Rejected::response`] are for the client, [`Rejected::reason`] for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// 401 without an error code: no token where a caller is required.
    NoToken,
    /// 401 without an error code: an `Authorization` header of another scheme than Bearer.
    ForeignScheme,
    /// 400 `invalid_request`: the request contradicts itself.
    Request(RequestFault),
    /// 401 `invalid_token`.
    Token(TokenFault),
    /// 403 `insufficient_scope`: a verified caller who may not do this.
    Forbidden(Forbidden),
    /// 503: nobody can say yet whether the token is good; it may be.
    Unavailable(Unavailable),
}

/// What makes a request itself malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// More than one `Authorization` header: two hops might each believe another one (CVE-2025-64527).
    SeveralAuthorizationHeaders,
    /// `Connection: authorization` asks a proxy to drop the token (CVE-2024-45410).
    AuthorizationIsHopByHop,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// A character outside the `b64token` alphabet, or nothing after the scheme.
    NotB64Token,
    /// Larger than the policy's `maxTokenBytes`.
    TooLarge,
    /// Not a compact JWS this project reads, or an algorithm it never accepts.
    Jws(Malformed),
    /// The payload is no JSON object in UTF-8, repeats a member, nests too deep or holds a number out of range.
    ClaimsSyntax,
    /// A claim that must be there is absent or empty.
    ClaimMissing(&'static str),
    /// A claim has another JSON type or range than RFC 7519 gives it.
    ClaimType(&'static str),
    /// `cnf`: the token is bound to a proof nobody here checks.
    Confirmation,
    /// No issuer of the bundle has this `iss`.
    UnknownIssuer,
    /// The issuer is trusted by the chain and not at this hop.
    IssuerNotAccepted,
    /// The header's `typ` is not one this issuer's access tokens have (an ID token is no access token).
    TokenType,
    /// `aud` holds no audience that issuer and hop accept.
    Audience,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// `iat` lies in the future, which would stretch the longest lifetime.
    IssuedInFuture,
    /// `exp - iat` is above the longest lifetime the policy or the issuer allows.
    LivesTooLong,
    /// Less time is left than the hop asks for.
    ExpiresTooSoon,
    /// A claim the policy requires is absent or has another value.
    RequiredClaim,
    /// The subject, session, client, token, key or issuer was revoked.
    Revoked,
    /// No `kid`, and more than one key of the issuer would fit.
    AmbiguousKey,
    /// The key named is pinned to another algorithm than the header's.
    AlgorithmMismatch,
    /// An authority, asked after the token came, does not know its key.
    UnknownKey,
    /// The signature does not verify.
    Signature,
}

/// What a verified caller lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The rule that decides asks for these scopes, separated by spaces as RFC 6750 writes them.
    Scopes(Arc<str>),
    /// No rule allows this method and path to anybody.
    NoRule,
}

/// Why nobody can say whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No key bundle has arrived yet.
    NoBundle,
    /// The issuer is trusted and none of its keys is known yet.
    NoKeys,
    /// The key is unknown here and no authority said so after the token came.
    UnknownKey,
    /// The operator confirmed nothing for longer than `maxStaleness`.
    Stale,
}

impl Rejected {
    /// A fixed phrase for logs and traces: never a byte of the token, never for the client.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no token",
            Self::ForeignScheme => "authorization scheme is not Bearer",
            Self::Request(fault) => fault.reason(),
            Self::Token(fault) => fault.reason(),
            Self::Forbidden(Forbidden::Scopes(_)) => "scope missing",
            Self::Forbidden(Forbidden::NoRule) => "no authorization rule matches",
            Self::Unavailable(unavailable) => unavailable.reason(),
        }
    }

    /// 400, 401, 403 or 503.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::ForeignScheme | Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The challenge of RFC 6750 section 3; none beside a 503.
    #[must_use]
    pub fn www_authenticate(&self) -> Option<HeaderValue> {
        match self {
            Self::NoToken | Self::ForeignScheme => Some(HeaderValue::from_static("Bearer")),
            Self::Request(_) => Some(HeaderValue::from_static(r#"Bearer error="invalid_request""#)),
            Self::Token(_) => Some(HeaderValue::from_static(r#"Bearer error="invalid_token""#)),
            Self::Forbidden(Forbidden::Scopes(scopes)) => {
                // Rules admit only scope tokens (RFC 6749 section 3.3), which a quoted string holds as they are.
                HeaderValue::try_from(format!(r#"Bearer error="insufficient_scope", scope="{scopes}""#)).ok()
            }
            Self::Forbidden(Forbidden::NoRule) => {
                Some(HeaderValue::from_static(r#"Bearer error="insufficient_scope""#))
            }
            Self::Unavailable(_) => None,
        }
    }

    /// How long a client should wait before it tries again; only beside a 503.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(_) => Some(Duration::from_secs(RETRY_AFTER_SECONDS)),
            _ => None,
        }
    }

    /// What the client reads: the kind of refusal and what to do, not the reason.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::NoToken | Self::ForeignScheme => {
                "Send an access token in the Authorization header, as Bearer."
            }
            Self::Request(_) => "Send exactly one Authorization header, and do not name it in Connection.",
            Self::Token(_) => "The access token is not accepted here. Get a new one from its issuer.",
            Self::Forbidden(_) => "The access token does not allow this request.",
            Self::Unavailable(_) => "The access token cannot be verified at the moment. Try again shortly.",
        }
    }

    /// The whole answer: status, challenge or Retry-After, and a problem+json body (RFC 9457).
    #[must_use]
    pub fn response<B: From<Bytes>>(&self) -> Response<B> {
        let status = self.status();
        let body = format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}"}}"#,
            status.canonical_reason().unwrap_or_default(),
            status.as_u16(),
            self.detail(),
        );
        let mut response = Response::new(B::from(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.www_authenticate() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())
    }
}

impl std::error::Error for Rejected {}

impl axum::response::IntoResponse for Rejected {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RequestFault> for Rejected {
    fn from(fault: RequestFault) -> Self {
        Self::Request(fault)
    }
}

impl From<TokenFault> for Rejected {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}

impl From<Unavailable> for Rejected {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl RequestFault {
    fn reason(self) -> &'static str {
        match self {
            Self::SeveralAuthorizationHeaders => "several Authorization headers",
            Self::AuthorizationIsHopByHop => "Connection names Authorization",
        }
    }
}

impl TokenFault {
    fn reason(self) -> &'static str {
        match self {
            Self::NotB64Token => "token has characters no bearer token has",
            Self::TooLarge => "token too large",
            Self::Jws(malformed) => syntax_reason(malformed),
            Self::ClaimsSyntax => "claims are no strict JSON object",
            Self::ClaimMissing("exp") => "claim exp missing",
            Self::ClaimMissing("iss") => "claim iss missing",
            Self::ClaimMissing("aud") => "claim aud missing",
            Self::ClaimMissing("sub") => "claim sub missing",
            Self::ClaimMissing("iat") => "claim iat missing",
            Self::ClaimMissing("client_id") => "claim client_id missing",
            Self::ClaimMissing("jti") => "claim jti missing",
            Self::ClaimMissing(_) => "claim missing",
            Self::ClaimType("exp") => "claim exp has a wrong type or range",
            Self::ClaimType("nbf") => "claim nbf has a wrong type or range",
            Self::ClaimType("iat") => "claim iat has a wrong type or range",
            Self::ClaimType("aud") => "claim aud has a wrong type",
            Self::ClaimType(_) => "claim has a wrong type",
            Self::Confirmation => "token is bound to a proof (cnf)",
            Self::UnknownIssuer => "issuer unknown",
            Self::IssuerNotAccepted => "issuer not accepted at this hop",
            Self::TokenType => "token type not accepted",
            Self::Audience => "audience not accepted",
            Self::Expired => "expired",
            Self::NotYetValid => "not valid yet",
            Self::IssuedInFuture => "issued in the future",
            Self::LivesTooLong => "lives longer than allowed",
            Self::ExpiresTooSoon => "expires before the request could complete",
            Self::RequiredClaim => "required claim absent or different",
            Self::Revoked => "revoked",
            Self::AmbiguousKey => "no kid and several keys fit",
            Self::AlgorithmMismatch => "algorithm is not the one pinned to the key",
            Self::UnknownKey => "key unknown to its authority",
            Self::Signature => "signature does not verify",
        }
    }
}

impl Unavailable {
    fn reason(self) -> &'static str {
        match self {
            Self::NoBundle => "no key bundle yet",
            Self::NoKeys => "no key of the issuer yet",
            Self::UnknownKey => "key unknown and no authority answered",
            Self::Stale => "key bundle not confirmed for too long",
        }
    }
}

fn syntax_reason(malformed: Malformed) -> &'static str {
    match malformed {
        Malformed::TooLarge => "token too large",
        Malformed::NotThreeParts => "token has not three parts",
        Malformed::NotBase64url => "token is not canonical base64url",
        Malformed::Header => "header is no strict JSON object",
        Malformed::RefusedParameter(_) => "header parameter not accepted",
        Malformed::Parameter("alg") => "header parameter alg missing or of a wrong type",
        Malformed::Parameter(_) => "header parameter of a wrong type or size",
        Malformed::Unsigned => "unsigned (alg none)",
        Malformed::SymmetricAlgorithm => "symmetric algorithm",
        Malformed::UnknownAlgorithm => "unknown algorithm",
        Malformed::EmptySignature => "empty signature",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(rejected: &Rejected, name: http::HeaderName) -> Option<String> {
        let response: Response<Bytes> = rejected.response();
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_missing_token_is_challenged_without_an_error_code() {
        assert_eq!(Rejected::NoToken.status(), 401);
        assert_eq!(header(&Rejected::NoToken, WWW_AUTHENTICATE).unwrap(), "Bearer");
        assert_eq!(
            header(&Rejected::ForeignScheme, WWW_AUTHENTICATE).unwrap(),
            "Bearer"
        );
    }

    #[test]
    fn each_kind_of_refusal_has_its_status_and_error_code() {
        let scopes = Rejected::Forbidden(Forbidden::Scopes("items:read items:write".into()));
        for (rejected, status, challenge) in [
            (
                Rejected::from(RequestFault::SeveralAuthorizationHeaders),
                400,
                r#"Bearer error="invalid_request""#,
            ),
            (TokenFault::Expired.into(), 401, r#"Bearer error="invalid_token""#),
            (
                scopes,
                403,
                r#"Bearer error="insufficient_scope", scope="items:read items:write""#,
            ),
            (
                Rejected::Forbidden(Forbidden::NoRule),
                403,
                r#"Bearer error="insufficient_scope""#,
            ),
        ] {
            assert_eq!(rejected.status(), status);
            assert_eq!(header(&rejected, WWW_AUTHENTICATE).unwrap(), challenge);
            assert_eq!(header(&rejected, RETRY_AFTER), None);
        }
    }

    #[test]
    fn an_unverifiable_token_is_asked_to_come_again_and_not_called_invalid() {
        let rejected = Rejected::from(Unavailable::UnknownKey);
        assert_eq!(rejected.status(), 503);
        assert_eq!(header(&rejected, RETRY_AFTER).unwrap(), "1");
        assert_eq!(header(&rejected, WWW_AUTHENTICATE), None);
    }

    #[test]
    fn the_body_is_a_problem_that_does_not_tell_the_reason() {
        for fault in [
            TokenFault::Expired,
            TokenFault::Signature,
            TokenFault::UnknownIssuer,
        ] {
            let rejected = Rejected::from(fault);
            let response: Response<Bytes> = rejected.response();
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(problem["status"], 401);
            assert_eq!(problem["title"], "Unauthorized");
            assert!(!problem.to_string().contains(rejected.reason()));
        }
    }
}
