//! What a chain says about issuers that it does not run: the key sets that are given, and where the others are fetched.
//! What `ConfigMap`s hold is a parameter: who reads them is not known here.

use std::collections::{BTreeMap, BTreeSet};

use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::ObjectKey;
use servicechain_crds::validated::IssuerKind;
use servicechain_keys::{Algorithm, Jwk};

use super::desired::allowed;
use super::external::{Source, published_keys};
use super::state::{IssuerProblem, IssuerStanding};

/// The issuers of a chain that it does not run.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// To be fetched.
    pub sources: Vec<Source>,
    /// The usable keys of static issuers, by name. One of which nothing is usable has none, and keeps what it had.
    pub given: BTreeMap<String, Vec<Jwk>>,
    /// How static issuers stand.
    pub standings: BTreeMap<String, IssuerStanding>,
}

impl Foreign {
    /// `value_of` finds a key of a `ConfigMap` of the chain's namespace, or says why it is not there.
    pub(super) fn new(
        chain: &ValidatedChain,
        value_of: impl Fn(&ObjectKey) -> Result<String, String>,
    ) -> Self {
        let mut foreign = Self::default();
        for issuer in &chain.issuers {
            match &issuer.kind {
                IssuerKind::Managed(_) => {}
                IssuerKind::External(external) => foreign.sources.push(Source {
                    name: issuer.name.clone(),
                    url: issuer.url.clone(),
                    jwks_uri: external.jwks_uri.clone(),
                    algorithms: allowed(&external.algorithms),
                    ca_bundle: external.ca_bundle.as_ref().map(&value_of).transpose(),
                    refresh_interval: external.refresh_interval,
                }),
                IssuerKind::Static(fixed) => foreign.give(&issuer.name, value_of(&fixed.jwks)),
            }
        }
        foreign
    }

    fn give(&mut self, issuer: &str, document: Result<String, String>) {
        let read = document
            .map_err(IssuerProblem::MissingConfigMap)
            .and_then(|document| {
                published_keys(document.as_bytes(), &Algorithm::ALL)
                    .map_err(|error| IssuerProblem::Unusable(error.to_string()))
            });
        let standing = match read {
            Ok(published) => {
                self.given.insert(issuer.to_owned(), published.keys);
                IssuerStanding {
                    problem: None,
                    refused: published.refused,
                }
            }
            Err(problem) => IssuerStanding {
                problem: Some(problem),
                refused: Vec::new(),
            },
        };
        self.standings.insert(issuer.to_owned(), standing);
    }
}

/// The `ConfigMap`s that a chain's foreign issuers name.
pub(super) fn config_maps(chain: &ValidatedChain) -> BTreeSet<String> {
    let keys = chain.issuers.iter().filter_map(|issuer| match &issuer.kind {
        IssuerKind::Managed(_) => None,
        IssuerKind::External(external) => external.ca_bundle.as_ref(),
        IssuerKind::Static(fixed) => Some(&fixed.jwks),
    });
    keys.map(|key| key.name.clone()).collect()
}

/// What is said of one that is not there.
pub(super) fn missing(key: &ObjectKey, has_map: bool) -> String {
    let ObjectKey { name, key } = key;
    if has_map {
        format!("ConfigMap {name} has no key {key}; add it")
    } else {
        format!("ConfigMap {name} does not exist; create it with the key {key}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use servicechain_keys::SigningKey;

    use super::*;

    fn chain() -> ValidatedChain {
        let chain = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [
                    {"name": "corp", "external": {
                        "url": "https://idp.example.com",
                        "caBundle": {"configMapKeyRef": {"name": "corp-ca", "key": "ca.crt"}},
                    }},
                    {"name": "partner", "static": {
                        "url": "https://partner.example.com",
                        "jwks": {"configMapKeyRef": {"name": "partner-jwks", "key": "jwks.json"}},
                    }},
                ],
                "gateway": {"routes": [{"name": "items", "service": "a"}]},
                "services": [{"name": "a", "database": {"managed": {}}}],
            },
        });
        servicechain_crds::read(&chain.to_string()).unwrap()
    }

    fn good() -> Value {
        serde_json::to_value(SigningKey::generate(Algorithm::ES256).unwrap().public_jwk()).unwrap()
    }

    fn partner(document: &str) -> Foreign {
        Foreign::new(&chain(), |key| match key.name.as_str() {
            "partner-jwks" => Ok(document.to_owned()),
            _ => Err(missing(key, false)),
        })
    }

    #[test]
    fn a_given_key_set_is_used_but_for_its_odd_keys() {
        let set = json!({"keys": [good(), {"kty": "oct", "k": "AAAA"}]});
        let foreign = partner(&set.to_string());
        assert_eq!(foreign.given["partner"].len(), 1);
        assert_eq!(
            foreign.standings["partner"],
            IssuerStanding {
                problem: None,
                refused: vec!["key 2 is left out: a symmetric key in a public key set".to_owned()],
            }
        );
    }

    #[test]
    fn a_config_map_that_is_missing_is_named_and_stops_nobody_else() {
        let set = json!({"keys": [good()]}).to_string();
        let foreign = partner(&set);
        assert!(foreign.given.contains_key("partner"));
        let says = "ConfigMap corp-ca does not exist; create it with the key ca.crt";
        assert_eq!(foreign.sources[0].ca_bundle, Err(says.to_owned()));

        let foreign = partner("no JSON");
        assert!(foreign.given.is_empty());
        let problem = foreign.standings["partner"].problem.as_ref();
        assert_eq!(
            problem.map(IssuerProblem::says),
            Some("its key set is no JWKS document")
        );
        let names: Vec<_> = config_maps(&chain()).into_iter().collect();
        assert_eq!(names, ["corp-ca", "partner-jwks"]);
    }
}
