//! From a validated chain to what its key bundle must say. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::{SigningAlgorithm, VerificationAlgorithm};
use servicechain_crds::validated::{Issuer, IssuerKind, ManagedIssuer};
use servicechain_keys::rotation::{Desired, DesiredIssuer, KeySource};
use servicechain_keys::{Algorithm, ChainId, Jwk, NumericDate, Policy, RequiredClaim, Revocation};

/// `chain` is the uid of the `ServiceChain`; `given` are the keys of its static issuers, by name. External issuers have no
/// answer yet.
#[must_use]
pub fn desired(
    spec: &ValidatedChain,
    chain: ChainId,
    revocations: Vec<Revocation>,
    rotate_keys_before: Option<NumericDate>,
    given: &BTreeMap<String, Vec<Jwk>>,
) -> Desired {
    let policy = &spec.token_policy;
    Desired {
        chain,
        policy: Policy {
            clock_skew: policy.clock_skew,
            max_token_bytes: policy.max_token_bytes,
            max_token_lifetime: policy.max_token_lifetime,
            required_claims: policy
                .required_claims
                .iter()
                .map(|claim| RequiredClaim {
                    name: claim.name.clone(),
                    values: claim.values.clone(),
                })
                .collect(),
        },
        issuers: spec.issuers.iter().map(|one| issuer(one, spec, given)).collect(),
        revocations,
        rotate_keys_before,
    }
}

fn issuer(issuer: &Issuer, spec: &ValidatedChain, given: &BTreeMap<String, Vec<Jwk>>) -> DesiredIssuer {
    let withdrawn_key_grace = spec.key_distribution.withdrawn_key_grace;
    DesiredIssuer {
        name: issuer.name.clone(),
        iss: issuer.url.clone(),
        audiences: issuer.audiences.clone(),
        token_types: issuer.token_types.clone(),
        scopes_claim: issuer.scopes_claim.clone(),
        max_token_lifetime: None,
        keys: match &issuer.kind {
            IssuerKind::Managed(managed) => made(managed),
            IssuerKind::External(_) => KeySource::External {
                answer: None,
                withdrawn_key_grace,
            },
            IssuerKind::Static(_) => KeySource::Static {
                keys: given.get(&issuer.name).cloned().unwrap_or_default(),
                withdrawn_key_grace,
            },
        },
    }
}

fn made(managed: &ManagedIssuer) -> KeySource {
    KeySource::Managed {
        algorithm: match managed.algorithm {
            SigningAlgorithm::ES256 => Algorithm::ES256,
            SigningAlgorithm::RS256 => Algorithm::RS256,
            SigningAlgorithm::EdDSA => Algorithm::EdDSA,
        },
        token_lifetime: managed.token_lifetime,
        rotation_period: managed.rotation_period,
        // Who verifies is known and has answered before a key signs; nobody else needs a head start.
        publish_ahead: Duration::ZERO,
    }
}

/// The algorithms that an external issuer may use.
pub(super) fn allowed(algorithms: &[VerificationAlgorithm]) -> Vec<Algorithm> {
    let allowed = algorithms.iter().map(|algorithm| match algorithm {
        VerificationAlgorithm::ES256 => Algorithm::ES256,
        VerificationAlgorithm::ES384 => Algorithm::ES384,
        VerificationAlgorithm::RS256 => Algorithm::RS256,
        VerificationAlgorithm::RS384 => Algorithm::RS384,
        VerificationAlgorithm::RS512 => Algorithm::RS512,
        VerificationAlgorithm::PS256 => Algorithm::PS256,
        VerificationAlgorithm::PS384 => Algorithm::PS384,
        VerificationAlgorithm::PS512 => Algorithm::PS512,
        VerificationAlgorithm::EdDSA => Algorithm::EdDSA,
    });
    allowed.collect()
}
