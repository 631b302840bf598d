//! The claims of a token (RFC 7519 section 4) as domain types: the payload parsed once, strictly, the registered
//! claims with their JSON types checked. It knows nothing of policies, issuers or time.

use std::fmt;

use serde_json::{Map, Value};
use servicechain_keys::{NumericDate, strict_json};

use crate::rejected::{Rejected, TokenFault};

/// 9999-12-31T23:59:59Z. What lies beyond is no date, and sums with it could overflow.
const LAST_DATE: u64 = 253_402_300_799;

/// The claims that verification reads; the others wait in the payload until somebody asks for one.
const READ: [&str; 11] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "client_id",
    "jti",
    "sid",
    "scope",
    "cnf",
];

/// Claims whose types are right; whether they are acceptable is not decided here.
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) subject: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires_at: NumericDate,
    pub(crate) issued_at: NumericDate,
    pub(crate) not_before: Option<NumericDate>,
    pub(crate) client_id: Option<String>,
    pub(crate) token_id: Option<String>,
    pub(crate) session_id: Option<String>,
    scope: Vec<String>,
    payload: Vec<u8>,
}

impl Claims {
    /// Reads a payload that must be one strict JSON object; `cnf` in it is refused.
    pub(crate) fn parse(payload: Vec<u8>) -> Result<Self, Rejected> {
        let read = strict_json::select(&payload, &READ).map_err(|_| TokenFault::ClaimsSyntax)?;
        let [iss, sub, aud, exp, iat, nbf, client_id, jti, sid, scope, cnf] = read;
        if cnf.is_some() {
            return Err(TokenFault::Confirmation.into());
        }
        Ok(Self {
            iss: required(text(iss, "iss")?, "iss")?,
            subject: required(text(sub, "sub")?, "sub")?,
            audiences: audiences(aud)?,
            expires_at: required(date(exp, "exp", f64::floor)?, "exp")?,
            issued_at: required(date(iat, "iat", f64::floor)?, "iat")?,
            not_before: date(nbf, "nbf", f64::ceil)?,
            client_id: text(client_id, "client_id")?,
            token_id: text(jti, "jti")?,
            session_id: text(sid, "sid")?,
            scope: words(scope.as_ref()),
            payload,
        })
    }

    /// Parses them all again: cheaper than to keep trees of what is seldom asked for.
    pub(crate) fn all(&self) -> AllClaims {
        // The payload was read as strictly before, so that it parses.
        AllClaims(strict_json::object(&self.payload).unwrap_or_default())
    }

    /// What the claim at `path` grants: a string of words between spaces (RFC 8693 section 4.2), or an array of
    /// strings. Anything else grants nothing.
    pub(crate) fn scopes(&self, path: &str) -> Vec<String> {
        match path {
            "scope" => self.scope.clone(),
            _ => words(self.all().get(path)),
        }
    }

    /// What they take in memory, in bytes, about: the payload, parts of it as fields, and what a short string in a list
    /// takes beside its bytes (scopes are kept twice).
    pub(crate) fn memory(&self) -> u64 {
        let strings = self.audiences.len() + 2 * self.scope.len();
        (2 * self.payload.len() + 48 * strings) as u64
    }
}

/// Every claim of a token, to be asked for by name.
pub(crate) struct AllClaims(Map<String, Value>);

impl AllClaims {
    /// The claim of exactly this name or, where there is none, the member reached by walking objects at the dots.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        self.0.get(path).or_else(|| {
            let mut segments = path.split('.');
            let first = self.0.get(segments.next()?)?;
            segments.try_fold(first, |value, segment| value.as_object()?.get(segment))
        })
    }

    /// Whether the claim at `path` is there and, if values are given, is one of them or an array that holds one.
    pub(crate) fn has(&self, path: &str, values: &[String]) -> bool {
        let is_one_of = |value: &Value| match value {
            Value::String(text) => values.contains(text),
            Value::Bool(_) | Value::Number(_) => values.contains(&value.to_string()),
            _ => false,
        };
        match self.get(path) {
            None | Some(Value::Null) => false,
            Some(_) if values.is_empty() => true,
            Some(Value::Array(items)) => items.iter().any(is_one_of),
            Some(value) => is_one_of(value),
        }
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Claims({} bytes)", self.payload.len())
    }
}

