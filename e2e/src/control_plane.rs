//! The cluster's control plane, taken away and given back: API server, controllers and scheduler are static pods of the
//! first node, so they come and go with their manifests. Pods run on, and their nodes start their containers again.

use std::time::Duration;

use crate::cluster::{Cluster, await_seen};
use crate::installed;

const AWAY: &str = "mkdir -p /etc/kubernetes/away && cd /etc/kubernetes/manifests && \
                    mv kube-apiserver.yaml kube-controller-manager.yaml kube-scheduler.yaml ../away/";
const BACK: &str = "cd /etc/kubernetes/away && for file in kube-*.yaml; do \
                    if [ -e $file ]; then mv $file ../manifests/; fi; done";
/// A kubelet looks at its manifests every 20 s; the rest is for a machine that others use too.
const WITHIN: Duration = Duration::from_mins(3);
/// Of the operator, as the chart has it.
const OPERATORS: usize = 2;

/// Neither operator nor control plane. Dropped early, as a failing test does, it gives them back all the same, for the
/// tests that follow.
#[derive(Debug)]
pub struct Outage<'a> {
    cluster: &'a Cluster,
    is_over: bool,
}

impl<'a> Outage<'a> {
    pub async fn begin(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let outage = Self {
            cluster,
            is_over: false,
        };
        installed::scale(cluster, 0).await?;
        cluster.docker(["exec", &outage.node(), "sh", "-c", AWAY]).await?;
        await_seen("the API server to be gone", WITHIN, async || {
            match outage.ask().await {
                Ok(_) => Err("it answers still"),
                Err(_) => Ok(()),
            }
        })
        .await?;
        Ok(outage)
    }

    /// Waits until both are back and well.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.cluster
            .docker(["exec", &self.node(), "sh", "-c", BACK])
            .await?;
        await_seen("the API server to be back", WITHIN, async || {
            self.ask().await.map_err(|error| format!("{error:#}"))
        })
        .await?;
        installed::scale(self.cluster, OPERATORS).await?;
        self.is_over = true;
        Ok(())
    }

    async fn ask(&self) -> anyhow::Result<String> {
        self.cluster
            .kubectl(["get", "--raw=/readyz", "--request-timeout=2s"])
            .await
    }

    fn node(&self) -> String {
        format!("{}-control-plane", self.cluster.name)
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.cluster.end_outage(&self.node(), BACK, OPERATORS, WITHIN);
    }
}
