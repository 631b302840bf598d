//! The kind cluster that `cargo xtask test e2e` made, as tests see it: what it says of itself, a client, a namespace of a
//! test's own, and the nodes' Docker engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::process::Command;

/// What `cargo xtask up` wrote of the cluster.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    /// Of 127.0.0.1; NodePort 30080.
    pub port: u16,
    pub kubeconfig: PathBuf,
    docker_host: Option<String>,
    images: BTreeMap<String, String>,
}

impl Cluster {
    /// The one that `SERVICECHAIN_CLUSTER` names.
    pub fn from_environment() -> anyhow::Result<Self> {
        let Some(path) = std::env::var_os("SERVICECHAIN_CLUSTER") else {
            bail!("SERVICECHAIN_CLUSTER is not set; run this through `cargo xtask test e2e`");
        };
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub async fn client(&self) -> anyhow::Result<Client> {
        client(self.kubeconfig.clone()).await
    }

    /// The image of one of our programs or databases.
    pub fn image(&self, name: &str) -> anyhow::Result<&str> {
        self.images
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("the cluster has no image of {name}"))
    }

    /// What `docker ARGUMENTS` prints, standard error included, talking to the engine of the nodes.
    pub async fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
        let mut command = Command::from(self.docker_command());
        command.args(arguments).kill_on_drop(true);
        let output = command.output().await.context("cannot run docker")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if !output.status.success() {
            bail!("{said} ({})", output.status);
        }
        Ok(said)
    }

    /// Removes a container and its volumes, without waiting for anything but that.
    pub fn remove_container(&self, id: &str) {
        // A container that stays goes with its engine.
        let _ = self
            .docker_command()
            .args(["rm", "--force", "--volumes", id])
            .output();
    }

    fn docker_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new("docker");
        command
            .stdin(Stdio::null())
            .envs(self.docker_host.as_ref().map(|host| ("DOCKER_HOST", host)));
        command
    }
}

/// A client of the server that a kubeconfig names.
pub async fn client(kubeconfig: PathBuf) -> anyhow::Result<Client> {
    // Another crate of the same process may have chosen already, and then chose the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A namespace that no other test uses. It goes with its cluster.
pub async fn fresh_namespace(client: &Client) -> anyhow::Result<String> {
    let metadata = ObjectMeta {
        generate_name: Some("test-".to_owned()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    let created = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    created.metadata.name.context("a created namespace has a name")
}
