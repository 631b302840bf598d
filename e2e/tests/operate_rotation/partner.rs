//! An issuer whose tokens the test makes itself: the chain's own ones have no sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use servicechain_auth::specimen::{AUDIENCE, new_key, sign_claims};
use servicechain_e2e::token_load::Token;
use servicechain_keys::{Algorithm, NumericDate, SigningKey};
use servicechain_runtime::clock::Clock;

pub(crate) const URL: &str = "https://partner.example.com";
const LIFETIME: Duration = Duration::from_hours(1);

/// Its key.
pub(crate) struct Partner(SigningKey);

impl Partner {
    pub(crate) fn new() -> Self {
        Self(new_key(Algorithm::ES256))
    }

    /// RFC 7517, section 5.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.0.public_jwk()]})
    }

    pub(crate) fn token(&self, subject: &str, session: &str) -> Arc<Token> {
        let (now, since) = (NumericDate::from(Clock::system().now()), Instant::now());
        let claims = json!({
            "iss": URL, "sub": subject, "sid": session, "aud": AUDIENCE, "client_id": "partner",
            "jti": format!("{subject}-{session}"), "iat": now.as_seconds(),
            "exp": now.plus(LIFETIME).as_seconds(), "scope": "items:read items:write",
        });
        let text = sign_claims(&self.0, claims.as_object().unwrap());
        Token::new(text, subject, since, LIFETIME)
    }
}
