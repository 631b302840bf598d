//! The bearer token of a request (RFC 6750 section 2.1): exactly one `Authorization` header, its scheme in any
//! case, a token of bounded size and alphabet. It finds and carries the token; whether to believe it is
//! `verify`'s to say.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, HeaderValue};

use crate::rejected::{Rejected, RequestFault, TokenFault};

const SCHEME: &[u8] = b"Bearer ";

/// A token as the client sent it, ready to be sent on byte for byte. Clones share the bytes.
///
/// It compares and hashes as the token's bytes; Debug does not show them, and the header value it hands out is
/// marked sensitive.
#[derive(Clone)]
pub struct BearerToken {
    /// `Bearer <token>` in memory of its own, so that it never keeps a whole request buffer alive.
    header: HeaderValue,
}

impl BearerToken {
    /// Takes a token of the `b64token` alphabet (RFC 6750 section 2.1).
    ///
    /// # Errors
    /// [`TokenFault::NotB64Token`] for any other character, or for none.
    pub fn new(token: &str) -> Result<Self, Rejected> {
        if !is_b64token(token.as_bytes()) {
            return Err(TokenFault::NotB64Token.into());
        }
        Ok(Self::from_alphabet(token.as_bytes())?)
    }

    /// As [`BearerToken::new`], for a token whose alphabet was looked at.
    pub(crate) fn from_alphabet(token: &[u8]) -> Result<Self, TokenFault> {
        let line = [SCHEME, token].concat();
        let mut header =
            HeaderValue::from_maybe_shared(bytes::Bytes::from(line)).map_err(|_| TokenFault::NotB64Token)?;
        header.set_sensitive(true);
        Ok(Self { header })
    }

    /// The token alone, without its scheme.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.header.as_bytes().get(SCHEME.len()..).unwrap_or_default()
    }

    /// The token alone, without its scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The constructors admit ASCII only.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The value of an `Authorization` header that carries this token: a shared copy, marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BearerToken({} bytes)", self.as_bytes().len())
    }
}

impl PartialEq for BearerToken {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for BearerToken {}

impl Hash for BearerToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for BearerToken {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The bytes a request presents as its token, or nothing where it presents none. The alphabet is not looked at
/// yet: whoever finds these bytes in the cache knows it already.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, Rejected> {
    if headers.get_all(CONNECTION).iter().any(names_authorization) {
        return Err(RequestFault::AuthorizationIsHopByHop.into());
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(RequestFault::SeveralAuthorizationHeaders.into());
    }
    let value = value.as_bytes();
    let scheme_ends = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
    let (scheme, credentials) = value.split_at(scheme_ends);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Rejected::ForeignScheme);
    }
    let token_begins = credentials
        .iter()
        .position(|&byte| byte != b' ')
        .unwrap_or(credentials.len());
    match credentials.get(token_begins..) {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(TokenFault::NotB64Token.into()),
    }
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
pub(crate) fn is_b64token(token: &[u8]) -> bool {
    let body = token.iter().position(|&byte| byte == b'=').unwrap_or(token.len());
    let (body, padding) = token.split_at(body);
    !body.is_empty()
        && body
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
        && padding.iter().all(|&byte| byte == b'=')
}

/// A proxy that honours `Connection: authorization` drops the token on its way (CVE-2024-45410).
fn names_authorization(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"authorization"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_request_without_authorization_presents_nothing() {
        assert_eq!(presented(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn the_scheme_is_known_in_any_case() {
        for line in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "bEaReR   a.b.c"] {
            assert_eq!(
                presented(&headers(&[(AUTHORIZATION, line)])),
                Ok(Some(&b"a.b.c"[..])),
                "{line}"
            );
        }
    }

    #[test]
    fn another_scheme_is_not_taken_for_a_token() {
        for line in ["Basic YTpi", "Bearertoken", "BearerX abc", ""] {
            assert_eq!(
                presented(&headers(&[(AUTHORIZATION, line)])),
                Err(Rejected::ForeignScheme),
                "{line}"
            );
        }
    }

    #[test]
    fn a_scheme_without_a_token_is_refused() {
        for line in ["Bearer", "Bearer "] {
            let headers = headers(&[(AUTHORIZATION, line)]);
            assert_eq!(presented(&headers), Err(TokenFault::NotB64Token.into()), "{line}");
        }
    }

    #[test]
    fn two_authorization_headers_are_refused_even_when_they_are_equal() {
        let twice = headers(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")]);
        assert_eq!(
            presented(&twice),
            Err(RequestFault::SeveralAuthorizationHeaders.into())
        );
    }

    #[test]
    fn connection_that_names_authorization_is_refused() {
        for value in [
            "authorization",
            "close, Authorization",
            "keep-alive ,AUTHORIZATION\t",
        ] {
            let named = headers(&[(CONNECTION, value), (AUTHORIZATION, "Bearer a")]);
            assert_eq!(
                presented(&named),
                Err(RequestFault::AuthorizationIsHopByHop.into()),
                "{value}"
            );
        }
        let two_lines = headers(&[(CONNECTION, "close"), (CONNECTION, "authorization")]);
        assert_eq!(
            presented(&two_lines),
            Err(RequestFault::AuthorizationIsHopByHop.into())
        );
    }

    #[test]
    fn only_the_alphabet_of_rfc_6750_makes_a_token() {
        for good in ["a", "a.b-c_d~e+f/g==", "0"] {
            assert!(is_b64token(good.as_bytes()), "{good}");
        }
        for bad in ["", "=", "a=b", "a b", "a,b", "a\tb", "ü", "a\"", "a;b"] {
            assert!(!is_b64token(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_byte_of_the_token() {
        let token = BearerToken::new("secretsecret").unwrap();
        assert_eq!(format!("{token:?}"), "BearerToken(12 bytes)");
        assert!(!format!("{:?}", token.header_value()).contains("secret"));
    }

    proptest! {
        #[test]
        fn a_token_is_sent_on_byte_for_byte(token in "[A-Za-z0-9._~+/-]{1,300}={0,2}") {
            let carried = BearerToken::new(&token).unwrap();
            prop_assert_eq!(carried.as_str(), token.as_str());
            let mut sent = HeaderMap::new();
            sent.insert(AUTHORIZATION, carried.header_value());
            prop_assert_eq!(presented(&sent), Ok(Some(token.as_bytes())));
        }

        #[test]
        fn no_header_value_panics(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, value);
                let _ = presented(&headers);
            }
        }
    }
}
