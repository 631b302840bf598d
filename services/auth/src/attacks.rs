//! Requests that must be refused, each with its reason: what rivals let through and what libraries had to mend. Whoever
//! verifies tokens in this project is tested against all of them. Only with the feature `attacks`.

mod claims;
mod key;
mod parser;
mod request;
mod signature;

use aws_lc_rs::hmac;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use servicechain_keys::{Algorithm, NumericDate, SigningKey, base64url};

pub use key::odd_kids;

/// Whom the attacks are aimed at.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The private key of a trusted issuer: some attacks are its own tokens, used wrongly.
    pub key: &'a SigningKey,
    /// The key's name in the bundle.
    pub kid: &'a str,
    /// That issuer's `iss`.
    pub iss: &'a str,
    /// An audience that is accepted from it.
    pub audience: &'a str,
    /// The `typ` of its access tokens.
    pub token_type: &'a str,
    /// The verifiers' time.
    pub now: NumericDate,
}

/// One request that must not pass.
#[derive(Clone)]
pub struct Attack {
    pub name: &'static str,
    /// What would be lost if it passed.
    pub why: &'static str,
    /// All the headers it needs. A server may refuse the largest of them earlier, with 431.
    pub headers: HeaderMap,
    /// 400 or 401.
    pub status: StatusCode,
    /// [`Rejected::reason`](crate::Rejected::reason) of the refusal.
    pub reason: &'static str,
}

impl std::fmt::Debug for Attack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Attack")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Target<'_> {
    /// Claims that pass.
    #[must_use]
    pub fn claims(&self) -> Map<String, Value> {
        let now = self.now.as_seconds();
        let claims = json!({
            "iss": self.iss, "sub": "mallory", "aud": self.audience, "client_id": "mallory",
            "jti": "d1f3", "iat": now, "exp": now + 600, "scope": "items:read items:write",
        });
        claims.as_object().cloned().unwrap_or_default()
    }

    /// A header that passes.
    #[must_use]
    pub fn header(&self) -> Map<String, Value> {
        let header = json!({"alg": self.key.algorithm().name(), "kid": self.kid, "typ": self.token_type});
        header.as_object().cloned().unwrap_or_default()
    }

    /// The token all attacks start from; it passes.
    #[must_use]
    pub fn good_token(&self) -> String {
        self.signed(&text(self.header()), text(self.claims()).as_bytes())
    }

    /// Signs any header and any payload with the issuer's key.
    fn signed(&self, header: &str, payload: &[u8]) -> String {
        let input = format!("{}.{}", base64url::encode(header), base64url::encode(payload));
        let signature = self.key.sign(input.as_bytes()).unwrap_or_default();
        format!("{input}.{}", base64url::encode(signature))
    }

    fn with_header(&self, changes: Value) -> String {
        self.signed(
            &text(changed(self.header(), changes)),
            text(self.claims()).as_bytes(),
        )
    }

    fn with_claims(&self, changes: Value) -> String {
        self.signed(
            &text(self.header()),
            text(changed(self.claims(), changes)).as_bytes(),
        )
    }

    /// Good claims with a member beside them whose JSON is written as it is.
    fn with_raw_claim(&self, member: &str) -> String {
        let claims = text(self.claims()).replacen('{', &format!("{{{member},"), 1);
        self.signed(&text(self.header()), claims.as_bytes())
    }

    fn with_raw_exp(&self, exp: &str) -> String {
        let mark = u64::MAX - 1;
        let claims = text(changed(self.claims(), json!({"exp": mark}))).replace(&mark.to_string(), exp);
        self.signed(&text(self.header()), claims.as_bytes())
    }

    fn without_claim(&self, name: &str) -> String {
        let mut claims = self.claims();
        claims.remove(name);
        self.signed(&text(self.header()), text(claims).as_bytes())
    }

    fn with_signature(&self, signature: &[u8]) -> String {
        let good = self.good_token();
        let input = good.rsplit_once('.').map_or("", |(input, _)| input);
        format!("{input}.{}", base64url::encode(signature))
    }

    fn unsigned(&self, algorithm: &str) -> String {
        let header = text(changed(self.header(), json!({"alg": algorithm})));
        format!(
            "{}.{}.",
            base64url::encode(header),
            base64url::encode(text(self.claims()))
        )
    }

    fn by_hmac(&self, secret: &[u8]) -> String {
        let header = text(changed(self.header(), json!({"alg": "HS256"})));
        let input = format!(
            "{}.{}",
            base64url::encode(header),
            base64url::encode(text(self.claims()))
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        format!("{input}.{}", base64url::encode(tag))
    }

    /// A token by another key that names the target's, or brings itself along.
    fn by_stranger(&self, stranger: &SigningKey, changes: Value) -> String {
        let header = changed(self.header(), json!({"alg": stranger.algorithm().name()}));
        let payload = text(self.claims());
        stranger
            .sign_compact_with(&changed(header, changes), payload.as_bytes())
            .unwrap_or_default()
    }
}

/// Every attack on a target. A stranger's key is made for those that need one.
#[must_use]
pub fn attacks(target: &Target<'_>) -> Vec<Attack> {
    let Ok(stranger) = SigningKey::generate(Algorithm::ES256) else {
        return Vec::new();
    };
    let by_part = [
        signature::attacks(target, &stranger),
        key::attacks(target, &stranger),
        claims::attacks(target),
        parser::attacks(target),
        request::attacks(target),
    ];
    by_part.into_iter().flatten().collect()
}

/// Tokens that are refused with 401 for one reason, each under its name.
fn tokens<const N: usize>(
    why: &'static str,
    reason: &'static str,
    tokens: [(&'static str, String); N],
) -> impl Iterator<Item = Attack> {
    tokens.into_iter().map(move |(name, token)| {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer(&token))]);
        Attack {
            name,
            why,
            headers,
            status: StatusCode::UNAUTHORIZED,
            reason,
        }
    })
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

fn text(members: Map<String, Value>) -> String {
    Value::Object(members).to_string()
}

fn changed(mut members: Map<String, Value>, changes: Value) -> Map<String, Value> {
    if let Value::Object(changes) = changes {
        members.extend(changes);
    }
    members
}