fn required<T>(claim: Option<T>, name: &'static str) -> Result<T, TokenFault> {
    claim.ok_or(TokenFault::ClaimMissing(name))
}

/// A string claim; the empty string counts as missing, since it names nobody.
fn text(claim: Option<Value>, name: &'static str) -> Result<Option<String>, TokenFault> {
    match claim {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(TokenFault::ClaimMissing(name)),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenFault::ClaimType(name)),
    }
}

/// `aud`: a string or an array of strings (RFC 7519 section 4.1.3).
fn audiences(claim: Option<Value>) -> Result<Vec<String>, TokenFault> {
    let audiences = match claim {
        None => return Err(TokenFault::ClaimMissing("aud")),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several
            .into_iter()
            .map(|one| match one {
                Value::String(one) => Ok(one),
                _ => Err(TokenFault::ClaimType("aud")),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(TokenFault::ClaimType("aud")),
    };
    if audiences.iter().all(String::is_empty) {
        return Err(TokenFault::ClaimMissing("aud"));
    }
    Ok(audiences)
}

fn words(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(words)) => words
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// A `NumericDate` (RFC 7519 section 2): a JSON number, 0 or later, at most the year 9999. A fraction is rounded
/// to the side on which the token is good for less.
fn date(
    claim: Option<Value>,
    name: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<NumericDate>, TokenFault> {
    match claim {
        None => Ok(None),
        Some(Value::Number(number)) => number
            .as_u64()
            .or_else(|| whole_seconds(round(number.as_f64()?)))
            .filter(|&seconds| seconds <= LAST_DATE)
            .map(|seconds| Some(NumericDate::from_seconds(seconds)))
            .ok_or(TokenFault::ClaimType(name)),
        Some(_) => Err(TokenFault::ClaimType(name)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked first"
)]
#[expect(clippy::cast_precision_loss, reason = "the last date is far below 2^53")]
fn whole_seconds(seconds: f64) -> Option<u64> {
    (0.0..=LAST_DATE as f64)
        .contains(&seconds)
        .then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(members: &str) -> Result<Claims, Rejected> {
        let base = r#""iss":"i","sub":"s","aud":"a","exp":2000,"iat":1000"#;
        Claims::parse(format!("{{{base}{members}}}").into_bytes())
    }

    fn parse_exp(exp: &str) -> Result<u64, Rejected> {
        let payload = format!(r#"{{"iss":"i","sub":"s","aud":"a","iat":1,"exp":{exp}}}"#);
        Claims::parse(payload.into_bytes()).map(|claims| claims.expires_at.as_seconds())
    }

    #[test]
    fn a_date_is_a_json_number_in_range_and_nothing_else() {
        for (exp, seconds) in [
            ("0", 0),
            ("1.9", 1),
            ("2e3", 2000),
            ("253402300799", LAST_DATE),
            ("-0", 0),
        ] {
            assert_eq!(parse_exp(exp), Ok(seconds), "{exp}");
        }
        for exp in [
            "\"2000\"",
            "-1",
            "-0.5",
            "253402300800",
            "18446744073709551616",
            "1e300",
            "null",
            "true",
            "[2000]",
        ] {
            assert_eq!(parse_exp(exp), Err(TokenFault::ClaimType("exp").into()), "{exp}");
        }
        for exp in ["1e999999", "NaN", "0x10", "+1", "01", "1_000"] {
            assert_eq!(parse_exp(exp), Err(TokenFault::ClaimsSyntax.into()), "{exp}");
        }
    }

    #[test]
    fn a_fractional_nbf_is_rounded_up() {
        assert_eq!(
            parse(r#","nbf":1000.1"#).unwrap().not_before,
            Some(NumericDate::from_seconds(1001))
        );
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        for members in [
            r#","sub":"t""#,
            r#","\u0073ub":"t""#,
            r#","x":{"y":1,"y":1}"#,
            r#","x":[{"y":1,"y":2}]"#,
        ] {
            assert_eq!(
                parse(members).unwrap_err(),
                TokenFault::ClaimsSyntax.into(),
                "{members}"
            );
        }
    }

    #[test]
    fn a_payload_that_is_not_one_utf_8_object_is_refused() {
        for payload in [
            &b""[..],
            b"[]",
            b"1",
            b"{}{}",
            b"{} x",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":1,}",
        ] {
            assert_eq!(
                Claims::parse(payload.to_vec()).unwrap_err(),
                TokenFault::ClaimsSyntax.into()
            );
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = format!(r#","x":{}{}"#, "[".repeat(3000), "]".repeat(3000));
        assert_eq!(parse(&nested).unwrap_err(), TokenFault::ClaimsSyntax.into());
    }

    #[test]
    fn required_claims_must_be_there_and_have_their_type() {
        let whole = [
            ("iss", "\"i\""),
            ("sub", "\"s\""),
            ("aud", "\"a\""),
            ("exp", "2000"),
            ("iat", "1000"),
        ];
        for (name, _) in whole {
            let with = |value: Option<&str>| {
                let members: Vec<String> = whole
                    .iter()
                    .filter_map(|(other, given)| {
                        let value = if *other == name { value? } else { given };
                        Some(format!("\"{other}\":{value}"))
                    })
                    .collect();
                Claims::parse(format!("{{{}}}", members.join(",")).into_bytes()).unwrap_err()
            };
            assert_eq!(with(None), TokenFault::ClaimMissing(name).into());
            assert_eq!(with(Some("{}")), TokenFault::ClaimType(name).into());
            if name != "exp" && name != "iat" {
                assert_eq!(with(Some("\"\"")), TokenFault::ClaimMissing(name).into());
            }
        }
    }

    #[test]
    fn an_audience_is_a_string_or_strings() {
        let parse = |aud: &str| {
            Claims::parse(format!(r#"{{"iss":"i","sub":"s","aud":{aud},"exp":2,"iat":1}}"#).into_bytes())
                .map(|claims| claims.audiences)
        };
        assert_eq!(parse(r#""a""#).unwrap(), ["a"]);
        assert_eq!(parse(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(parse(r#"["a",1]"#), Err(TokenFault::ClaimType("aud").into()));
        assert_eq!(parse("[]"), Err(TokenFault::ClaimMissing("aud").into()));
        assert_eq!(parse(r#"[""]"#), Err(TokenFault::ClaimMissing("aud").into()));
    }

    #[test]
    fn a_token_bound_to_a_proof_is_refused() {
        assert_eq!(
            parse(r#","cnf":{"jkt":"x"}"#).unwrap_err(),
            TokenFault::Confirmation.into()
        );
        assert_eq!(
            parse(r#","cnf":null"#).unwrap_err(),
            TokenFault::Confirmation.into()
        );
    }

    #[test]
    fn scopes_come_as_words_or_strings_at_a_dotted_path() {
        let claims =
            parse(r#","scope":"a  b","realm":{"roles":["c d","e",1]},"https://x.y/z":["f"],"n":1"#).unwrap();
        assert_eq!(claims.scopes("scope"), ["a", "b"]);
        assert_eq!(claims.scopes("realm.roles"), ["c d", "e"]);
        assert_eq!(claims.scopes("https://x.y/z"), ["f"]);
        for nothing in ["n", "realm", "realm.nothing", "nothing", "", ".", "scope.x"] {
            assert_eq!(claims.scopes(nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn a_required_claim_is_compared_exactly() {
        let claims = parse(r#","tenant":"acme","groups":["x","y"],"verified":true,"level":3,"nil":null"#)
            .unwrap()
            .all();
        let has = |path, values: &[&str]| {
            claims.has(path, &values.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(has("tenant", &[]) && has("tenant", &["other", "acme"]) && has("groups", &["y"]));
        assert!(has("verified", &["true"]) && has("level", &["3"]));
        assert!(!has("tenant", &["Acme"]) && !has("tenant", &["acm"]) && !has("tenant", &[""]));
        assert!(!has("groups", &["z"]) && !has("nil", &[]) && !has("nothing", &[]));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Claims::parse(payload);
        }

        #[test]
        fn no_json_like_text_panics(payload in r#"[\{\}\[\]",:a-z0-9\.e\-\\u ]{0,80}"#) {
            let _ = Claims::parse(payload.into_bytes());
        }
    }
}
