//! The gateway's file as it is written, with its defaults, and every way in which it can be wrong.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use servicechain_auth::authorization::is_scope;
use servicechain_runtime::config_errors::ConfigErrors;
use servicechain_runtime::dns_label::is_dns_label;
use servicechain_runtime::duration;

use super::{Authentication, Config, HopConfig, Limits, Route};
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
const HEADER_BYTES: RangeInclusive<usize> = 4096..=1024 * 1024;
/// More threads than any machine has cores is a typing error.
const MAX_WORKERS: usize = 1024;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
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
    pub(super) fn check(self, mistakes: &mut ConfigErrors) -> Config {
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
        let minimum_remaining = mistakes
            .check(
                "hop.minimumRemaining",
                duration::parse(&self.hop.minimum_remaining),
            )
            .unwrap_or_default();
        let header_timeout = mistakes
            .check(
                "limits.headerTimeout",
                duration::parse(&self.limits.header_timeout),
            )
            .unwrap_or_default();
        if header_timeout.is_zero() {
            mistakes.add(
                "limits.headerTimeout",
                "must be longer than 0s: clients that send nothing would stay for ever",
            );
        }
        let timeout = mistakes
            .check("timeout", duration::parse(&self.timeout))
            .unwrap_or_default();
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
            Some(text) => mistakes
                .check(at("timeout"), duration::parse(text))
                .unwrap_or_default(),
            None => default_timeout,
        };
        let upstream = mistakes.check(at("upstream"), self.upstream.parse());
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
    let mut names = HashSet::new();
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

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    name.len() <= 253 && name.split('.').all(is_dns_label)
}
