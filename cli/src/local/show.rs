//! What a person sees of a running local chain, and what a program reads of it. Pure but for `follow`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use servicechain_crds::ValidatedChain;
use servicechain_crds::validated::{IssuerKind, Route, RouteTarget};
use servicechain_runtime::clock::Clock;
use tokio::sync::mpsc;

use super::addresses::Addresses;
use super::trail::{self, Record};
use crate::paint::{Paint, short_key};
use crate::print;

/// What is said once everything is ready.
pub(crate) struct Banner<'a> {
    pub chain: &'a ValidatedChain,
    pub addresses: &'a Addresses,
    pub stores: &'a str,
    /// The id of the key that signs, by the name of its issuer.
    pub keys: &'a BTreeMap<String, String>,
    /// How this program was called, so that the printed commands find it too.
    pub program: String,
    /// Whether no other local chain is running, so that commands find this one without being told.
    pub is_alone: bool,
    pub took: Duration,
}

impl Banner<'_> {
    pub(crate) fn render(&self, paint: Paint) -> String {
        let chain = self.chain;
        let services = match chain.services.len() {
            1 => "1 service".to_owned(),
            count => format!("{count} services"),
        };
        let mut text = format!(
            "chain {} · {services} · {}\n",
            paint.bold(&chain.name),
            self.stores
        );
        let urls = self.addresses.issuers.iter().map(|(_, url)| url);
        let foreign = chain.issuers.iter().filter(|issuer| issuer.managed().is_none());
        let urls = urls.chain(foreign.clone().map(|issuer| &issuer.url));
        let width = urls.chain([&self.addresses.gateway]).map(String::len).max();
        let width = width.unwrap_or_default();
        for ((issuer, managed), (_, url)) in chain.managed_issuers().zip(&self.addresses.issuers) {
            let key = self
                .keys
                .get(&issuer.name)
                .map(|kid| format!(", key {} active", short_key(kid)));
            let _ = writeln!(
                text,
                "  issuer   {url:width$}   {:?}{}",
                managed.algorithm,
                key.unwrap_or_default()
            );
        }
        for issuer in foreign {
            let keys = if matches!(issuer.kind, IssuerKind::External(_)) {
                "its keys are fetched"
            } else {
                "its keys are given"
            };
            let _ = writeln!(text, "  issuer   {:width$}   {keys}", issuer.url);
        }
        for (index, route) in chain.gateway.routes.iter().enumerate() {
            let (label, url) = if index == 0 {
                ("gateway", self.addresses.gateway.as_str())
            } else {
                ("", "")
            };
            let _ = writeln!(text, "  {label:7}  {url:width$}   {}", self.describe(route));
        }
        if !chain.observability.otlp_endpoint.is_empty() {
            text.push_str("  note     spans are exported on Kubernetes only, not to spec.observability.otlpEndpoint from here\n");
        }
        self.render_commands(&mut text, paint);
        let _ = writeln!(
            text,
            "ready in {:.1} s · Ctrl-C ends it\n",
            self.took.as_secs_f64()
        );
        text
    }

    fn describe(&self, route: &Route) -> String {
        let hosts = route.hosts.join(",");
        match &route.target {
            RouteTarget::Service(first) => {
                let path: Vec<&str> = self
                    .chain
                    .path_from(first)
                    .map(|service| service.name.as_str())
                    .collect();
                format!("{hosts}{}  ->  {}", route.path_prefix, path.join(" -> "))
            }
            RouteTarget::Issuer(issuer) => {
                format!("{hosts}/oauth2, /jwks.json, /.well-known  ->  issuer {issuer}")
            }
        }
    }

    /// Lines that work as they are printed: for the first route that leads to a service.
    fn render_commands(&self, text: &mut String, paint: Paint) {
        let is_open = |route: &&Route| matches!(route.target, RouteTarget::Service(_));
        let Some(route) = self.chain.gateway.routes.iter().find(is_open) else {
            return;
        };
        let url = &self.addresses.gateway;
        let port = url.rsplit(':').next().unwrap_or_default();
        let which = if self.is_alone {
            String::new()
        } else {
            format!(" --port {port}")
        };
        let host = route
            .hosts
            .first()
            .map(|host| format!(" -H 'Host: {}'", host.replace('*', "any")));
        let host = host.unwrap_or_default();
        let program = &self.program;
        let bearer = r#"-H "Authorization: Bearer $TOKEN""#;
        let has_client = self
            .chain
            .managed_issuers()
            .any(|(_, managed)| !managed.clients.is_empty());
        let (intro, get, token) = if has_client {
            let get = format!("{program} token{which}");
            ("try it:", Some(format!("export TOKEN=$({get})")), get)
        } else {
            let echo = r#"echo "$TOKEN""#.to_owned();
            ("try it, with an access token of an issuer in TOKEN:", None, echo)
        };
        let commands = [
            format!(
                r#"curl -X PUT {bearer}{host} -H 'Content-Type: application/json' -d '{{"name":"lamp"}}' {url}/items/1"#
            ),
            format!("curl {bearer}{host} {url}/items/1"),
            format!("{token} | {program} explain{which}"),
        ];
        let _ = writeln!(text, "  {intro}");
        for command in get.into_iter().chain(commands) {
            let _ = writeln!(text, "    {}", paint.bold(&command));
        }
    }
}

