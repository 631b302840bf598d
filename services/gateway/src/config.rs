//! What the gateway is told: its YAML file, parsed into values that need no further check. Every mistake in it is
//! reported together, each with its path and what would be right.
//!
//! Scalars of the process (ports, telemetry, the verifier) are flags of `main` and not here; how the file is written
//! and what is refused in it is `file`'s.

mod file;

use std::borrow::Cow;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use servicechain_auth::rejected::{Forbidden, TokenFault};
use servicechain_auth::{Caller, Hop, Rejected};
pub use servicechain_runtime::config_errors::ConfigErrors;
use servicechain_runtime::upstream::UpstreamUrl;

use crate::path::{BadPath, normalise};
use crate::route_table::RouteTable;
use file::File;

/// The gateway's configuration, valid.
#[derive(Clone, Debug)]
pub struct Config {
    pub hop: HopConfig,
    pub limits: Limits,
    /// Only these peers' `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads that serve; 0 is one per core.
    pub workers: usize,
    pub routes: Vec<Route>,
}

/// What this verifier asks of every token, whatever the route.
#[derive(Clone, Debug)]
pub struct HopConfig {
    pub name: String,
    /// Empty inherits the chain's.
    pub audiences: Vec<String>,
    /// Empty means every issuer of the chain.
    pub issuers: Vec<String>,
    pub minimum_remaining: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub request_bytes: u64,
    /// Bytes of a request's line and headers.
    pub header_bytes: usize,
    /// From the first byte of a request's head to its last, and from connecting to the first head.
    pub header_timeout: Duration,
}

/// Where requests of some hosts and paths go, and who may send them.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    /// Lower-case, without port, possibly `*.suffix`; empty takes every host.
    pub hosts: Vec<String>,
    /// In normal form; ends on a segment's border.
    pub path_prefix: String,
    pub upstream: UpstreamUrl,
    /// The hop behind the upstream, as problems name it.
    pub service: String,
    pub authentication: Authentication,
    /// Names of issuers; empty means every issuer the hop accepts.
    pub issuers: Vec<String>,
    /// A token needs all of them.
    pub scopes: Vec<String>,
    /// For everything from the request's head to the response's last byte; zero is no limit.
    pub timeout: Duration,
}

/// Whether a route wants to know who is calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Authentication {
    /// No token, no entry.
    Required,
    /// Nobody, or somebody whose token is good.
    Optional,
    /// Tokens are not looked at, and not forwarded: a hop that holds no verified token sends none. `Basic`
    /// credentials, which an issuer's token endpoint asks for, pass as they are.
    None,
}

impl Config {
    /// Reads and checks the whole file.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every bad value; a file that is not the expected YAML at all has one mistake.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigErrors> {
        let mut mistakes = ConfigErrors::new("the gateway");
        let Some(file) = mistakes.check("file", serde_saphyr::from_str::<File>(text)) else {
            return Err(mistakes);
        };
        let config = file.check(&mut mistakes);
        mistakes.or(config)
    }

    /// The hosts and prefixes of the routes, which [`Config::from_yaml`] has found to be unambiguous.
    pub(crate) fn route_table(&self) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, route) in self.routes.iter().enumerate() {
            for host in route.hosts_or_any() {
                // A taken place keeps its first owner; from_yaml has already reported it.
                let _ = table.insert(host, &route.path_prefix, index);
            }
        }
        table
    }

    /// The route of a request to a host (as `Host` says it) and a path, and the path as it is forwarded: what the
    /// gateway itself decides, for who asks without sending a request.
    ///
    /// # Errors
    /// [`BadPath`], whose Display is a sentence, where the gateway answers 400.
    pub fn route_of<'a>(&self, host: &str, path: &'a str) -> Result<(Option<&Route>, Cow<'a, str>), BadPath> {
        let path = normalise(path)?;
        let route = self.route_table().find(host, &path);
        Ok((route.and_then(|index| self.routes.get(index)), path))
    }

    /// The hop that the verifier judges tokens for.
    #[must_use]
    pub fn verifier_hop(&self) -> Hop {
        Hop {
            name: self.hop.name.clone(),
            audiences: self.hop.audiences.clone(),
            issuers: self.hop.issuers.clone(),
            minimum_remaining: self.hop.minimum_remaining,
        }
    }

    /// Threads to start on a machine with so many cores.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

