//! What a verified caller may do at a hop: rules by method and path prefix, the first match decides, no match is a
//! refusal. It trusts that the caller was verified and knows nothing of tokens or keys.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use serde::Deserialize;

use crate::caller::Caller;
use crate::rejected::{Forbidden, Rejected};

/// An ordered list of rules. An empty list allows nobody anything; no list at all (`None` where one is taken)
/// allows every verified caller.
///
/// ```
/// use servicechain_auth::authorization::AuthorizationRules;
///
/// let rules: AuthorizationRules = serde_json::from_str(
///     r#"[{"methods": ["GET", "HEAD"], "pathPrefix": "/items", "scopes": ["items:read"]}]"#,
/// )?;
/// assert_eq!(rules.len(), 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AuthorizationRules(Vec<Rule>);

/// One rule: who calls one of the methods below the prefix needs all of the scopes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenRule")]
pub struct Rule {
    methods: Vec<Method>,
    /// Without its slashes at both ends; empty matches every path.
    prefix: String,
    scopes: Vec<String>,
    /// The scopes as RFC 6750 writes them.
    scope: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRule {
    #[serde(default)]
    methods: Vec<String>,
    path_prefix: String,
    #[serde(default)]
    scopes: Vec<String>,
}

/// Why a rule cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("method {0:?} is not an HTTP method; write it in capitals, like GET")]
    Method(String),
    #[error("pathPrefix {0:?} must begin with / and have no empty, dot or percent-encoded segment")]
    PathPrefix(String),
    #[error("scope {0:?} must be printable ASCII without space, quote or backslash")]
    Scope(String),
}

impl AuthorizationRules {
    /// Rules in the order in which they are asked.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides about one request. `path` is the request's, percent-encoded as it came. A path that two programs
    /// could read differently (empty or dot segments, an encoded slash, a `;`) matches no rule.
    ///
    /// # Errors
    /// [`Rejected::Forbidden`]: no rule matches, or the one that does asks for a scope the caller lacks.
    pub fn decide(&self, method: &Method, path: &str, caller: &Caller) -> Result<(), Rejected> {
        let path = unambiguous(path).ok_or(Rejected::Forbidden(Forbidden::NoRule))?;
        let rule = self.0.iter().find(|rule| rule.matches(method, &path));
        let rule = rule.ok_or(Rejected::Forbidden(Forbidden::NoRule))?;
        if rule.scopes.iter().all(|scope| caller.has_scope(scope)) {
            Ok(())
        } else {
            Err(Rejected::Forbidden(Forbidden::Scopes(Arc::clone(&rule.scope))))
        }
    }
}

impl Rule {
    /// No methods means any method; no scopes means any verified caller.
    ///
    /// # Errors
    /// An unknown method, a prefix that is no normal path, or a scope that no token could have (RFC 6749
    /// section 3.3).
    pub fn new(methods: &[&str], path_prefix: &str, scopes: &[&str]) -> Result<Self, InvalidRule> {
        let methods = methods
            .iter()
            .map(|name| match Method::from_bytes(name.as_bytes()) {
                Ok(method) if name.bytes().all(|byte| !byte.is_ascii_lowercase()) => Ok(method),
                _ => Err(InvalidRule::Method((*name).to_owned())),
            })
            .collect::<Result<_, _>>()?;
        let is_normal = !path_prefix.contains('%') && unambiguous(path_prefix).is_some();
        if !is_normal {
            return Err(InvalidRule::PathPrefix(path_prefix.to_owned()));
        }
        if let Some(scope) = scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(InvalidRule::Scope((*scope).to_owned()));
        }
        Ok(Self {
            methods,
            prefix: path_prefix.trim_matches('/').to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            scope: scopes.join(" ").into(),
        })
    }

    fn matches(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && is_below(path, &self.prefix)
    }
}

impl TryFrom<WrittenRule> for Rule {
    type Error = InvalidRule;

    fn try_from(written: WrittenRule) -> Result<Self, InvalidRule> {
        let methods: Vec<&str> = written.methods.iter().map(String::as_str).collect();
        let scopes: Vec<&str> = written.scopes.iter().map(String::as_str).collect();
        Self::new(&methods, &written.path_prefix, &scopes)
    }
}

/// Whether `path` is the prefix or lies below it, on a segment border. Both are without their first slash.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path percent-decoded and without its first slash, or nothing where two programs could disagree on it.
fn unambiguous(path: &str) -> Option<Cow<'_, str>> {
    let path = path.strip_prefix('/')?;
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let decoded = decode(segment)?;
        let is_odd = decoded
            .bytes()
            .any(|byte| b"/\\;?#%".contains(&byte) || byte.is_ascii_control());
        if is_odd || decoded == "." || decoded == ".." || (decoded.is_empty() && !is_last) {
            return None;
        }
    }
    // What was decoded holds no slash, so that decoding the whole gives the same segments.
    decode(path)
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            plain => plain,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Whether it is one scope: a `scope-token` of RFC 6749 section 3.3, which also stands in a challenge as it is.
#[must_use]
pub fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}
