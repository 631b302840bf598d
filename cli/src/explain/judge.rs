//! Judges a token at every hop of a chain with the function that the verifiers use. Pure.

use http::Method;
use serde_json::Value;
use servicechain_auth::rejected::{Forbidden, TokenFault, Unavailable};
use servicechain_auth::{AuthorizationRules, Caller, Hop, Rejected, verify};
use servicechain_crds::ValidatedChain;
use servicechain_crds::duration;
use servicechain_crds::validated::{RouteTarget, Service};
use servicechain_gateway::config::{Authentication, Config, Route};
use servicechain_keys::{HeldBundle, NumericDate};
use servicechain_operator::controller::build::configuration::{self, Places};

use super::explanation::{About, Explanation, HopStanding, Key, Standing};
use super::peek;
use crate::paint::tame;
use crate::wording::in_words;

/// The request that the token would come with.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub method: Method,
    /// Empty: one that only routes for every host answer.
    pub host: String,
    /// With a query perhaps.
    pub path: String,
}

/// Where nothing is: routes are looked up here, and none of them is taken.
struct Nowhere;

impl Places for Nowhere {
    fn service(&self, name: &str) -> String {
        format!("http://{name}")
    }

    fn issuer(&self, name: &str) -> String {
        format!("http://{name}")
    }
}

/// What a token would meet at every hop that the request passes.
pub(crate) fn explain(
    token: &str,
    bundle: &HeldBundle,
    chain: &ValidatedChain,
    request: &Request,
    now: NumericDate,
) -> Explanation {
    let about = peek::about(token, now);
    let judge = Judge {
        token,
        bundle,
        chain,
        request,
        now,
        about: &about,
    };
    let hops = judge.hops();
    Explanation { token: about, hops }
}

struct Judge<'a> {
    token: &'a str,
    bundle: &'a HeldBundle,
    chain: &'a ValidatedChain,
    request: &'a Request,
    now: NumericDate,
    about: &'a About,
}

