//! Requests that must be refused, each with its reason: what rivals let through and what libraries had to mend. Whoever
//! verifies tokens in this project is tested against all of them. Only with the feature `attacks`.

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use servicechain_keys::{Algorithm, NumericDate, SigningKey, base64url};

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
    let mut all = on_the_signature(target, &stranger);
    all.extend(on_the_key(target, &stranger));
    all.extend(on_the_claims(target));
    all.extend(on_the_parser(target));
    all.extend(on_the_request(target));
    all
}

fn on_the_signature(target: &Target<'_>, stranger: &SigningKey) -> Vec<Attack> {
    let jwk = text(target.key.public_jwk().to_members());
    let raw_key: Vec<u8> = ["x", "y", "n"]
        .iter()
        .filter_map(|name| {
            target
                .key
                .public_jwk()
                .to_members()
                .get(*name)?
                .as_str()
                .map(base64url::decode)?
                .ok()
        })
        .flatten()
        .collect();
    let good = target.good_token();
    let signature_length = good
        .rsplit('.')
        .next()
        .and_then(|part| base64url::decode(part).ok())
        .unwrap_or_default()
        .len();
    let other = if target.key.algorithm() == Algorithm::ES256 {
        "RS256"
    } else {
        "ES256"
    };
    let swapped_payload = {
        let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
        if let Some(payload) = parts.get_mut(1) {
            *payload = base64url::encode(text(changed(target.claims(), json!({"sub": "admin"}))));
        }
        parts.join(".")
    };
    vec![
        invalid(
            "alg none",
            "an unsigned token is anybody's",
            "unsigned (alg none)",
            target.unsigned("none"),
        ),
        invalid(
            "alg None",
            "a check for one spelling of none",
            "unsigned (alg none)",
            target.unsigned("None"),
        ),
        invalid(
            "alg NONE",
            "a check for one spelling of none",
            "unsigned (alg none)",
            target.unsigned("NONE"),
        ),
        invalid(
            "alg nOnE",
            "a check for one spelling of none",
            "unsigned (alg none)",
            target.unsigned("nOnE"),
        ),
        invalid(
            "alg with a leading space",
            "a check that trims later",
            "unknown algorithm",
            target.unsigned(" none"),
        ),
        invalid(
            "alg empty",
            "no algorithm is not a default one",
            "unknown algorithm",
            target.unsigned(""),
        ),
        invalid(
            "HS256 with the JWK as secret",
            "the public key is no secret",
            "symmetric algorithm",
            target.by_hmac(jwk.as_bytes()),
        ),
        invalid(
            "HS256 with the raw public key",
            "the public key is no secret",
            "symmetric algorithm",
            target.by_hmac(&raw_key),
        ),
        invalid(
            "HS256 with an empty secret",
            "a missing key is no secret",
            "symmetric algorithm",
            target.by_hmac(b""),
        ),
        invalid(
            "another algorithm than the key's",
            "the token must not choose the algorithm",
            "algorithm is not the one pinned to the key",
            target.with_header(json!({"alg": other})),
        ),
        invalid(
            "blank signature",
            "nothing was signed",
            "empty signature",
            target.with_signature(b""),
        ),
        invalid(
            "signature of zeros (r = s = 0)",
            "CVE-2022-21449: zeros verified under any key",
            "signature does not verify",
            target.with_signature(&vec![0; signature_length]),
        ),
        invalid(
            "signature cut short",
            "a prefix is not the signature",
            "signature does not verify",
            target.with_signature(&vec![1; signature_length / 2]),
        ),
        invalid(
            "payload exchanged",
            "the signature is over what it says",
            "signature does not verify",
            swapped_payload,
        ),
        invalid(
            "a stranger's key under our kid",
            "a kid is a name, not a proof",
            if stranger.algorithm() == target.key.algorithm() {
                "signature does not verify"
            } else {
                "algorithm is not the one pinned to the key"
            },
            target.by_stranger(stranger, json!({})),
        ),
    ]
}

