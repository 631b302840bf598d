//! The operator as its chart installs it: its pods, which of them leads, and the deployment scaled to nothing and back.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::ListParams;

use crate::cluster::{Cluster, OPERATOR_NAMESPACE, await_seen};

const OPERATOR: &str = "deployment/servicechain-operator";
const LEASE: &str = "servicechain-operator";
pub const CONTAINER: &str = "operator";
const WITHIN: Duration = Duration::from_mins(3);

pub async fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let labels = ListParams::default().labels("app.kubernetes.io/name=servicechain-operator");
    let pods = Api::<Pod>::namespaced(cluster.client().await?, OPERATOR_NAMESPACE);
    Ok(pods.list(&labels).await?.items)
}

/// The pod that holds the lease.
pub async fn leader(cluster: &Cluster) -> anyhow::Result<Pod> {
    let leases = Api::<Lease>::namespaced(cluster.client().await?, OPERATOR_NAMESPACE);
    let holder = leases
        .get(LEASE)
        .await?
        .spec
        .and_then(|spec| spec.holder_identity);
    let holder = holder.context("nobody holds the lease")?;
    // Who holds it, and where that one is knocked at.
    let name = holder.split('_').next().unwrap_or_default();
    let pods = pods(cluster).await?;
    let leader = pods
        .into_iter()
        .find(|pod| pod.metadata.name.as_deref() == Some(name));
    leader.with_context(|| format!("{holder} holds the lease and is no pod"))
}

/// Waits until another pod than `pod` holds the lease.
pub async fn await_another_leader(cluster: &Cluster, pod: &Pod) -> anyhow::Result<Pod> {
    await_seen("another operator to lead", WITHIN, async || {
        let leader = leader(cluster).await.map_err(|error| format!("{error:#}"))?;
        if leader.metadata.uid == pod.metadata.uid {
            return Err("the same".to_owned());
        }
        Ok(leader)
    })
    .await
}

/// Waits until the operator's container in `pod` is another than it was, and ready.
pub async fn await_restart(cluster: &Cluster, pod: &Pod) -> anyhow::Result<()> {
    let before = container(pod).and_then(|status| status.container_id.clone());
    await_seen("the operator's container to be there again", WITHIN, async || {
        let pods = pods(cluster).await.map_err(|error| format!("{error:#}"))?;
        let mut pods = pods.iter();
        let same = pods.find(|found| found.metadata.uid == pod.metadata.uid);
        let status = same.and_then(container).ok_or("the pod is gone")?;
        if status.ready && status.container_id != before {
            Ok(())
        } else {
            Err(format!("{:?}, ready: {}", status.state, status.ready))
        }
    })
    .await
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

/// Waits until there are so many pods, and they are ready.
pub async fn scale(cluster: &Cluster, replicas: usize) -> anyhow::Result<()> {
    let namespace = ["--namespace", OPERATOR_NAMESPACE];
    let flag = format!("--replicas={replicas}");
    cluster
        .kubectl(namespace.into_iter().chain(["scale", OPERATOR, &flag]))
        .await?;
    await_seen(&format!("{replicas} pods of the operator"), WITHIN, async || {
        let pods = pods(cluster).await.map_err(|error| format!("{error:#}"))?;
        if pods.len() == replicas {
            Ok(())
        } else {
            Err(format!("{} pods", pods.len()))
        }
    })
    .await?;
    if replicas > 0 {
        await_rollout(cluster).await?;
    }
    Ok(())
}

pub async fn await_rollout(cluster: &Cluster) -> anyhow::Result<String> {
    let namespace = ["--namespace", OPERATOR_NAMESPACE];
    let status = ["rollout", "status", OPERATOR, "--timeout=120s"];
    cluster.kubectl(namespace.into_iter().chain(status)).await
}