impl Judge<'_> {
    fn hops(&self) -> Vec<HopStanding> {
        // The file that the gateway reads, so that its own code decides over its own routes.
        let config = match Config::from_yaml(&configuration::gateway(self.chain, &Nowhere)) {
            Ok(config) => config,
            Err(mistakes) => return vec![refused("gateway", mistakes.to_string(), None)],
        };
        let path = self.request.path.split('?').next().unwrap_or_default();
        let routes = || Some("spec.gateway.routes".to_owned());
        let (route, path) = match config.route_of(&self.request.host, path) {
            Err(bad) => return vec![refused("gateway", format!("400: {bad}"), None)],
            Ok((None, path)) => return vec![refused("gateway", self.no_route(&path), routes())],
            Ok((Some(route), path)) => (route, path),
        };
        let mut hops = vec![self.at_gateway(&config, route)];
        if let Some((_, RouteTarget::Service(first))) = self.of_chain(route) {
            for service in self.chain.path_from(first) {
                let is_reached = hops.iter().all(|hop| hop.standing == Standing::Passes);
                hops.push(if is_reached {
                    self.at_service(service, &path)
                } else {
                    not_reached(&service.name)
                });
            }
        }
        hops
    }

    fn no_route(&self, path: &str) -> String {
        let hosts = self.chain.gateway.routes.iter().flat_map(|route| &route.hosts);
        let hosts: Vec<&str> = hosts.map(String::as_str).collect();
        let path = tame(path, 40);
        match self.request.host.as_str() {
            "" if hosts.is_empty() => format!("no route for {path}"),
            "" => format!(
                "no route for {path} of any host: say --host, such as {}",
                hosts[0]
            ),
            host => format!("no route for {path} of host {}", tame(host, 40)),
        }
    }

    /// The chain's own route behind one of the gateway's, with its position: an issuer's has several there.
    fn of_chain(&self, route: &Route) -> Option<(usize, &RouteTarget)> {
        let routes = || self.chain.gateway.routes.iter().enumerate();
        let is_part = |name: &str| {
            let rest = route.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        routes()
            .find(|(_, own)| own.name == route.name)
            .or_else(|| {
                routes().find(|(_, own)| matches!(own.target, RouteTarget::Issuer(_)) && is_part(&own.name))
            })
            .map(|(position, own)| (position, &own.target))
    }

    fn at_gateway(&self, config: &Config, route: &Route) -> HopStanding {
        let hop = "gateway";
        if route.authentication == Authentication::None {
            return passes(hop, None, format!("route {} asks for no token", route.name));
        }
        let position = self.of_chain(route).map(|(position, _)| position);
        let field = |name: &str| format!("spec.gateway.routes[{}].{name}", position.unwrap_or_default());
        let gateway = config.verifier_hop();
        let caller = match verify(self.token, self.bundle, &gateway, self.now) {
            Ok(caller) => caller,
            Err(rejected) => return self.rejected(hop, &rejected, &gateway, None),
        };
        match route.check(&caller) {
            Ok(()) => {}
            Err(Rejected::Forbidden(Forbidden::Scopes(wanted))) => {
                return refused(hop, lacks(&wanted, &caller), Some(field("scopes")));
            }
            Err(_) => {
                let because = format!("issuer: route {} takes {}", route.name, route.issuers.join(", "));
                return refused(hop, because, Some(field("issuers")));
            }
        }
        let audience = caller.audiences().join(", ");
        passes(
            hop,
            self.key_of(&caller),
            format!("audience {}", tame(&audience, 60)),
        )
    }

    /// `path` is what the gateway forwards.
    fn at_service(&self, service: &Service, path: &str) -> HopStanding {
        let hop = Hop {
            audiences: service.audiences.clone(),
            issuers: service.issuers.clone(),
            ..Hop::new(service.name.clone())
        };
        let caller = match verify(self.token, self.bundle, &hop, self.now) {
            Ok(caller) => caller,
            Err(rejected) => return self.rejected(&service.name, &rejected, &hop, Some(service)),
        };
        let method = &self.request.method;
        let key = self.key_of(&caller);
        let Some(rules) = &service.authorization else {
            return passes(&service.name, key, "any verified caller may".to_owned());
        };
        let rules = serde_json::to_value(rules).and_then(serde_json::from_value::<AuthorizationRules>);
        match rules.map(|rules| rules.decide(method, path, &caller)) {
            Ok(Ok(())) => passes(
                &service.name,
                key,
                format!("may {method} {}{}", tame(path, 40), scopes(&caller)),
            ),
            Ok(Err(Rejected::Forbidden(Forbidden::Scopes(wanted)))) => refused(
                &service.name,
                lacks(&wanted, &caller),
                self.field_of(service, "authorization"),
            ),
            Ok(Err(_)) | Err(_) => {
                let because = format!("nobody may {method} {}", tame(path, 40));
                refused(&service.name, because, self.field_of(service, "authorization"))
            }
        }
    }

    /// Says a refusal in the words of the chain.
    fn rejected(&self, hop: &str, rejected: &Rejected, at: &Hop, service: Option<&Service>) -> HopStanding {
        let field = |name: &str| service.and_then(|service| self.field_of(service, name));
        let (because, look_at) = match rejected {
            Rejected::Token(TokenFault::Audience) => (
                self.audience(at),
                field("audiences").or_else(|| Some("spec.audiences".to_owned())),
            ),
            Rejected::Token(TokenFault::IssuerNotAccepted) => (
                format!("issuer: takes {}", at.issuers.join(", ")),
                field("issuers"),
            ),
            Rejected::Token(TokenFault::UnknownIssuer) => {
                let known: Vec<&str> = self
                    .chain
                    .issuers
                    .iter()
                    .map(|issuer| issuer.url.as_str())
                    .collect();
                (
                    format!("issuer is not trusted; trusted: {}", known.join(", ")),
                    Some("spec.issuers".to_owned()),
                )
            }
            Rejected::Token(TokenFault::Expired) => {
                let ago = self.about.expires_in_seconds.unwrap_or_default().unsigned_abs();
                (format!("expired {} ago", in_words(ago)), None)
            }
            Rejected::Token(TokenFault::LivesTooLong) => (
                "lives longer than allowed".to_owned(),
                Some("spec.tokenPolicy.maxTokenLifetime".to_owned()),
            ),
            Rejected::Token(TokenFault::ExpiresTooSoon) => {
                let least = duration::format(at.minimum_remaining);
                (
                    format!("less than {least} left"),
                    Some("spec.tokenPolicy.minimumRemaining".to_owned()),
                )
            }
            Rejected::Token(TokenFault::RequiredClaim) => (
                rejected.reason().to_owned(),
                Some("spec.tokenPolicy.requiredClaims".to_owned()),
            ),
            Rejected::Token(TokenFault::TooLarge) => {
                let most = self.chain.token_policy.max_token_bytes;
                (
                    format!("larger than {most} bytes"),
                    Some("spec.tokenPolicy.maxTokenBytes".to_owned()),
                )
            }
            Rejected::Unavailable(Unavailable::UnknownKey) => {
                ("its key is not among those of its issuer".to_owned(), None)
            }
            other => (other.reason().to_owned(), None),
        };
        refused(hop, because, look_at)
    }

    /// An audience counts where both the issuer and the hop accept it.
    fn audience(&self, at: &Hop) -> String {
        let claims = peek::claims(self.token);
        let issuer = claims
            .get("iss")
            .and_then(Value::as_str)
            .and_then(|iss| self.bundle.issuer(iss));
        let of_issuer = issuer
            .map(|issuer| issuer.audiences.as_slice())
            .unwrap_or_default();
        let wanted: Vec<&str> = of_issuer
            .iter()
            .map(String::as_str)
            .filter(|audience| at.accepts_audience(audience))
            .collect();
        if wanted.is_empty() {
            return format!("audience: its issuer has none of {}", at.audiences.join(", "));
        }
        let has = match claims.get("aud") {
            Some(Value::String(audience)) => audience.clone(),
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
            _ => "none".to_owned(),
        };
        format!(
            "audience: wants {}, token has {}",
            wanted.join(" or "),
            tame(&has, 60)
        )
    }

    fn key_of(&self, caller: &Caller) -> Option<Key> {
        let issuer = self.bundle.issuer(caller.issuer())?;
        let key = match caller.key_id() {
            Some(kid) => issuer.keys.iter().find(|key| key.kid() == Some(kid)),
            None => issuer.keys.iter().next(),
        }?;
        let kid = key
            .kid()
            .map_or_else(|| key.thumbprint().to_string(), str::to_owned);
        Some(Key {
            kid: tame(&kid, 64),
            algorithm: key.algorithm().name().to_owned(),
        })
    }

    fn field_of(&self, service: &Service, field: &str) -> Option<String> {
        let index = self
            .chain
            .services
            .iter()
            .position(|other| other.name == service.name)?;
        Some(format!("spec.services[{index}].{field}"))
    }
}

fn passes(hop: &str, key: Option<Key>, because: String) -> HopStanding {
    HopStanding {
        hop: hop.to_owned(),
        standing: Standing::Passes,
        because,
        key,
        look_at: None,
    }
}

fn refused(hop: &str, because: String, look_at: Option<String>) -> HopStanding {
    HopStanding {
        hop: hop.to_owned(),
        standing: Standing::Refused,
        because,
        key: None,
        look_at,
    }
}

fn not_reached(hop: &str) -> HopStanding {
    HopStanding {
        hop: hop.to_owned(),
        standing: Standing::NotReached,
        because: "not reached".to_owned(),
        key: None,
        look_at: None,
    }
}

fn lacks(wanted: &str, caller: &Caller) -> String {
    let has = if caller.scopes().is_empty() {
        "none".to_owned()
    } else {
        caller.scopes().join(" ")
    };
    format!("scope: wants {wanted}, token has {}", tame(&has, 60))
}

fn scopes(caller: &Caller) -> String {
    let scopes = caller.scopes().join(" ");
    if scopes.is_empty() {
        String::new()
    } else {
        format!(" (scope {})", tame(&scopes, 60))
    }
}
