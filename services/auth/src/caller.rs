//! Who is calling: the verified identity a hop works with. Only `verify` makes one. It is the pair (iss, sub) and
//! the claims; whoever stores, limits or shares by caller uses the pair, never `sub` alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::Value;
use servicechain_keys::{Algorithm, Generation, NumericDate, Thumbprint};

use crate::bearer::BearerToken;
use crate::claims::Claims;
use crate::rejected::Rejected;

/// Longer names are cut in logs; the pair itself never is.
const DISPLAYED_CHARACTERS: usize = 64;

/// A verified identity. Clones share one allocation.
///
/// As an axum extractor it hands a handler the caller that [`RequireToken`](crate::require_token::RequireToken)
/// found, and refuses with 401 where no such layer ran.
#[derive(Clone)]
pub struct Caller {
    verdict: Arc<Verdict>,
    generation: Generation,
}

/// What a token says, read and not yet believed.
pub(crate) struct Statement {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) token_type: Option<String>,
    pub(crate) claims: Claims,
}

/// What verification established; the cache keeps it, callers share it.
pub(crate) struct Verdict {
    pub(crate) token: BearerToken,
    pub(crate) statement: Statement,
    /// The issuer's name in the bundle.
    pub(crate) issuer_name: String,
    pub(crate) scopes: Vec<String>,
    /// The key that verified the signature, by what it is and not by its name.
    pub(crate) thumbprint: Thumbprint,
    pub(crate) window: Window,
    /// What the token and its claims take in memory, in bytes, about.
    pub(crate) memory: u64,
    /// The newest generation under which this is known to hold.
    judged_under: AtomicU64,
}

/// When a verdict holds, as far as time alone decides: `from <= now < until`, clock skew included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: NumericDate,
    pub(crate) until: NumericDate,
}

impl Caller {
    pub(crate) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    pub(crate) fn new(verdict: Arc<Verdict>, generation: Generation) -> Self {
        Self { verdict, generation }
    }

    /// `iss`, exactly as the token has it. With [`Caller::subject`] it names the caller.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.verdict.statement.claims.iss
    }

    /// The chain's own name of that issuer.
    #[must_use]
    pub fn issuer_name(&self) -> &str {
        &self.verdict.issuer_name
    }

    /// `sub`: unique within its issuer only.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.verdict.statement.claims.subject
    }

    /// `client_id` (RFC 8693 section 4.3); tokens of a managed issuer always have one.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.verdict.statement.claims.client_id.as_deref()
    }

    /// `aud`, every entry.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.verdict.statement.claims.audiences
    }

    /// What the issuer's scopes claim grants, in the token's order.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.verdict.scopes
    }

    /// Whether the scopes claim grants exactly this scope; case counts (RFC 6749 section 3.3).
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.verdict.scopes.iter().any(|granted| granted == scope)
    }

    /// The claim of exactly this name or, where there is none, the member reached by walking objects at the
    /// dots: `realm_access.roles`.
    /// It is parsed out of the token at every call, in some microseconds.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<Value> {
        self.verdict.statement.claims.all().get(path).cloned()
    }

    /// `exp`, without clock skew.
    #[must_use]
    pub fn expires_at(&self) -> NumericDate {
        self.verdict.statement.claims.expires_at
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> NumericDate {
        self.verdict.statement.claims.issued_at
    }

    /// How long until `exp`; zero when it has passed.
    #[must_use]
    pub fn remaining(&self, now: NumericDate) -> Duration {
        self.expires_at().since(now)
    }

    /// Whether time alone lets the token pass: what `exp`, `nbf`, `iat`, the clock skew and the key's own end say.
    #[must_use]
    pub fn is_in_time(&self, now: NumericDate) -> bool {
        self.verdict.window.contains(now)
    }

    /// The `kid` of the token's header.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.verdict.statement.key_id.as_deref()
    }

    /// The generation of the bundle under which this verdict was last judged.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The token itself, to be sent to the next hop unchanged.
    #[must_use]
    pub fn token(&self) -> &BearerToken {
        &self.verdict.token
    }
}

/// For logs: `client:demo` where the subject is the client itself, else `user:<sub>`. What does not print is
/// escaped and long names are cut, since a subject is the issuer's text.
impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.client_id() == Some(self.subject()) {
            "client:"
        } else {
            "user:"
        };
        formatter.write_str(kind)?;
        let mut characters = self.subject().chars();
        for character in characters.by_ref().take(DISPLAYED_CHARACTERS) {
            match character {
                '"' | '\'' => write!(formatter, "{character}")?,
                _ => write!(formatter, "{}", character.escape_debug())?,
            }
        }
        if characters.next().is_some() {
            formatter.write_str("…")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Caller({self} of {:?})", self.issuer_name())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Rejected> {
        parts.extensions.get::<Self>().cloned().ok_or(Rejected::NoToken)
    }
}

impl Verdict {
    pub(crate) fn new(
        token: BearerToken,
        statement: Statement,
        issuer_name: String,
        scopes: Vec<String>,
        thumbprint: Thumbprint,
        window: Window,
        generation: Generation,
    ) -> Self {
        let judged_under = AtomicU64::new(generation.number());
        let memory = token.as_bytes().len() as u64 + statement.claims.memory();
        Self {
            token,
            statement,
            issuer_name,
            scopes,
            thumbprint,
            window,
            memory,
            judged_under,
        }
    }

    pub(crate) fn was_judged_under(&self, generation: Generation) -> bool {
        self.judged_under.load(Ordering::Acquire) == generation.number()
    }

    /// Never moves back: a slow thread that judged under an older bundle must not undo a newer judgement.
    pub(crate) fn judged_under(&self, generation: Generation) {
        self.judged_under.fetch_max(generation.number(), Ordering::AcqRel);
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verdict")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Window {
    /// Whether time alone still allows this.
    pub(crate) fn contains(self, now: NumericDate) -> bool {
        self.from <= now && now < self.until
    }
}