impl Route {
    /// What the route asks of a verified caller.
    ///
    /// # Errors
    /// [`Rejected`] with 401 for an issuer, 403 for scopes.
    pub fn check(&self, caller: &Caller) -> Result<(), Rejected> {
        if !self.issuers.is_empty() && !self.issuers.iter().any(|issuer| issuer == caller.issuer_name()) {
            return Err(TokenFault::IssuerNotAccepted.into());
        }
        if self.scopes.iter().all(|scope| caller.has_scope(scope)) {
            Ok(())
        } else {
            Err(Rejected::Forbidden(Forbidden::Scopes(
                self.scopes.join(" ").into(),
            )))
        }
    }

    fn hosts_or_any(&self) -> impl Iterator<Item = Option<&str>> {
        let any = self.hosts.is_empty().then_some(None);
        any.into_iter()
            .chain(self.hosts.iter().map(|host| Some(host.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
hop: {name: gateway, audiences: [], issuers: [], minimumRemaining: 0s}
limits: {requestBytes: 10485760, headerBytes: 32768}
timeout: 5s
trustedProxies: [10.0.0.0/8, "::1"]
workers: 2
routes:
- {name: items, hosts: [], pathPrefix: /, upstream: "http://shop-a.shop.svc:8080", service: a, authentication: Required, issuers: [], scopes: ["items:read"], timeout: 2s}
- {name: keys, pathPrefix: /jwks.json, upstream: "http://issuer", service: platform, authentication: None}
"#;

    #[test]
    fn a_complete_file_is_read() {
        let config = Config::from_yaml(GOOD).unwrap();
        assert_eq!(config.routes[0].upstream.authority(), "shop-a.shop.svc:8080");
        assert_eq!(config.routes[0].timeout, Duration::from_secs(2));
        assert_eq!(
            config.routes[1].timeout,
            Duration::from_secs(5),
            "the default comes from `timeout`"
        );
        assert_eq!(config.routes[1].upstream.port(), 80);
        assert_eq!(config.routes[1].authentication, Authentication::None);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(config.route_table().find("any", "/jwks.json"), Some(1));
    }

    #[test]
    fn all_mistakes_are_reported_together_with_their_paths() {
        let text = r#"
hop: {name: Gateway, minimumRemaining: soon}
limits: {headerBytes: 10, headerTimeout: 0s}
timeout: 5
trustedProxies: [example.com]
workers: 100000
routes:
- {name: a, hosts: ["A.example.com:80"], pathPrefix: "/a//b", upstream: "https://a", service: "", scopes: ["a b"]}
- {name: b, pathPrefix: "/@x", upstream: "http://u:p@a", service: a, authentication: Optional, scopes: [x]}
- {name: c, pathPrefix: "/c", upstream: "http://a", service: a, authentication: None, issuers: [x], timeout: 1d}
- {name: c, pathPrefix: "/c", upstream: "http://a:81", service: a}
"#;
        let errors = Config::from_yaml(text).unwrap_err();
        let paths: Vec<&str> = errors.paths().collect();
        for path in [
            "hop.name",
            "hop.minimumRemaining",
            "limits.headerBytes",
            "limits.headerTimeout",
            "timeout",
            "trustedProxies[0]",
            "workers",
            "routes[0].hosts[0]",
            "routes[0].pathPrefix",
            "routes[0].upstream",
            "routes[0].service",
            "routes[0].scopes",
            "routes[1].pathPrefix",
            "routes[1].upstream",
            "routes[1].scopes",
            "routes[2].issuers",
            "routes[2].timeout",
            "routes[3].name",
            "routes[3].pathPrefix",
        ] {
            assert!(paths.contains(&path), "{path} is missing in {errors}");
        }
        assert_eq!(paths.len(), 19, "{errors}");
        assert!(
            errors
                .to_string()
                .starts_with("the gateway's configuration has 19 mistakes\n  hop.name: ")
        );
    }

    #[test]
    fn unknown_fields_and_broken_files_are_refused() {
        for text in [
            "",
            "hop: [",
            &GOOD.replace("scopes:", "scope:"),
            &GOOD.replace("Required", "required"),
        ] {
            let error = Config::from_yaml(text).unwrap_err();
            assert_eq!(error.paths().count(), 1, "{error}");
        }
    }
}
