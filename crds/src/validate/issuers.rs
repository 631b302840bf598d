//! The rules of `spec.issuers`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judge, parsed};
use crate::{
    duration, rules,
    service_chain::issuers::{ClientSpec, ExternalIssuerSpec, Grant, IssuerSpec, ManagedIssuerSpec},
    validated::{Client, ExternalIssuer, Issuer, IssuerKind, ManagedIssuer, StaticIssuer},
};

impl Judge<'_> {
    pub(super) fn issuers(&mut self) -> Vec<Issuer> {
        let mut urls = BTreeSet::new();
        let mut issuers = Vec::new();
        for (index, spec) in self.chain.spec.issuers.iter().enumerate() {
            let path = format!("spec.issuers[{index}]");
            let arms = [
                spec.managed.is_some(),
                spec.external.is_some(),
                spec.fixed.is_some(),
            ];
            if arms.iter().filter(|given| **given).count() != 1 {
                self.mistakes.add(
                    &path,
                    format!("{}; try `managed: {{}}`", rules::ONE_ISSUER_KIND_SAYS),
                );
            }
            if spec.name == "gateway" || self.service_names().contains(&spec.name.as_str()) {
                self.mistakes.add(
                    format!("{path}.name"),
                    format!("{:?} is taken: {}", spec.name, rules::NAMES_DIFFER_SAYS),
                );
            }
            let url = self.url_of(spec);
            if !urls.insert(url.clone()) {
                self.mistakes
                    .add(&path, format!("{} ({url:?})", rules::ISSUER_URLS_UNIQUE_SAYS));
            }
            let audiences = self.narrowed(
                &format!("{path}.audiences"),
                &spec.audiences,
                &self.chain.spec.audiences,
                rules::AUDIENCES_NARROW_SAYS,
            );
            let Some((kind, token_types)) = self.kind_of_issuer(spec, &audiences, &path) else {
                continue;
            };
            issuers.push(Issuer {
                name: spec.name.clone(),
                url,
                scopes_claim: spec.scopes_claim.clone(),
                token_types: or_default(&spec.token_types, token_types),
                kind,
                audiences,
            });
        }
        self.refuse_shared_secrets(&issuers);
        issuers
    }

    /// Issuer `a-b` with client `c` and issuer `a` with client `b-c` would share one Secret.
    fn refuse_shared_secrets(&mut self, issuers: &[Issuer]) {
        let mut owners = BTreeMap::new();
        for issuer in issuers {
            let Some(managed) = issuer.managed() else { continue };
            for client in managed.clients.iter().filter(|client| !client.secret_is_given) {
                let name = (issuer.name.as_str(), client.id.as_str());
                let Some((other_issuer, other)) = owners.insert(client.secret_name.as_str(), name) else {
                    continue;
                };
                if other_issuer != issuer.name {
                    self.mistakes.add(
                        "spec.issuers",
                        format!(
                            "client {:?} of issuer {:?} and client {other:?} of issuer {other_issuer:?} would share the \
                             Secret {:?}; give one of them a secretRef, or another name",
                            client.id, issuer.name, client.secret_name
                        ),
                    );
                }
            }
        }
    }

    fn url_of(&self, spec: &IssuerSpec) -> String {
        let given = match (&spec.managed, &spec.external, &spec.fixed) {
            (Some(managed), _, _) => managed.url.clone(),
            (_, Some(external), _) => Some(external.url.clone()),
            (_, _, Some(fixed)) => Some(fixed.url.clone()),
            (None, None, None) => None,
        };
        given.unwrap_or_else(|| format!("http://{}-issuer-{}.{}.svc", self.name, spec.name, self.namespace))
    }

    /// With the `typ` of its tokens where none is given.
    fn kind_of_issuer(
        &mut self,
        spec: &IssuerSpec,
        audiences: &[String],
        path: &str,
    ) -> Option<(IssuerKind, &'static [&'static str])> {
        if let Some(managed) = &spec.managed {
            let managed = self.managed_issuer(managed, &spec.name, audiences, path);
            return Some((IssuerKind::Managed(Box::new(managed)), &["at+jwt"]));
        }
        let kind = if let Some(external) = &spec.external {
            IssuerKind::External(external_issuer(external))
        } else {
            let jwks = spec.fixed.as_ref()?.jwks.config_map_key_ref.clone();
            IssuerKind::Static(StaticIssuer { jwks })
        };
        Some((kind, &["at+jwt", "JWT"]))
    }

    fn managed_issuer(
        &mut self,
        spec: &ManagedIssuerSpec,
        issuer: &str,
        audiences: &[String],
        path: &str,
    ) -> ManagedIssuer {
        let path = format!("{path}.managed");
        self.lifetimes(spec, &path);
        self.whole_seconds(&spec.token_lifetime, &format!("{path}.tokenLifetime"));
        let refreshes = spec
            .clients
            .iter()
            .any(|client| client.grants.contains(&Grant::RefreshToken));
        if refreshes && spec.database.is_none() {
            self.mistakes.add(
                format!("{path}.database"),
                format!("is missing: {}", rules::REFRESH_NEEDS_DATABASE_SAYS),
            );
        }
        if let Some(database) = &spec.database {
            self.database(database, &format!("{path}.database"));
            self.mistakes.add_unsupported(
                format!("{path}.database"),
                "an issuer's database, which keeps refresh tokens,",
                "leave it out",
            );
        }
        let clients = spec.clients.iter().enumerate();
        ManagedIssuer {
            algorithm: spec.algorithm,
            token_lifetime: parsed(&spec.token_lifetime),
            rotation_period: parsed(&spec.rotation_period),
            replicas: spec.replicas.unsigned_abs(),
            clients: clients
                .map(|(index, client)| {
                    self.client(client, issuer, audiences, &format!("{path}.clients[{index}]"))
                })
                .collect(),
            pod: self.pod(&spec.pod, &format!("{path}.pod")),
        }
    }

    fn lifetimes(&mut self, spec: &ManagedIssuerSpec, path: &str) {
        let (Ok(lifetime), Ok(period)) = (spec.token_lifetime.parse(), spec.rotation_period.parse()) else {
            return;
        };
        if period < lifetime * 2 {
            self.mistakes.add(
                format!("{path}.rotationPeriod"),
                format!(
                    "{}: {} is shorter than twice {}; use {} or more",
                    rules::ROTATION_PERIOD_SAYS,
                    spec.rotation_period.as_str(),
                    spec.token_lifetime.as_str(),
                    duration::format(lifetime * 2)
                ),
            );
        }
        let policy = &self.chain.spec.token_policy.max_token_lifetime;
        if policy.parse().is_ok_and(|most| lifetime > most) {
            self.mistakes.add(
                format!("{path}.tokenLifetime"),
                format!(
                    "{}: {} is longer than {}; shorten one or lengthen the other",
                    rules::TOKEN_LIFETIME_SAYS,
                    spec.token_lifetime.as_str(),
                    policy.as_str()
                ),
            );
        }
    }

    fn client(&mut self, spec: &ClientSpec, issuer: &str, audiences: &[String], path: &str) -> Client {
        for (index, grant) in spec.grants.iter().enumerate() {
            if *grant == Grant::RefreshToken {
                self.mistakes.add_unsupported(
                    format!("{path}.grants[{index}]"),
                    "the grant RefreshToken",
                    "use ClientCredentials alone",
                );
            }
        }
        let made = || format!("{}-client-{issuer}-{}", self.name, spec.id);
        Client {
            id: spec.id.clone(),
            secret_name: spec
                .secret_ref
                .as_ref()
                .map_or_else(made, |secret| secret.name.clone()),
            secret_is_given: spec.secret_ref.is_some(),
            scopes: spec.scopes.clone(),
            audiences: self.narrowed(
                &format!("{path}.audiences"),
                &spec.audiences,
                audiences,
                rules::CLIENT_AUDIENCES_NARROW_SAYS,
            ),
        }
    }
}

fn external_issuer(spec: &ExternalIssuerSpec) -> ExternalIssuer {
    let ca_bundle = spec.ca_bundle.as_ref();
    ExternalIssuer {
        jwks_uri: (!spec.jwks_uri.is_empty()).then(|| spec.jwks_uri.clone()),
        algorithms: spec.algorithms.clone(),
        ca_bundle: ca_bundle.map(|source| source.config_map_key_ref.clone()),
        refresh_interval: parsed(&spec.refresh_interval),
    }
}

fn or_default(given: &[String], default: &[&str]) -> Vec<String> {
    if given.is_empty() {
        default.iter().map(|&word| word.to_owned()).collect()
    } else {
        given.to_vec()
    }
}
