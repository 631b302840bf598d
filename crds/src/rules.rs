//! The rules that the API server enforces by itself: CEL expressions and patterns, each with its sentence.
//! `validated` says the same sentences, so that a mistake reads alike everywhere.

use std::time::Duration;

use serde_json::{Value, json};

use crate::duration::GatewayDuration;

/// A DNS label that starts with a letter (RFC 1035); how long it may be is said where it is used.
pub const DNS_LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Name of a Kubernetes object (RFC 1123 subdomain).
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// Id of a client; it becomes part of an object's name.
pub const CLIENT_ID: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A scope (RFC 6749, section 3.3).
pub const SCOPE: &str = r"^[!#-\[\]-~]+$";
/// An audience.
pub const AUDIENCE: &str = "^[!-~]+$";
/// The URL of an issuer (RFC 8414, section 2).
pub const ISSUER_URL: &str = r"^https?://[^\s?#]+$";
/// The address of a key set; empty: what discovery says.
pub const JWKS_URI: &str = r"^(https?://[^\s#]+)?$";
/// The URL of a managed issuer, which serves at the root of its host.
pub const ORIGIN: &str = r"^https?://[^\s?#/@]+$";
/// A host name, with `*.` allowed in front.
pub const HOST: &str = r"^(\*\.)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// A path in the one way to write it: letters, digits and - . _ ~, no empty segments, no dot segments.
pub const PATH_PREFIX: &str = r"^(/|(/\.{0,2}[-A-Za-z0-9_~][-.A-Za-z0-9_~]*)+/?)$";

pub const CHAIN_NAME: &str = "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$')";
pub const CHAIN_NAME_SAYS: &str = "metadata.name must be a DNS label of at most 20 characters, since the names of all its objects start with it";

pub const ONE_ISSUER_KIND: &str =
    "[has(self.managed), has(self.external), has(self.static)].filter(x, x).size() == 1";
pub const ONE_ISSUER_KIND_SAYS: &str = "exactly one of managed, external and static must be given";

pub const ONE_DATABASE: &str =
    "[has(self.managed), has(self.external), has(self.cloudNativePG)].filter(x, x).size() <= 1";
pub const ONE_DATABASE_SAYS: &str = "at most one of managed, external and cloudNativePG may be given";

pub const ONE_CACHE: &str = "!(has(self.managed) && has(self.external))";
pub const ONE_CACHE_SAYS: &str = "at most one of managed and external may be given";

pub const ONE_ROUTE_TARGET: &str = "has(self.service) != has(self.issuer)";
pub const ONE_ROUTE_TARGET_SAYS: &str = "exactly one of service and issuer must be given";

pub const SCOPES_NEED_TOKEN: &str = "!has(self.scopes) || self.scopes.size() == 0 || \
     (has(self.authentication) ? self.authentication == 'Required' : has(self.service))";
pub const SCOPES_NEED_TOKEN_SAYS: &str =
    "scopes need the authentication Required, or a request without a token would pass them";

pub const ISSUERS_NEED_TOKEN: &str = "!has(self.issuers) || self.issuers.size() == 0 || \
     (has(self.authentication) ? self.authentication != 'None' : has(self.service))";
pub const ISSUERS_NEED_TOKEN_SAYS: &str =
    "issuers need the authentication Required or Optional, since None looks at no token";

pub const ISSUER_ROUTE_OPEN: &str =
    "!has(self.issuer) || !has(self.authentication) || self.authentication == 'None'";
pub const ISSUER_ROUTE_OPEN_SAYS: &str =
    "authentication must be None for an issuer, since nobody has a token before the issuer gives one";

pub const ISSUER_ROUTE_PREFIX: &str = "!has(self.issuer) || self.pathPrefix == '/'";
pub const ISSUER_ROUTE_PREFIX_SAYS: &str =
    "pathPrefix must be / for an issuer, whose paths /oauth2, /jwks.json and /.well-known are not rewritten";

pub const ROUTE_TARGETS_EXIST: &str = "self.gateway.routes.all(r, \
     (!has(r.service) || self.services.exists(s, s.name == r.service)) && \
     (!has(r.issuer) || self.issuers.exists(i, i.name == r.issuer && has(i.managed))))";
pub const ROUTE_TARGETS_EXIST_SAYS: &str =
    "a route must name a service of spec.services, or a managed issuer of spec.issuers";

pub const ISSUER_NAMES_EXIST: &str = "self.gateway.routes.all(r, \
     !has(r.issuers) || r.issuers.all(n, self.issuers.exists(i, i.name == n))) && \
     self.services.all(s, !has(s.issuers) || s.issuers.all(n, self.issuers.exists(i, i.name == n)))";
