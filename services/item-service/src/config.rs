//! What the service is told: its YAML file, and the places that its pod's environment names. Every mistake is
//! reported together, each with where it stands and what would be right.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use servicechain_auth::authorization::Rule;
use servicechain_auth::{AuthorizationRules, Hop};
pub use servicechain_runtime::config_errors::ConfigErrors;
use servicechain_runtime::dns_label::is_dns_label;
use servicechain_runtime::duration;
use servicechain_runtime::upstream::{BadUpstreamUrl, UpstreamUrl};

use crate::cache::CacheUrl;
use crate::store::DatabaseUrl;

/// The staleness that the product promises where nobody says otherwise.
const DEFAULT_CACHE_TTL: &str = "60s";
/// A person waits no longer.
const DEFAULT_TIMEOUT: &str = "5s";
/// Below, filling the cache costs more than it spares; above, nobody means a cache.
const CACHE_TTL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
const MAX_NAME_CHARACTERS: usize = 15;

/// Everything the service is told, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, and what it asks of every token beyond the chain's policy.
    pub hop: Hop,
    /// `None`: any verified caller may do anything with the caller's own items.
    pub authorization: Option<AuthorizationRules>,
    /// The longest time a cached item may be behind the database.
    pub cache_ttl: Duration,
    /// `None`: this is the last hop.
    pub next_hop: Option<NextHopConfig>,
    /// For one request, unless it comes with less left; zero is no limit.
    pub timeout: Duration,
    pub database: DatabaseUrl,
    /// `None`: no cache.
    pub cache: Option<CacheUrl>,
}

/// The hop after this one.
#[derive(Clone, Debug)]
pub struct NextHopConfig {
    /// As problems name it.
    pub name: String,
    pub url: UpstreamUrl,
}

/// The places that the environment names: `DATABASE_URL`, `REDIS_URL`, `NEXT_HOP_URL`. Passwords in them are never
/// shown.
#[derive(Clone, Default)]
pub struct Places {
    pub database_url: String,
    pub redis_url: Option<String>,
    pub next_hop_url: Option<String>,
}

