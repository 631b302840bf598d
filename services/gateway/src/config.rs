//! What the gateway is told: its YAML file, parsed into values that need no further check. Every mistake in it is
//! reported together, each with its path and what would be right.
//!
//! Scalars of the process (ports, telemetry, the verifier) are flags of `main` and not here.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use servicechain_auth::Hop;
use servicechain_runtime::duration;
use servicechain_runtime::upstream::UpstreamUrl;

use crate::path;
use crate::route_table::RouteTable;

/// Enough for any document a person edits; uploads are the business of a route's own service.
const DEFAULT_REQUEST_BYTES: u64 = 10 * 1024 * 1024;
/// Four times what most servers take, since tokens with many groups reach 8 KiB alone.
const DEFAULT_HEADER_BYTES: usize = 32 * 1024;
/// A person waits no longer, and a hop that needs longer says so on its route.
const DEFAULT_TIMEOUT: &str = "5s";
/// From a head's first byte to its last: a client on the worst network needs less.
const DEFAULT_HEADER_TIMEOUT: &str = "10s";
/// Below, a token and a cookie no longer fit; above, idle connections could hold a machine's memory.
const HEADER_BYTES: std::ops::RangeInclusive<usize> = 4096..=1024 * 1024;
/// More threads than any machine has cores is a typing error.
const MAX_WORKERS: usize = 1024;

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

/// Every mistake of a configuration file.
#[derive(Debug)]
pub struct ConfigErrors(Vec<Mistake>);

#[derive(Debug)]
struct Mistake {
    path: String,
    sentence: String,
}

impl Config {
    /// Reads and checks the whole file.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every bad value; a file that is not the expected YAML at all has one mistake.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigErrors> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| {
            ConfigErrors(vec![Mistake {
                path: "file".to_owned(),
                sentence: error.to_string(),
            }])
        })?;
        let mut mistakes = ConfigErrors(Vec::new());
        let config = file.check(&mut mistakes);
        if mistakes.0.is_empty() {
            Ok(config)
        } else {
            Err(mistakes)
        }
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
    fn hosts_or_any(&self) -> impl Iterator<Item = Option<&str>> {
        let any = self.hosts.is_empty().then_some(None);
        any.into_iter()
            .chain(self.hosts.iter().map(|host| Some(host.as_str())))
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(
            f,
            "the gateway's configuration has {count} mistake{}",
            if count == 1 { "" } else { "s" }
        )?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {}: {}", mistake.path, mistake.sentence))
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    fn add(&mut self, path: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Mistake {
            path: path.into(),
            sentence: sentence.into(),
        });
    }

    /// The value, or a harmless one once the mistake is noted.
    fn take<T: Default, E: fmt::Display>(&mut self, path: impl Into<String>, value: Result<T, E>) -> T {
        value.unwrap_or_else(|error| {
            self.add(path, error.to_string());
            T::default()
        })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    hop: HopFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default = "default_timeout")]
    timeout: String,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    #[serde(default)]
    workers: usize,
    routes: Vec<RouteFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HopFile {
    name: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default = "no_duration")]
    minimum_remaining: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LimitsFile {
    request_bytes: u64,
    header_bytes: usize,
    header_timeout: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteFile {
    name: String,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default = "root")]
    path_prefix: String,
    upstream: String,
    service: String,
    #[serde(default = "required")]
    authentication: Authentication,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    timeout: Option<String>,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            request_bytes: DEFAULT_REQUEST_BYTES,
            header_bytes: DEFAULT_HEADER_BYTES,
            header_timeout: DEFAULT_HEADER_TIMEOUT.to_owned(),
        }
    }
}

fn default_timeout() -> String {
    DEFAULT_TIMEOUT.to_owned()
}