pub const ISSUER_NAMES_EXIST_SAYS: &str = "issuers must name issuers of spec.issuers";

pub const ISSUER_URLS_UNIQUE: &str = "[self.issuers\
     .filter(i, has(i.external) || has(i.static) || (has(i.managed) && has(i.managed.url)))\
     .map(i, has(i.external) ? i.external.url : has(i.static) ? i.static.url : i.managed.url)]\
     .all(urls, urls.all(u, urls.exists_one(v, v == u)))";
pub const ISSUER_URLS_UNIQUE_SAYS: &str =
    "no two issuers may have the same url, since a token names its issuer by it";

pub const NAMES_DIFFER: &str =
    "self.issuers.all(i, i.name != 'gateway' && !self.services.exists(s, s.name == i.name))";
pub const NAMES_DIFFER_SAYS: &str =
    "no issuer may have the name of a service, or gateway, since each workload of a chain has its own name";

pub const NEXT_EXISTS: &str = "self.services.all(s, !has(s.next) || \
     s.next.all(n, n != s.name && self.services.exists(t, t.name == n)))";
pub const NEXT_EXISTS_SAYS: &str = "next must name another service of spec.services";
/// Said by `validated` alone: CEL cannot follow a path of any length.
pub const NEXT_CYCLE_SAYS: &str = "next must not lead back to a service before it";

pub const REPLICAS_OR_AUTOSCALING: &str = "!(has(self.replicas) && has(self.autoscaling))";
pub const REPLICAS_OR_AUTOSCALING_SAYS: &str = "replicas and autoscaling must not both be given";

pub const MIN_ABOVE_MAX_SAYS: &str = "minReplicas must not be above maxReplicas";

pub const WHOLE_SECONDS: &str = "!self.contains('ms')";
pub const WHOLE_SECONDS_SAYS: &str = "must be whole seconds, without ms";

pub const TOKEN_LIFETIME: &str = "self.issuers.all(i, !has(i.managed) || \
     duration(i.managed.tokenLifetime) <= duration(self.tokenPolicy.maxTokenLifetime))";
pub const TOKEN_LIFETIME_SAYS: &str = "tokenLifetime must not be longer than spec.tokenPolicy.maxTokenLifetime, or every token would be refused";

pub const AUDIENCES_NARROW: &str = "self.issuers.all(i, !has(i.audiences) || i.audiences.all(a, a in self.audiences)) && \
     self.services.all(s, !has(s.audiences) || s.audiences.all(a, a in self.audiences))";
pub const AUDIENCES_NARROW_SAYS: &str = "audiences must be some of spec.audiences, which they narrow";

pub const CLIENT_AUDIENCES_NARROW: &str = "self.issuers.all(i, !has(i.managed) || i.managed.clients.all(c, \
     !has(c.audiences) || c.audiences.all(a, \
     a in (has(i.audiences) && i.audiences.size() > 0 ? i.audiences : self.audiences))))";
pub const CLIENT_AUDIENCES_NARROW_SAYS: &str =
    "audiences of a client must be some of its issuer's, which they narrow";

pub const ROTATION_PERIOD: &str =
    "duration(self.rotationPeriod) >= duration(self.tokenLifetime) + duration(self.tokenLifetime)";
pub const ROTATION_PERIOD_SAYS: &str = "rotationPeriod must be at least twice tokenLifetime";

pub const REFRESH_NEEDS_DATABASE: &str =
    "has(self.database) || !self.clients.exists(c, c.grants.exists(g, g == 'RefreshToken'))";
pub const REFRESH_NEEDS_DATABASE_SAYS: &str =
    "a client with the grant RefreshToken needs the issuer's database";

pub const URL_KEPT: &str = "has(self.url) == has(oldSelf.url) && (!has(self.url) || self.url == oldSelf.url)";
pub const URL_KEPT_SAYS: &str = "url cannot be changed, since tokens that were issued name it";

pub const VERSION_KEPT: &str =
    "!has(oldSelf.version) || (has(self.version) && self.version == oldSelf.version)";
pub const VERSION_KEPT_SAYS: &str =
    "version cannot be changed, since a volume belongs to one major version of PostgreSQL";

pub const SIZE_GROWS: &str = "quantity(self).compareTo(quantity(oldSelf)) >= 0";
pub const SIZE_GROWS_SAYS: &str = "size cannot become smaller, since volumes only grow";

pub const CLASS_KEPT_SAYS: &str = "className cannot be changed, since a volume stays in its class";

pub const STORAGE_SIZE: &str =
    "!quantity(self).isLessThan(quantity('1Mi')) && !quantity(self).isGreaterThan(quantity('1024Ti'))";
pub const STORAGE_SIZE_SAYS: &str = "size must be between 1Mi and 1024Ti";

