//! What a validated chain becomes, one Kubernetes kind a file. Pure, infallible, and the same bytes for the same chain,
//! in the form in which the API server stores them, so that nothing differs that nobody changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use servicechain_crds::ValidatedChain;
use servicechain_keys::{ChainId, RootSecret, TrustAnchor};
use zeroize::Zeroizing;

use super::resources::{Prepared, Resources};
use crate::config::Settings;

pub mod configuration;

/// What a chain is built with beside itself.
pub struct Given<'a> {
    /// The chain, as its objects name it.
    pub owner: OwnerReference,
    /// The uid of the chain.
    pub chain_id: ChainId,
    /// One or two keys that may sign its bundles.
    pub anchors: &'a [TrustAnchor],
    pub root: &'a RootSecret,
    pub settings: &'a Settings,
    /// The Secrets of clients that exist and have both keys, by name.
    pub client_secrets: &'a BTreeMap<String, FoundClient>,
    /// Names of those [`store_secrets`](crate::object_names::store_secret) of databases that exist.
    pub store_secrets: &'a BTreeSet<String>,
    /// The recorded major version of each database whose claim exists, by service.
    pub majors: &'a BTreeMap<String, String>,
    /// 256 random bits in letters that need no escaping in a URL, in SQL or in redis.conf.
    pub new_password: &'a mut dyn FnMut() -> Zeroizing<String>,
}

/// What was read of a client's Secret. The secret itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundClient {
    pub id: String,
    /// SHA-256 of the client's secret, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// All objects of the chain.
#[must_use]
pub fn build(_chain: &ValidatedChain, _given: &mut Given<'_>) -> Resources<Prepared> {
    Resources::default()
}

impl fmt::Debug for Given<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Given")
            .field("chain_id", &self.chain_id)
            .field("store_secrets", &self.store_secrets)
            .field("majors", &self.majors)
            .finish_non_exhaustive()
    }
}

/// A digest of a secret that people chose is guessed from as the secret itself.
impl fmt::Debug for FoundClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FoundClient")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
