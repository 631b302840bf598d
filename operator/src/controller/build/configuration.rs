//! The files that the chain's own processes mount: `gateway.yaml`, `service.yaml`, `issuer.yaml`. JSON is YAML, and
//! needs no quoting rules. It must not know the services' crates, only their files.

use serde_json::{Value, json};
use servicechain_crds::ValidatedChain;
use servicechain_crds::duration;
use servicechain_crds::validated::{ISSUER_PATHS, Issuer, ManagedIssuer, Route, RouteTarget, Service};

/// Where the parts of a chain are reached: origins, such as `http://shop-a.shop.svc:8080`.
pub trait Places {
    fn service(&self, name: &str) -> String;
    fn issuer(&self, name: &str) -> String;
}

/// A client's secret as the issuer knows it: SHA-256, 64 lower-case hexadecimal digits.
#[derive(Clone, Debug)]
pub struct ClientSecret {
    pub client: String,
    pub sha256: String,
}

#[must_use]
pub fn gateway(chain: &ValidatedChain, places: &impl Places) -> String {
    let gateway = &chain.gateway;
    let routes = gateway.routes.iter().flat_map(|route| routes(route, places));
    document(&json!({
        "hop": {
            "name": "gateway",
            "audiences": [],
            "issuers": [],
            "minimumRemaining": duration::format(chain.token_policy.minimum_remaining),
        },
        "limits": {"requestBytes": gateway.request_bytes, "headerBytes": gateway.header_bytes},
        "timeout": duration::format(gateway.timeout.unwrap_or_default()),
        "trustedProxies": gateway.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    }))
}

#[must_use]
pub fn service(chain: &ValidatedChain, service: &Service) -> String {
    let mut file = json!({
        "hop": {"name": service.name, "audiences": service.audiences, "issuers": service.issuers},
        "cacheTTL": duration::format(service.cache_ttl),
        "timeout": duration::format(chain.gateway.timeout.unwrap_or_default()),
    });
    // Absent says something else than empty: any verified caller, rather than nobody.
    if let Some(rules) = &service.authorization {
        file["authorization"] = json!(rules);
    }
    if let Some(next) = &service.next {
        file["nextHop"] = json!(next);
    }
    document(&file)
}

/// Clients without a secret among `secrets` are left out: nobody could be told apart from them.
#[must_use]
pub fn issuer(issuer: &Issuer, managed: &ManagedIssuer, secrets: &[ClientSecret]) -> String {
    let clients = managed.clients.iter().filter_map(|client| {
        let secret = secrets.iter().find(|secret| secret.client == client.id)?;
        Some(json!({
            "id": client.id,
            "secretSha256": secret.sha256,
            "grants": ["ClientCredentials"],
            "scopes": client.scopes,
            "audiences": client.audiences,
        }))
    });
    document(&json!({
        "issuer": {
            "name": issuer.name,
            "url": issuer.url,
            "algorithm": managed.algorithm,
            "tokenLifetime": duration::format(managed.token_lifetime),
            "audiences": issuer.audiences,
        },
        "clients": clients.collect::<Vec<_>>(),
    }))
}

/// A route to an issuer becomes one for each path that it exposes.
fn routes(route: &Route, places: &impl Places) -> Vec<Value> {
    let one = |name: String, prefix: &str, upstream: String, target: &str| {
        json!({
            "name": name,
            "hosts": route.hosts,
            "pathPrefix": prefix,
            "upstream": upstream,
            "service": target,
            "authentication": route.authentication,
            "issuers": route.issuers,
            "scopes": route.scopes,
            "timeout": duration::format(route.timeout.unwrap_or_default()),
        })
    };
    match &route.target {
        RouteTarget::Service(target) => {
            vec![one(
                route.name.clone(),
                &route.path_prefix,
                places.service(target),
                target,
            )]
        }
        RouteTarget::Issuer(target) => ISSUER_PATHS
            .into_iter()
            .map(|path| {
                let name = format!("{}{}", route.name, path.replace(['/', '.'], "-"));
                one(name, path, places.issuer(target), target)
            })
            .collect(),
    }
}

fn document(value: &Value) -> String {
    format!("{value:#}\n")
}