fn no_duration() -> String {
    "0s".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn required() -> Authentication {
    Authentication::Required
}

impl File {
    fn check(self, mistakes: &mut ConfigErrors) -> Config {
        if !is_dns_label(&self.hop.name) {
            mistakes.add(
                "hop.name",
                format!(
                    "{:?} is no name of a hop: write a DNS label such as \"gateway\"",
                    self.hop.name
                ),
            );
        }
        if !HEADER_BYTES.contains(&self.limits.header_bytes) {
            let (least, most) = (HEADER_BYTES.start(), HEADER_BYTES.end());
            let sentence = format!(
                "{} is out of range: use {least} to {most} bytes",
                self.limits.header_bytes
            );
            mistakes.add("limits.headerBytes", sentence);
        }
        if self.workers > MAX_WORKERS {
            mistakes.add(
                "workers",
                format!("{} threads are too many: use 0 for one per core", self.workers),
            );
        }
        let minimum_remaining = mistakes.take(
            "hop.minimumRemaining",
            duration::parse(&self.hop.minimum_remaining),
        );
        let header_timeout = mistakes.take(
            "limits.headerTimeout",
            duration::parse(&self.limits.header_timeout),
        );
        if header_timeout.is_zero() {
            mistakes.add(
                "limits.headerTimeout",
                "must be longer than 0s: clients that send nothing would stay for ever",
            );
        }
        let timeout = mistakes.take("timeout", duration::parse(&self.timeout));
        let trusted_proxies = check_networks(&self.trusted_proxies, mistakes);
        let check = |(index, route): (usize, RouteFile)| route.check(index, timeout, mistakes);
        let routes: Vec<Option<Route>> = self.routes.into_iter().enumerate().map(check).collect();
        check_routes_together(&routes, mistakes);
        Config {
            hop: HopConfig {
                name: self.hop.name,
                audiences: self.hop.audiences,
                issuers: self.hop.issuers,
                minimum_remaining,
            },
            limits: Limits {
                request_bytes: self.limits.request_bytes,
                header_bytes: self.limits.header_bytes,
                header_timeout,
            },
            trusted_proxies,
            workers: self.workers,
            routes: routes.into_iter().flatten().collect(),
        }
    }
}

impl RouteFile {
    /// `None` only where the upstream is no URL at all, since there is no harmless one.
    fn check(self, index: usize, default_timeout: Duration, mistakes: &mut ConfigErrors) -> Option<Route> {
        let at = |field: &str| format!("routes[{index}].{field}");
        if self.name.is_empty() || self.name.chars().any(char::is_control) {
            mistakes.add(at("name"), "a route needs a name");
        }
        if self.service.is_empty() {
            mistakes.add(
                at("service"),
                "name the hop behind the upstream, as problems shall call it",
            );
        }
        for (number, host) in self.hosts.iter().enumerate() {
            if !is_host(host) {
                let sentence = format!(
                    "{host:?} is no host: write \"shop.example.com\" or \"*.example.com\", lower-case and without a port"
                );
                mistakes.add(at(&format!("hosts[{number}]")), sentence);
            }
        }
        if let Err(sentence) = check_prefix(&self.path_prefix) {
            mistakes.add(at("pathPrefix"), sentence);
        }
        for scope in self.scopes.iter().filter(|scope| !is_scope(scope)) {
            mistakes.add(
                at("scopes"),
                format!("{scope:?} is no scope (RFC 6749 section 3.3)"),
            );
        }
        if self.authentication != Authentication::Required && !self.scopes.is_empty() {
            mistakes.add(
                at("scopes"),
                "scopes need `authentication: Required`; otherwise a request without a token would pass them",
            );
        }
        if self.authentication == Authentication::None && !self.issuers.is_empty() {
            mistakes.add(at("issuers"), "a route with `authentication: None` looks at no token; take the issuers away or use Required");
        }
        let timeout = match &self.timeout {
            Some(text) => mistakes.take(at("timeout"), duration::parse(text)),
            None => default_timeout,
        };
        let upstream = mistakes.take(at("upstream"), self.upstream.parse().map(Some));
        Some(Route {
            upstream: upstream?,
            name: self.name,
            hosts: self.hosts,
            path_prefix: self.path_prefix,
            service: self.service,
            authentication: self.authentication,
            issuers: self.issuers,
            scopes: self.scopes,
            timeout,
        })
    }
}

fn check_networks(networks: &[String], mistakes: &mut ConfigErrors) -> Vec<IpNet> {
    let mut parsed = Vec::with_capacity(networks.len());
    for (index, text) in networks.iter().enumerate() {
        match text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(network) => parsed.push(network.trunc()),
            Err(_) => mistakes.add(
                format!("trustedProxies[{index}]"),
                format!("{text:?} is no network: write an address or a prefix such as \"10.0.0.0/8\""),
            ),
        }
    }
    parsed
}

/// What only shows when routes are compared: names used twice, and places two routes claim.
fn check_routes_together(routes: &[Option<Route>], mistakes: &mut ConfigErrors) {
    if routes.is_empty() {
        mistakes.add("routes", "a gateway without a route refuses everything: add one");
    }
    let mut names = std::collections::HashSet::new();
    let mut table = RouteTable::default();
    let indexed = routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| Some((index, route.as_ref()?)));
    for (index, route) in indexed {
        if !names.insert(&route.name) {
            mistakes.add(
                format!("routes[{index}].name"),
                format!("{:?} is used by an earlier route", route.name),
            );
        }
        for host in route.hosts_or_any() {
            if let Err(taken) = table.insert(host, &route.path_prefix, index) {
                let sentence = format!(
                    "{:?} for {} belongs to routes[{}] already; order means nothing, so only one can have it",
                    route.path_prefix,
                    host.unwrap_or("every host"),
                    taken.by,
                );
                mistakes.add(format!("routes[{index}].pathPrefix"), sentence);
            }
        }
    }
}

/// Characters with a second spelling in a path (`@` and `%40`) could be written past a route.
fn check_prefix(prefix: &str) -> Result<(), String> {
    match path::normalise(prefix) {
        Err(why) => Err(format!("{prefix:?} cannot be a prefix: {why}")),
        Ok(normal) if normal != prefix => {
            Err(format!("{prefix:?} is not in its normal form; write {normal:?}"))
        }
        Ok(_)
            if !prefix
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)) =>
        {
            Err(format!(
                "{prefix:?} has characters with two spellings; use letters, digits and - . _ ~ /"
            ))
        }
        Ok(_) => Ok(()),
    }
}

fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// RFC 6749 section 3.3: `scope-token`.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
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
        let paths: Vec<&str> = errors.0.iter().map(|mistake| mistake.path.as_str()).collect();
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
            assert_eq!(error.0.len(), 1, "{error}");
        }
    }
}
