//! The rules of `spec.gateway`.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Judge, parsed, unless_zero};
use crate::{
    rules,
    service_chain::gateway::{AuthenticationMode, GatewaySpec, RouteSpec, ServiceType},
    validated::{Gateway, ISSUER_PATHS, Route, RouteTarget},
};

impl Judge<'_> {
    pub(super) fn gateway(&mut self) -> Gateway {
        let spec = &self.chain.spec.gateway;
        self.refuse_entrances(spec);
        if spec.service.node_port.is_some() && spec.service.kind == ServiceType::ClusterIP {
            self.mistakes
                .add("spec.gateway.service.nodePort", rules::NODE_PORT_SAYS);
        }
        if !spec.service.load_balancer_class.is_empty() && spec.service.kind != ServiceType::LoadBalancer {
            self.mistakes.add(
                "spec.gateway.service.loadBalancerClass",
                rules::LOAD_BALANCER_CLASS_SAYS,
            );
        }
        Gateway {
            replicas: self.replicas("spec.gateway", spec.replicas, spec.autoscaling.as_ref()),
            service: spec.service.clone(),
            trusted_proxies: self.trusted_proxies(&spec.trusted_proxies),
            request_bytes: self.bytes(
                &spec.limits.request_bytes,
                1..=1 << 30,
                "spec.gateway.limits.requestBytes",
                rules::REQUEST_BYTES_SAYS,
            ),
            header_bytes: self.bytes(
                &spec.limits.header_bytes,
                4 << 10..=256 << 10,
                "spec.gateway.limits.headerBytes",
                rules::HEADER_BYTES_SAYS,
            ),
            timeout: unless_zero(parsed(&spec.timeout)),
            routes: self.routes(spec),
            pod: self.pod(&spec.pod, "spec.gateway.pod"),
        }
    }

    fn refuse_entrances(&mut self, spec: &GatewaySpec) {
        if spec.ingress.is_some() {
            self.mistakes.add_unsupported(
                "spec.gateway.ingress",
                "an Ingress",
                "make one yourself, or use spec.gateway.service",
            );
        }
        if spec.http_route.is_some() {
            self.mistakes.add_unsupported(
                "spec.gateway.httpRoute",
                "an HTTPRoute",
                "make one yourself, or use spec.gateway.service",
            );
        }
        if spec.tls.is_some() {
            self.mistakes.add_unsupported(
                "spec.gateway.tls",
                "TLS at the gateway",
                "terminate it in front of the gateway",
            );
        }
    }

    fn trusted_proxies(&mut self, ranges: &[String]) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            match range.parse() {
                Ok(net) => nets.push(net),
                Err(_) => self.mistakes.add(
                    format!("spec.gateway.trustedProxies[{index}]"),
                    format!("{range:?} is none: {}", rules::TRUSTED_PROXIES_SAYS),
                ),
            }
        }
        nets
    }

    fn routes(&mut self, gateway: &GatewaySpec) -> Vec<Route> {
        let mut taken = BTreeMap::new();
        let mut routes = Vec::new();
        for (index, spec) in gateway.routes.iter().enumerate() {
            let path = format!("spec.gateway.routes[{index}]");
            self.refuse_same_paths(spec, &path, &mut taken);
            if spec.rate_limit.is_some() {
                self.mistakes.add_unsupported(
                    format!("{path}.rateLimit"),
                    "a rate limit",
                    "limit in front of the gateway",
                );
            }
            self.known(
                &format!("{path}.issuers"),
                &spec.issuers,
                &self.issuer_names(),
                "issuer",
            );
            let Some(target) = self.target(spec, &path) else {
                continue;
            };
            let authentication = self.authentication(spec, &target, &path);
            if authentication != AuthenticationMode::Required && !spec.scopes.is_empty() {
                self.mistakes
                    .add(format!("{path}.scopes"), rules::SCOPES_NEED_TOKEN_SAYS);
            }
            if authentication == AuthenticationMode::None && !spec.issuers.is_empty() {
                self.mistakes
                    .add(format!("{path}.issuers"), rules::ISSUERS_NEED_TOKEN_SAYS);
            }
            routes.push(Route {
                name: spec.name.clone(),
                hosts: spec.hosts.clone(),
                path_prefix: spec.path_prefix.clone(),
                authentication,
                target,
                issuers: spec.issuers.clone(),
                scopes: spec.scopes.clone(),
                timeout: unless_zero(parsed(spec.timeout.as_ref().unwrap_or(&gateway.timeout))),
            });
        }
        routes
    }

    fn refuse_same_paths<'b>(
        &mut self,
        spec: &'b RouteSpec,
        path: &str,
        taken: &mut BTreeMap<(&'b str, &'b str), &'b str>,
    ) {
        if spec.issuer.is_some() && spec.path_prefix != "/" {
            self.mistakes
                .add(format!("{path}.pathPrefix"), rules::ISSUER_ROUTE_PREFIX_SAYS);
        }
        let hosts: Vec<&str> = if spec.hosts.is_empty() {
            vec!["*"]
        } else {
            spec.hosts.iter().map(String::as_str).collect()
        };
        let prefixes = if spec.issuer.is_some() {
            ISSUER_PATHS.to_vec()
        } else {
            vec![spec.path_prefix.trim_end_matches('/')]
        };
        let mut same = hosts
            .iter()
            .flat_map(|host| prefixes.iter().map(move |prefix| (*host, *prefix)));
        if let Some(other) = same.find_map(|place| taken.insert(place, &spec.name)) {
            self.mistakes.add(
                format!("{path}.pathPrefix"),
                format!(
                    "route {other:?} answers for the same host and path; give one another pathPrefix or host"
                ),
            );
        }
    }

    fn target(&mut self, spec: &RouteSpec, path: &str) -> Option<RouteTarget> {
        match (&spec.service, &spec.issuer) {
            (Some(service), None) => {
                let names = self.service_names();
                if !names.contains(&service.as_str()) {
                    self.unknown(&format!("{path}.service"), service, &names, "service");
                }
                Some(RouteTarget::Service(service.clone()))
            }
            (None, Some(issuer)) => {
                let managed: Vec<&str> = self
                    .chain
                    .spec
                    .issuers
                    .iter()
                    .filter(|issuer| issuer.managed.is_some())
                    .map(|issuer| issuer.name.as_str())
                    .collect();
                if !managed.contains(&issuer.as_str()) {
                    self.unknown(&format!("{path}.issuer"), issuer, &managed, "managed issuer");
                }
                Some(RouteTarget::Issuer(issuer.clone()))
            }
            (None, None) | (Some(_), Some(_)) => {
                let names = self.service_names();
                self.mistakes.add(
                    path,
                    format!(
                        "{}; try `service: {}`",
                        rules::ONE_ROUTE_TARGET_SAYS,
                        names.first().unwrap_or(&"a")
                    ),
                );
                None
            }
        }
    }

    /// An issuer must be reachable without a token, or nobody ever gets one.
    fn authentication(&mut self, spec: &RouteSpec, target: &RouteTarget, path: &str) -> AuthenticationMode {
        match (target, spec.authentication) {
            (RouteTarget::Service(_), mode) => mode.unwrap_or_default(),
            (RouteTarget::Issuer(_), None | Some(AuthenticationMode::None)) => AuthenticationMode::None,
            (RouteTarget::Issuer(_), Some(mode)) => {
                self.mistakes
                    .add(format!("{path}.authentication"), rules::ISSUER_ROUTE_OPEN_SAYS);
                mode
            }
        }
    }
}