/// Objects of a chain are named `<chain>-<component>`, its other objects `<chain>-<component>-<what>`,
/// `<chain>-keys`, `<chain>-accepted` and `<chain>-client-<issuer>-<client>`.
pub const SERVICE_NAME: &str = "!self.matches('^(gateway|issuer|client|postgres|redis|keys|accepted)$|\
     ^(issuer|client)-|-(postgres|redis)$')";
pub const SERVICE_NAME_SAYS: &str = "gateway, issuer, client, postgres, redis, keys, accepted, issuer-*, client-*, *-postgres and *-redis are \
     reserved, since other objects of the chain are called so";

/// Variables that the operator sets in a service's container.
pub const VARIABLES: [&str; 29] = [
    "ACCESS_LOG",
    "ACK_KEY_FILE",
    "ADMIN_PORT",
    "BUNDLE_FILE",
    "CHAIN_UID",
    "DATABASE_PASSWORD",
    "DATABASE_URL",
    "DRAIN_DELAY",
    "DRAIN_GRACE",
    "ISSUER_KEYS_URLS",
    "KEYS_PORT",
    "LISTEN_ADDRESS",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "MAX_STALENESS",
    "NEXT_HOP_URL",
    "OPERATOR_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "POD_UID",
    "PORT",
    "REDIS_URL",
    "SERVICE_CONFIG",
    "STARTUP_WAIT",
    "STATE_DIR",
    "TRACE_SAMPLING_PERCENT",
    "TRUST_ANCHORS",
    "UNCONFIRMED_START",
    "WORKLOAD",
];
pub const VARIABLES_SAYS: &str =
    "env must not name a variable that the operator sets, such as PORT, DATABASE_URL or LOG_LEVEL";

/// What programs take for where and how to send: settings of OpenTelemetry, and proxies. In any case, since half of all
/// programs read `https_proxy`.
pub const STEERING_VARIABLES: &str =
    "!has(self.env) || self.env.all(e, !e.name.matches('(?i)^otel_|_proxy$'))";
pub const STEERING_VARIABLES_SAYS: &str = "env must not name OTEL_* or *_PROXY, in any case, which say where a container sends tokens and traces; \
     spec.observability says that for traces";

pub const TRUSTED_PROXIES: &str = "!has(self.trustedProxies) || self.trustedProxies.all(r, isCIDR(r))";
pub const TRUSTED_PROXIES_SAYS: &str =
    "trustedProxies must be address ranges, as in \"10.0.0.0/8\" or \"fd00::/8\"";

pub const NODE_PORT: &str = "!has(self.nodePort) || self.type != 'ClusterIP'";
pub const NODE_PORT_SAYS: &str = "nodePort may be given only with the types NodePort and LoadBalancer";

pub const LOAD_BALANCER_CLASS: &str = "self.loadBalancerClass == '' || self.type == 'LoadBalancer'";
pub const LOAD_BALANCER_CLASS_SAYS: &str = "loadBalancerClass may be given only with the type LoadBalancer";

pub const SERVICE_PORT: &str = "self != 9090 && self != 9091";
pub const SERVICE_PORT_SAYS: &str =
    "port must not be 9090 or 9091, where every pod has its health and its keys";

/// Of labels and annotations that say whose an object is.
pub(crate) const RESERVED_PREFIX: &str = "servicechain.dev/";
pub const RESERVED_PREFIX_SAYS: &str = "names that start with servicechain.dev/ are the operator's";

pub const REQUEST_BYTES: &str =
    "quantity(self).isGreaterThan(quantity('0')) && !quantity(self).isGreaterThan(quantity('1Gi'))";
pub const REQUEST_BYTES_SAYS: &str = "requestBytes must be between 1 and 1Gi";

pub const HEADER_BYTES: &str =
    "!quantity(self).isLessThan(quantity('4Ki')) && !quantity(self).isGreaterThan(quantity('256Ki'))";
pub const HEADER_BYTES_SAYS: &str = "headerBytes must be between 4Ki and 256Ki";

pub const MAX_MEMORY: &str =
    "!quantity(self).isLessThan(quantity('1Mi')) && !quantity(self).isGreaterThan(quantity('1Ti'))";
pub const MAX_MEMORY_SAYS: &str = "maxMemory must be between 1Mi and 1Ti";

pub const REVOCATION_KEPT_SAYS: &str = "a revocation cannot be changed; delete it and create another one";

pub const ONE_REVOCATION_KIND: &str = "\
     [has(self.key), has(self.subject), has(self.sessionID), has(self.clientID), has(self.tokenID)].filter(x, x).size() == \
     (has(self.issuedBefore) && !has(self.subject) && !has(self.clientID) ? 0 : 1)";