fn on_the_key(target: &Target<'_>, stranger: &SigningKey) -> Vec<Attack> {
    let refused = "header parameter not accepted";
    let jwk = Value::Object(stranger.public_jwk().to_members());
    let by = |changes: Value| target.by_stranger(stranger, changes);
    vec![
        invalid(
            "embedded jwk",
            "a token must not bring its own key",
            refused,
            by(json!({"jwk": jwk})),
        ),
        invalid(
            "embedded x5c",
            "a token must not bring its own certificate",
            refused,
            by(json!({"x5c": ["MIIB"]})),
        ),
        invalid(
            "jku",
            "a token must not say where keys are",
            refused,
            by(json!({"jku": "https://evil.example/jwks.json"})),
        ),
        invalid(
            "x5u",
            "a token must not say where certificates are",
            refused,
            by(json!({"x5u": "https://evil.example/c.pem"})),
        ),
        invalid(
            "crit",
            "what must be understood is not",
            refused,
            target.with_header(json!({"crit": ["exp"], "exp": 1})),
        ),
        invalid(
            "b64 false",
            "RFC 7797 changes what is signed",
            refused,
            target.with_header(json!({"b64": false})),
        ),
        invalid(
            "zip",
            "what is verified is not what is read",
            refused,
            target.with_header(json!({"zip": "DEF"})),
        ),
        invalid(
            "kid of another type",
            "a kid is a string",
            "header parameter of a wrong type or size",
            target.with_header(json!({"kid": 1})),
        ),
        invalid(
            "kid of a kibibyte",
            "a name needs no kibibyte",
            "header parameter of a wrong type or size",
            target.with_header(json!({"kid": "k".repeat(1024)})),
        ),
    ]
}

fn on_the_claims(target: &Target<'_>) -> Vec<Attack> {
    let now = target.now.as_seconds();
    let part = |text: &str| {
        text.get(..text.len().saturating_sub(1))
            .unwrap_or_default()
            .to_owned()
    };
    let with = |changes: Value| target.with_claims(changes);
    let no_date = "claim exp has a wrong type or range";
    vec![
        invalid(
            "exp as a string",
            "CVE-2026-25537: a wrong type must not mean no limit",
            no_date,
            with(json!({"exp": "9999999999"})),
        ),
        invalid(
            "exp null",
            "null must not mean no limit",
            no_date,
            with(json!({"exp": null})),
        ),
        invalid(
            "exp true",
            "true is not one second",
            no_date,
            with(json!({"exp": true})),
        ),
        invalid(
            "exp in an array",
            "an array is no date",
            no_date,
            with(json!({"exp": [now + 600]})),
        ),
        invalid(
            "exp negative",
            "a date before 1970 must not wrap around",
            no_date,
            with(json!({"exp": -1})),
        ),
        invalid(
            "exp beyond 64 bits",
            "a huge date must not wrap around",
            no_date,
            target.with_raw_exp("18446744073709551616"),
        ),
        invalid(
            "exp missing",
            "a token ends",
            "claim exp missing",
            target.without_claim("exp"),
        ),
        invalid(
            "expired",
            "a token ends when it says",
            "expired",
            with(json!({"iat": now - 7200, "exp": now - 3600})),
        ),
        invalid(
            "not valid yet",
            "a token begins when it says",
            "not valid yet",
            with(json!({"nbf": now + 300})),
        ),
        invalid(
            "issued in the future",
            "the lifetime is counted from iat",
            "issued in the future",
            with(json!({"iat": now + 600, "exp": now + 700})),
        ),
        invalid(
            "lives for years",
            "it would outlive every revocation",
            "lives longer than allowed",
            with(json!({"exp": now + 10 * 31_536_000})),
        ),
        invalid(
            "iat missing",
            "its age is unknown",
            "claim iat missing",
            target.without_claim("iat"),
        ),
        invalid(
            "iss missing",
            "keys belong to an issuer",
            "claim iss missing",
            target.without_claim("iss"),
        ),
        invalid(
            "iss empty",
            "nobody is no issuer",
            "claim iss missing",
            with(json!({"iss": ""})),
        ),
        invalid(
            "iss cut short",
            "a prefix of an issuer is another one",
            "issuer unknown",
            with(json!({"iss": part(target.iss)})),
        ),
        invalid(
            "iss prolonged",
            "an issuer is not a prefix",
            "issuer unknown",
            with(json!({"iss": format!("{}.evil.example", target.iss)})),
        ),
        invalid(
            "iss with a leading space",
            "nothing is trimmed",
            "issuer unknown",
            with(json!({"iss": format!(" {}", target.iss)})),
        ),
        invalid(
            "iss as a pattern",
            "an issuer is no regular expression",
            "issuer unknown",
            with(json!({"iss": ".*"})),
        ),
        invalid(
            "iss in other letters",
            "nothing is folded",
            "issuer unknown",
            with(json!({"iss": target.iss.to_uppercase()})),
        ),
        invalid(
            "iss in an array",
            "one issuer, one string",
            "claim has a wrong type",
            with(json!({"iss": [target.iss]})),
        ),
        invalid(
            "aud missing",
            "a token is for somebody",
            "claim aud missing",
            target.without_claim("aud"),
        ),
        invalid(
            "aud empty",
            "nobody is no audience",
            "claim aud missing",
            with(json!({"aud": ""})),
        ),
        invalid(
            "aud empty array",
            "nobody is no audience",
            "claim aud missing",
            with(json!({"aud": []})),
        ),
        invalid(
            "aud cut short",
            "a part of an audience is another one",
            "audience not accepted",
            with(json!({"aud": part(target.audience)})),
        ),
        invalid(
            "aud prolonged",
            "an audience is not a prefix",
            "audience not accepted",
            with(json!({"aud": format!("{}-admin", target.audience)})),
        ),
        invalid(
            "aud of another service",
            "tokens stay where they belong",
            "audience not accepted",
            with(json!({"aud": ["elsewhere"]})),
        ),
        invalid(
            "aud of another type",
            "an object is no audience",
            "claim aud has a wrong type",
            with(json!({"aud": {"a": target.audience}})),
        ),
        invalid(
            "sub missing",
            "a caller has a name",
            "claim sub missing",
            target.without_claim("sub"),
        ),
        invalid(
            "sub empty",
            "a caller has a name",
            "claim sub missing",
            with(json!({"sub": ""})),
        ),
        invalid(
            "bound to a proof (cnf)",
            "whoever holds it has proved nothing",
            "token is bound to a proof (cnf)",
            with(json!({"cnf": {"jkt": "x"}})),
        ),
        invalid(
            "ID token",
            "an ID token is no access token",
            "token type not accepted",
            target.with_header(json!({"typ": "id+jwt"})),
        ),
        invalid(
            "typ of a key bundle",
            "documents are no tokens",
            "token type not accepted",
            target.with_header(json!({"typ": "servicechain-bundle+jws"})),
        ),
    ]
}

