//! What one verifier asks of a token beyond the chain's policy. A hop only narrows: nothing here can make a
//! token acceptable that the bundle's policy refuses. It knows nothing of routes, bundles or keys.

use std::time::Duration;

/// One verifier on a request's path: the gateway, or a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Its name in logs and answers.
    pub name: String,
    /// The token must carry one of these in `aud`, besides what its issuer's entry asks; empty inherits.
    pub audiences: Vec<String>,
    /// Names of the issuers whose tokens pass here; empty means every issuer of the bundle.
    pub issuers: Vec<String>,
    /// A token with less time left than this is refused; zero asks for nothing.
    pub minimum_remaining: Duration,
}

impl Hop {
    /// A hop that inherits everything from the bundle.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Whether tokens of the issuer with this name (not its `iss`) may pass here.
    #[must_use]
    pub fn accepts_issuer(&self, name: &str) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|accepted| accepted == name)
    }

    /// Whether this audience is one the hop accepts.
    #[must_use]
    pub fn accepts_audience(&self, audience: &str) -> bool {
        self.audiences.is_empty() || self.audiences.iter().any(|accepted| accepted == audience)
    }
}
