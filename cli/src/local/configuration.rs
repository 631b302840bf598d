//! What each part of the chain is told: the operator writes the very files that a pod would mount, and the parts
//! read them.

use servicechain_crds::ValidatedChain;
use servicechain_item_service as item_service;
use servicechain_keys::Digest;
use servicechain_operator::controller::build::configuration::{self, ClientSecret, Places};
use servicechain_token_issuer as token_issuer;

use super::addresses::Bound;
use super::stores::Stores;
use crate::running::RunningIssuer;

/// Issuers and services in the order of the chain.
pub(crate) struct Plan {
    pub gateway: servicechain_gateway::Config,
    pub issuers: Vec<token_issuer::Config>,
    pub services: Vec<item_service::Config>,
}

impl Places for Bound {
    fn service(&self, name: &str) -> String {
        self.url_of_service(name)
    }

    fn issuer(&self, name: &str) -> String {
        self.url_of_issuer(name)
    }
}

pub(crate) fn plan(
    chain: &ValidatedChain,
    bound: &Bound,
    clients: &[RunningIssuer],
    stores: &Stores,
) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        gateway: servicechain_gateway::Config::from_yaml(&configuration::gateway(chain, bound))?,
        issuers: Vec::new(),
        services: Vec::new(),
    };
    for ((issuer, managed), running) in chain.managed_issuers().zip(clients) {
        let secrets = running.clients.iter().map(|client| ClientSecret {
            client: client.id.clone(),
            sha256: Digest::of(client.secret.as_bytes())
                .to_string()
                .replace("sha256:", ""),
        });
        let yaml = configuration::issuer(issuer, managed, &secrets.collect::<Vec<_>>());
        plan.issuers.push(token_issuer::Config::from_yaml(&yaml)?);
    }
    for (service, store) in chain.services.iter().zip(&stores.services) {
        let places = item_service::Places {
            database_url: store.database_url.clone(),
            redis_url: store.redis_url.clone(),
            next_hop_url: service.next.as_ref().map(|next| bound.url_of_service(next)),
        };
        plan.services.push(item_service::Config::from_yaml(
            &configuration::service(chain, service),
            &places,
        )?);
    }
    Ok(plan)
}