impl Config {
    /// Reads the file and checks it with the places. A file that is not the expected YAML at all has one mistake.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake.
    pub fn from_yaml(text: &str, places: &Places) -> Result<Self, ConfigErrors> {
        let mut mistakes = ConfigErrors::new("the service");
        let database = mistakes.check("DATABASE_URL", DatabaseUrl::new(places.database_url.as_str()));
        let cache =
            given(places.redis_url.as_ref()).map(|url| mistakes.check("REDIS_URL", CacheUrl::new(url)));
        let next_url = given(places.next_hop_url.as_ref()).map(str::parse);
        let Some(file) = mistakes.check("file", serde_saphyr::from_str::<File>(text)) else {
            return Err(mistakes);
        };
        let hop = file.hop.check(&mut mistakes);
        let authorization = file.authorization.map(|rules| check_rules(&rules, &mut mistakes));
        let cache_ttl = check_cache_ttl(&file.cache_ttl, &mut mistakes);
        let next_hop = check_next_hop(file.next_hop, next_url, &mut mistakes);
        let timeout = mistakes
            .check("timeout", duration::parse(&file.timeout))
            .unwrap_or_default();
        // Without a database its mistake is noted.
        let Some(database) = database else {
            return Err(mistakes);
        };
        mistakes.or(Self {
            hop,
            authorization,
            cache_ttl,
            next_hop,
            timeout,
            database,
            cache: cache.flatten(),
        })
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Places(…)")
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    hop: HopFile,
    authorization: Option<Vec<RuleFile>>,
    #[serde(rename = "cacheTTL", default = "default_cache_ttl")]
    cache_ttl: String,
    next_hop: Option<String>,
    #[serde(default = "default_timeout")]
    timeout: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HopFile {
    name: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    issuers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    methods: Vec<String>,
    path_prefix: String,
    #[serde(default)]
    scopes: Vec<String>,
}

fn default_cache_ttl() -> String {
    DEFAULT_CACHE_TTL.to_owned()
}

fn default_timeout() -> String {
    DEFAULT_TIMEOUT.to_owned()
}

/// An empty variable is one that nobody set.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

impl HopFile {
    fn check(self, mistakes: &mut ConfigErrors) -> Hop {
        if !is_name(&self.name) {
            mistakes.add("hop.name", NO_NAME);
        }
        Hop {
            name: self.name,
            audiences: self.audiences,
            issuers: self.issuers,
            minimum_remaining: Duration::ZERO,
        }
    }
}

const NO_NAME: &str = "must be a DNS label of at most 15 characters such as a";

fn is_name(name: &str) -> bool {
    is_dns_label(name) && name.len() <= MAX_NAME_CHARACTERS
}

fn check_rules(rules: &[RuleFile], mistakes: &mut ConfigErrors) -> AuthorizationRules {
    let rules = rules.iter().enumerate().filter_map(|(index, rule)| {
        let methods: Vec<&str> = rule.methods.iter().map(String::as_str).collect();
        let scopes: Vec<&str> = rule.scopes.iter().map(String::as_str).collect();
        mistakes.check(
            format!("authorization[{index}]"),
            Rule::new(&methods, &rule.path_prefix, &scopes),
        )
    });
    AuthorizationRules::new(rules.collect())
}

fn check_cache_ttl(text: &str, mistakes: &mut ConfigErrors) -> Duration {
    let ttl = mistakes
        .check("cacheTTL", duration::parse(text))
        .unwrap_or(*CACHE_TTL.end());
    if !CACHE_TTL.contains(&ttl) {
        mistakes.add(
            "cacheTTL",
            format!("{text} is not between 100ms and 24h; without REDIS_URL there is no cache"),
        );
    }
    ttl
}

fn check_next_hop(
    name: Option<String>,
    url: Option<Result<UpstreamUrl, BadUpstreamUrl>>,
    mistakes: &mut ConfigErrors,
) -> Option<NextHopConfig> {
    if name.as_deref().is_some_and(|name| !is_name(name)) {
        mistakes.add("nextHop", NO_NAME);
    }
    match (name, url) {
        (None, None) => None,
        (Some(name), Some(url)) => mistakes
            .check("NEXT_HOP_URL", url)
            .map(|url| NextHopConfig { name, url }),
        (Some(name), None) => {
            mistakes.add(
                "NEXT_HOP_URL",
                format!("must say where {name} is, or nextHop be absent at the last hop"),
            );
            None
        }
        (None, Some(url)) => {
            mistakes.add("nextHop", "must name the hop at NEXT_HOP_URL");
            mistakes.check("NEXT_HOP_URL", url);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            database_url: "sqlite::memory:".to_owned(),
            ..Places::default()
        }
    }

    #[test]
    fn the_least_is_a_name_and_a_database() {
        let config = Config::from_yaml("hop: {name: c}", &places()).unwrap();
        assert_eq!(config.hop, Hop::new("c"));
        assert!(config.authorization.is_none() && config.next_hop.is_none() && config.cache.is_none());
        assert_eq!(
            (config.cache_ttl, config.timeout),
            (Duration::from_mins(1), Duration::from_secs(5))
        );
    }

    #[test]
    fn everything_that_can_be_said_is_understood() {
        let yaml = r#"
            hop: {name: a, audiences: [shop], issuers: [platform]}
            authorization: [{methods: [GET, HEAD], pathPrefix: /, scopes: ["items:read"]}]
            cacheTTL: 1m30s
            nextHop: b
            timeout: 0s
        "#;
        let places = Places {
            redis_url: Some("redis://:secret@127.0.0.1/3".to_owned()),
            next_hop_url: Some("http://shop-b.shop.svc:8080".to_owned()),
            ..places()
        };
        let config = Config::from_yaml(yaml, &places).unwrap();
        assert_eq!(config.hop.audiences, ["shop"]);
        assert_eq!(config.authorization.as_ref().unwrap().len(), 1);
        assert_eq!(
            (config.cache_ttl, config.timeout),
            (Duration::from_secs(90), Duration::ZERO)
        );
        let next = config.next_hop.as_ref().unwrap();
        assert_eq!((next.name.as_str(), next.url.host()), ("b", "shop-b.shop.svc"));
        assert!(!format!("{config:?} {places:?}").contains("secret"));
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_password() {
        let yaml = r#"
            hop: {name: Gateway_1}
            authorization: [{pathPrefix: items}, {methods: [get], pathPrefix: /}]
            cacheTTL: 25h
            nextHop: ""
            timeout: 5 seconds
        "#;
        let places = Places {
            database_url: "mysql://u:secret@h".to_owned(),
            redis_url: Some("http://:secret@h".to_owned()),
            next_hop_url: Some("https://b".to_owned()),
        };
        let text = Config::from_yaml(yaml, &places).unwrap_err().to_string();
        assert!(
            text.starts_with("the service's configuration has 9 mistakes\n"),
            "{text}"
        );
        for place in [
            "DATABASE_URL: ",
            "REDIS_URL: ",
            "NEXT_HOP_URL: ",
            "hop.name: ",
            "authorization[0]: ",
            "authorization[1]: ",
            "cacheTTL: ",
            "nextHop: ",
            "timeout: ",
        ] {
            assert!(
                text.contains(&format!("\n  {place}")),
                "{place} is missing in {text}"
            );
        }
        assert!(!text.contains("secret"));
    }

    #[test]
    fn the_next_hop_needs_both_its_name_and_its_place() {
        let at = |url: &str| Places {
            next_hop_url: Some(url.to_owned()),
            ..places()
        };
        assert!(Config::from_yaml("{hop: {name: a}, nextHop: b}", &places()).is_err());
        assert!(Config::from_yaml("{hop: {name: a}}", &at("http://b")).is_err());
        assert!(
            Config::from_yaml("{hop: {name: a}}", &at(""))
                .unwrap()
                .next_hop
                .is_none()
        );
    }

    #[test]
    fn an_unknown_field_is_a_mistake() {
        assert!(Config::from_yaml("{hop: {name: a}, cacheTtl: 5s}", &places()).is_err());
        assert!(Config::from_yaml("", &places()).is_err());
    }
}