/// The one line for programs. There is no token where the chain runs no issuer that has a client.
pub(crate) fn json(addresses: &Addresses, token: Option<&str>) -> String {
    let map = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
    json!({
        "gateway": addresses.gateway,
        "issuer": addresses.issuers.first().map(|(_, url)| url),
        "services": map(&addresses.services),
        "admin": map(&addresses.admin),
        "token": token,
    })
    .to_string()
}

/// Shows every request as it happens, until nobody can see it any more.
pub(crate) async fn follow(
    events: mpsc::Receiver<Record>,
    chain: &ValidatedChain,
    paint: Paint,
    is_shown: bool,
) {
    let order: Vec<String> = chain
        .services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    let clock = Clock::system();
    trail::follow(events, |gateway, hops| {
        if is_shown {
            let line = trail::line(&time_of_day(&clock), gateway, hops, &order, paint);
            // Where standard output is gone there is nobody to tell.
            let _ = print(&format!("{line}\n"));
        }
    })
    .await;
}

fn time_of_day(clock: &Clock) -> String {
    let now = jiff::Timestamp::try_from(clock.now()).unwrap_or_default();
    now.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let pair = |name: &str, port: u16| (name.to_owned(), format!("http://127.0.0.1:{port}"));
        Addresses {
            gateway: "http://127.0.0.1:8080".to_owned(),
            issuers: vec![pair("platform", 41001)],
            services: vec![pair("a", 1), pair("b", 2), pair("c", 3)],
            admin: vec![pair("gateway", 4), pair("a", 5)],
        }
    }

    #[test]
    fn everything_one_needs_is_said_once_ready() {
        let chain = servicechain_crds::read(include_str!("../../../examples/shop.yaml")).unwrap();
        let banner = Banner {
            chain: &chain,
            addresses: &addresses(),
            stores: "embedded stores",
            program: "servicechain".to_owned(),
            keys: &BTreeMap::from([("platform".to_owned(), "k7f2abcd".to_owned())]),
            is_alone: true,
            took: Duration::from_millis(420),
        };
        assert_eq!(
            banner.render(Paint::Plain),
            r#"chain shop · 3 services · embedded stores
  issuer   http://127.0.0.1:41001   ES256, key k7f2… active
  gateway  http://127.0.0.1:8080    /  ->  a -> b -> c
                                    /oauth2, /jwks.json, /.well-known  ->  issuer platform
  try it:
    export TOKEN=$(servicechain token)
    curl -X PUT -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"name":"lamp"}' http://127.0.0.1:8080/items/1
    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/items/1
    servicechain token | servicechain explain
ready in 0.4 s · Ctrl-C ends it

"#
        );
        let beside_others = Banner {
            is_alone: false,
            ..banner
        }
        .render(Paint::Plain);
        assert!(
            beside_others.contains("$(servicechain token --port 8080)"),
            "{beside_others}"
        );
    }

    #[test]
    fn where_others_run_all_issuers_nothing_is_said_to_get_a_token_from() {
        let chain = r#"{"apiVersion": "servicechain.dev/v1alpha1", "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [{"name": "corp", "external": {"url": "https://idp.example.com/realms/corp"}}],
                "gateway": {"routes": [{"name": "items", "service": "a"}]},
                "services": [{"name": "a", "database": {"managed": {}}}]
            }}"#;
        let chain = servicechain_crds::read(chain).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let banner = Banner {
            chain: &chain,
            addresses: &Addresses {
                issuers: Vec::new(),
                ..addresses()
            },
            stores: "embedded stores",
            program: "servicechain".to_owned(),
            keys: &BTreeMap::new(),
            is_alone: true,
            took: Duration::from_millis(420),
        };
        assert_eq!(
            banner.render(Paint::Plain),
            r#"chain shop · 1 service · embedded stores
  issuer   https://idp.example.com/realms/corp   its keys are fetched
  gateway  http://127.0.0.1:8080                 /  ->  a
  try it, with an access token of an issuer in TOKEN:
    curl -X PUT -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"name":"lamp"}' http://127.0.0.1:8080/items/1
    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/items/1
    echo "$TOKEN" | servicechain explain
ready in 0.4 s · Ctrl-C ends it

"#
        );
    }

    #[test]
    fn programs_read_one_line() {
        assert_eq!(
            json(&addresses(), Some("x.y.z")),
            r#"{"admin":{"a":"http://127.0.0.1:5","gateway":"http://127.0.0.1:4"},"gateway":"http://127.0.0.1:8080","issuer":"http://127.0.0.1:41001","services":{"a":"http://127.0.0.1:1","b":"http://127.0.0.1:2","c":"http://127.0.0.1:3"},"token":"x.y.z"}"#
        );
    }
}
