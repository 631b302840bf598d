//! The chain that a cluster runs: as its object says it, or, where the operator refused that, as it was accepted
//! last. Which of them is the operator's own judgement.

use anyhow::anyhow;
use k8s_openapi::api::core::v1::ConfigMap;
use servicechain_crds::{ServiceChain, ServiceChainSpec, ValidatedChain};
use servicechain_operator::controller::accepted::{Accepted, judge};
use servicechain_operator::object_names::{ACCEPTED_KEY, accepted_config_map};

use crate::cluster::{Cluster, Question, Unanswered};
use crate::outcome::Failure;

pub(crate) async fn chain(cluster: &Cluster, chain: &ServiceChain) -> Result<ValidatedChain, Failure> {
    if let Accepted::Now(chain) = judge(chain, None) {
        return Ok(chain);
    }
    let name = chain.metadata.name.clone().unwrap_or_default();
    let question = Question {
        verb: "get",
        resource: "configmaps",
    };
    let map = accepted_config_map(&name);
    let kept = match cluster.ask(question, cluster.api::<ConfigMap>().get(&map)).await {
        Ok(map) => spec(&map),
        Err(Unanswered::NotFound(_)) => None,
        Err(other) => return Err(other.into()),
    };
    match judge(chain, kept.as_ref()) {
        Accepted::Now(chain) | Accepted::Before { chain, .. } => Ok(chain),
        Accepted::Never(mistakes) => Err(Failure::Failed(anyhow!(
            "{}",
            mistakes.about(&format!("chain {name}"))
        ))),
    }
}

fn spec(map: &ConfigMap) -> Option<ServiceChainSpec> {
    serde_json::from_str(map.data.as_ref()?.get(ACCEPTED_KEY)?).ok()
}