fn on_the_parser(target: &Target<'_>) -> Vec<Attack> {
    let good = target.good_token();
    let now = target.now.as_seconds();
    let no_json = "claims are no strict JSON object";
    let header = text(target.header());
    let twice = header.replacen(
        '{',
        &format!(r#"{{"alg":"{}","#, target.key.algorithm().name()),
        1,
    );
    let payload = text(target.claims());
    let bad_utf8 = {
        let mut bytes = payload.clone().into_bytes();
        bytes.splice(1..1, b"\"x\":\"\xff\",".iter().copied());
        target.signed(&header, &bytes)
    };
    let wrapped = base64url::encode(target.unsigned("none"));
    let deep = format!(r#""x":{}{}"#, "[".repeat(1000), "]".repeat(1000));
    vec![
        invalid(
            "five parts around an unsigned token",
            "CVE-2026-29000: a JWE wrap skipped the signature",
            "token has not three parts",
            format!(
                "{}.{wrapped}.{wrapped}.{wrapped}.{wrapped}",
                base64url::encode(r#"{"alg":"RSA-OAEP","enc":"A128GCM","cty":"JWT"}"#)
            ),
        ),
        invalid(
            "two parts",
            "there is no signature to look at",
            "token has not three parts",
            good.rsplit_once('.').map_or("", |(input, _)| input).to_owned(),
        ),
        invalid(
            "one part",
            "an opaque string is nobody's token",
            "token has not three parts",
            "opaque".to_owned(),
        ),
        invalid(
            "many dots",
            "splitting must not cost",
            "token has not three parts",
            ".".repeat(4000),
        ),
        invalid(
            "a megabyte",
            "size is bounded before parsing",
            "token too large",
            "a".repeat(1 << 20),
        ),
        invalid(
            "kid of megabytes",
            "size is bounded before parsing",
            "token too large",
            target.with_header(json!({"kid": "k".repeat(2 << 20)})),
        ),
        invalid(
            "header of 16 KiB",
            "size is bounded before parsing",
            "token too large",
            target.with_header(json!({"x": "y".repeat(16_384)})),
        ),
        invalid(
            "nested a thousand deep",
            "parsing must not overflow the stack",
            no_json,
            target.with_raw_claim(&deep),
        ),
        invalid(
            "exp 1e999999",
            "a number no machine has is no date",
            no_json,
            target.with_raw_exp("1e999999"),
        ),
        invalid(
            "exp twice",
            "two parsers might read two dates",
            no_json,
            target.with_raw_claim(&format!(r#""exp":{}"#, now + 60)),
        ),
        invalid(
            "sub twice, once escaped",
            "two parsers might read two names",
            no_json,
            target.with_raw_claim(r#""\u0073ub":"admin""#),
        ),
        invalid(
            "alg twice",
            "two parsers might read two algorithms",
            "header is no strict JSON object",
            target.signed(&twice, payload.as_bytes()),
        ),
        invalid(
            "payload that is no object",
            "claims are members",
            no_json,
            target.signed(&header, b"[]"),
        ),
        invalid(
            "payload empty",
            "claims are members",
            no_json,
            target.signed(&header, b""),
        ),
        invalid(
            "claims that are no UTF-8",
            "two parsers might read two names",
            no_json,
            bad_utf8,
        ),
        invalid(
            "padded base64",
            "one token has one spelling",
            "token is not canonical base64url",
            format!("{good}="),
        ),
        invalid(
            "base64 with stray bits",
            "one token has one spelling",
            "token is not canonical base64url",
            stray_bits(target),
        ),
        invalid(
            "characters of plain base64",
            "one token has one spelling",
            "token is not canonical base64url",
            format!("{}+/", good),
        ),
        invalid(
            "header that is no JSON",
            "a header is an object",
            "header is no strict JSON object",
            target.signed("alg=none", payload.as_bytes()),
        ),
    ]
}

fn on_the_request(target: &Target<'_>) -> Vec<Attack> {
    let good = bearer(&target.good_token());
    let mut twice = HeaderMap::new();
    twice.append(AUTHORIZATION, good.clone());
    twice.append(AUTHORIZATION, good.clone());
    let mut hop_by_hop = HeaderMap::new();
    hop_by_hop.insert(AUTHORIZATION, good.clone());
    hop_by_hop.insert(CONNECTION, HeaderValue::from_static("close, Authorization"));
    let malformed = |name, why, headers, reason| Attack {
        name,
        why,
        headers,
        status: StatusCode::BAD_REQUEST,
        reason,
    };
    let good = target.good_token();
    vec![
        malformed(
            "two Authorization headers",
            "CVE-2025-64527: two hops might each believe another one",
            twice,
            "several Authorization headers",
        ),
        malformed(
            "Connection names Authorization",
            "CVE-2024-45410: a proxy would drop the token on its way",
            hop_by_hop,
            "Connection names Authorization",
        ),
        invalid(
            "two tokens in one header",
            "two hops might each believe another one",
            "token has characters no bearer token has",
            format!("{good}, Bearer {good}"),
        ),
        invalid(
            "a token with a blank",
            "two hops might each believe another part",
            "token has characters no bearer token has",
            good.replacen('.', ". ", 1),
        ),
        invalid(
            "a token in quotes",
            "nothing is unquoted",
            "token has characters no bearer token has",
            format!("\"{good}\""),
        ),
        invalid(
            "no token after the scheme",
            "an empty token is nobody's",
            "token has characters no bearer token has",
            String::new(),
        ),
    ]
}

fn invalid(name: &'static str, why: &'static str, reason: &'static str, token: String) -> Attack {
    let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer(&token))]);
    Attack {
        name,
        why,
        headers,
        status: StatusCode::UNAUTHORIZED,
        reason,
    }
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

/// The good token with bits set in its last character that decode to nothing.
fn stray_bits(target: &Target<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut good = target.good_token();
    let last = good
        .pop()
        .and_then(|last| ALPHABET.iter().position(|&letter| char::from(letter) == last));
    let stray = last
        .and_then(|last| ALPHABET.get(last ^ 1))
        .copied()
        .unwrap_or(b'A');
    good.push(char::from(stray));
    good
}