pub const ONE_REVOCATION_KIND_SAYS: &str = "exactly one of key, subject, sessionID, clientID and tokenID must be given, or issuedBefore \
     alone; issuedBefore may stand beside subject and clientID only";

/// Rules with their sentences, as the value of `x-kubernetes-validations`.
#[must_use]
pub fn rules(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, says)| json!({"rule": rule, "message": says}))
        .collect()
}

/// The rule that a duration lies between two others, as the value of `x-kubernetes-validations`.
#[must_use]
pub fn between(least: &str, most: &str) -> Value {
    json!([{
        "rule": format!("duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"),
        "message": between_says(least, most),
    }])
}

/// The rules that a duration lies between two others and is one of whole seconds.
#[must_use]
pub fn whole_seconds_between(least: &str, most: &str) -> Value {
    json!([between(least, most)[0], {"rule": WHOLE_SECONDS, "message": WHOLE_SECONDS_SAYS}])
}

/// The rule that no label or annotation of the operator is given.
#[must_use]
pub fn not_reserved() -> Value {
    json!([{
        "rule": format!("self.all(name, !name.startsWith('{RESERVED_PREFIX}'))"),
        "message": RESERVED_PREFIX_SAYS,
    }])
}

/// The rule that no variable of the operator is given.
#[must_use]
pub fn variables() -> String {
    format!("!has(self.env) || self.env.all(e, !(e.name in {VARIABLES:?}))")
}

fn between_says(least: &str, most: &str) -> String {
    format!("must be between {least} and {most}")
}

/// The bounds of a rule that [`between`] made.
pub(crate) fn bounds(rule: &Value) -> Option<(Duration, Duration)> {
    let mut quoted = rule["rule"]
        .as_str()?
        .strip_prefix("duration(self) >= ")?
        .split('\'')
        .skip(1)
        .step_by(2);
    let mut next = || GatewayDuration::from(quoted.next()?).parse().ok();
    Some((next()?, next()?))
}

/// What a value must be that does not fit a pattern of this module.
pub(crate) fn pattern_says(pattern: &str) -> String {
    match pattern {
        OBJECT_NAME => {
            "must be the name of an object: lower-case letters, digits, dashes and dots".to_owned()
        }
        CLIENT_ID => "must be lower-case letters, digits and dashes, as in \"demo\"".to_owned(),
        SCOPE => "must be a scope: printable characters without spaces, quotes and backslashes".to_owned(),
        HOST => "must be a host name, as in \"shop.example.com\" or \"*.example.com\"".to_owned(),
        PATH_PREFIX => {
            "must be a path of letters, digits and - . _ ~, without empty and dot segments, as in \"/items\""
                .to_owned()
        }
        AUDIENCE => "must be printable ASCII without spaces, as in \"shop\"".to_owned(),
        ORIGIN => {
            "must be http:// or https:// and a host alone, as in \"https://shop.example.com\"".to_owned()
        }
        ISSUER_URL => "must be a URL that starts with https:// or http://, without ? and #".to_owned(),
        JWKS_URI => "must be a URL that starts with https:// or http://, without #".to_owned(),
        _ => format!("must fit the pattern {pattern}"),
    }
}

/// What a name must be, with one to try: what was written, made fit, or the letter of its place in the list.
pub(crate) fn label_says(text: &str, most: u64, index: usize) -> String {
    let lower = text.to_lowercase();
    let fit: String = lower
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(usize::try_from(most).unwrap_or(usize::MAX))
        .collect();
    let fit = fit.trim_end_matches('-');
    let reserved = is_reserved(&lower);
    let letter = char::from(b'a' + u8::try_from(index % 26).unwrap_or_default()).to_string();
    let instead = if fit.is_empty() || reserved {
        letter.as_str()
    } else {
        fit
    };
    let also = if reserved { "is reserved and " } else { "" };
    format!("{text:?} {also}must be a lower-case DNS label of at most {most} characters; try {instead:?}")
}

/// Whether a variable must not be given to a service, since it says where the service sends what; [`STEERING_VARIABLES`].
pub(crate) fn is_steering(variable: &str) -> bool {
    let lower = variable.to_ascii_lowercase();
    lower.starts_with("otel_") || lower.ends_with("_proxy")
}

/// Whether a service must not be called so, since an object of another component is; [`SERVICE_NAME`].
pub(crate) fn is_reserved(name: &str) -> bool {
    [
        "gateway", "issuer", "client", "postgres", "redis", "keys", "accepted",
    ]
    .contains(&name)
        || ["issuer-", "client-"].iter().any(|start| name.starts_with(start))
        || ["-postgres", "-redis"].iter().any(|end| name.ends_with(end))
}
