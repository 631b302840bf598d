//! What the verifiers of a chain in a cluster go by: the chain as it is accepted, and the bundle of its ConfigMap,
//! believed only as far as the gateway's own pods would believe it.

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use servicechain_keys::{ChainId, Trust, TrustAnchor};
use servicechain_operator::object_names::{BUNDLE_KEY, Component, bundle_config_map, object};

use super::{Verifiers, open};
use crate::accepted;
use crate::cluster::{Cluster, Place, Question, Unanswered};
use crate::outcome::Failure;

/// What a pod is told whose signature makes a bundle authentic.
const TRUST_ANCHORS: &str = "TRUST_ANCHORS";

pub(super) async fn verifiers(place: &Place, name: &str) -> Result<Verifiers, Failure> {
    let cluster = Cluster::find(place).await?;
    let chain = cluster.chain_or_others(name).await?;
    let id = ChainId::new(chain.metadata.uid.clone().unwrap_or_default()).map_err(anyhow::Error::from)?;
    let trust = Trust::new(id, trust_anchors(&cluster, name).await?);
    let question = Question {
        verb: "get",
        resource: "configmaps",
    };
    let kept = bundle_config_map(name);
    let keys = cluster.ask(question, cluster.api::<ConfigMap>().get(&kept)).await;
    let keys = keys.map_err(|error| absent(error, "has no keys", name, &cluster))?;
    let bundle = keys
        .data
        .as_ref()
        .and_then(|data| data.get(BUNDLE_KEY))
        .with_context(|| format!("ConfigMap {kept} lacks {BUNDLE_KEY}"))?;
    Ok(Verifiers {
        bundle: open(bundle.as_bytes(), &trust, name)?,
        chain: accepted::chain(&cluster, &chain).await?,
    })
}

async fn trust_anchors(cluster: &Cluster, name: &str) -> Result<Vec<TrustAnchor>, Failure> {
    let question = Question {
        verb: "get",
        resource: "deployments.apps",
    };
    let gateway = object(name, Component::Gateway);
    let deployment = cluster
        .ask(question, cluster.api::<Deployment>().get(&gateway))
        .await;
    let deployment = deployment.map_err(|error| absent(error, "has no gateway", name, cluster))?;
    let pod = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .unwrap_or_default();
    let anchors = pod
        .containers
        .into_iter()
        .flat_map(|container| container.env.unwrap_or_default())
        .find(|variable| variable.name == TRUST_ANCHORS)
        .and_then(|variable| variable.value)
        .with_context(|| format!("Deployment {gateway} does not say whose bundles its pods trust"))?;
    let anchors = anchors.split(',').map(|anchor| anchor.trim().parse());
    Ok(anchors
        .collect::<Result<_, _>>()
        .with_context(|| format!("{TRUST_ANCHORS} of Deployment {gateway} cannot be read"))?)
}

/// What is not there yet is the operator's next work.
fn absent(error: Unanswered, lacks: &str, name: &str, cluster: &Cluster) -> Failure {
    match error {
        Unanswered::NotFound(_) => Failure::Failed(anyhow!(
            "chain {name} {lacks} yet; see `servicechain status -n {} {name}`",
            cluster.namespace
        )),
        other => other.into(),
    }
}
