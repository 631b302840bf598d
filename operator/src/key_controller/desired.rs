//! From a validated chain to what its key bundle must say. Pure.

use std::time::Duration;

use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::SigningAlgorithm;
use servicechain_crds::validated::{Issuer, IssuerKind};
use servicechain_keys::rotation::{Desired, DesiredIssuer, KeySource};
use servicechain_keys::{Algorithm, ChainId, NumericDate, Policy, RequiredClaim, Revocation};

/// `chain` is the uid of the `ServiceChain`.
#[must_use]
pub fn desired(
    spec: &ValidatedChain,
    chain: ChainId,
    revocations: Vec<Revocation>,
    rotate_keys_before: Option<NumericDate>,
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
        issuers: spec.issuers.iter().map(issuer).collect(),
        revocations,
        rotate_keys_before,
    }
}

fn issuer(issuer: &Issuer) -> DesiredIssuer {
    let IssuerKind::Managed(managed) = &issuer.kind;
    DesiredIssuer {
        name: issuer.name.clone(),
        iss: issuer.url.clone(),
        audiences: issuer.audiences.clone(),
        token_types: issuer.token_types.clone(),
        scopes_claim: issuer.scopes_claim.clone(),
        max_token_lifetime: None,
        keys: KeySource::Managed {
            algorithm: match managed.algorithm {
                SigningAlgorithm::ES256 => Algorithm::ES256,
                SigningAlgorithm::RS256 => Algorithm::RS256,
                SigningAlgorithm::EdDSA => Algorithm::EdDSA,
            },
            token_lifetime: managed.token_lifetime,
            rotation_period: managed.rotation_period,
            // Who verifies is known and has answered before a key signs; nobody else needs a head start.
            publish_ahead: Duration::ZERO,
        },
    }
}
