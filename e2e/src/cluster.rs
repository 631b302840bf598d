//! The kind cluster that `cargo xtask test e2e` made, as tests see it: what it says of itself, a client, a namespace of a
//! test's own, and the nodes' Docker engine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use servicechain_fixtures::{await_condition, await_condition_blocking};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What `cargo xtask up` wrote of the cluster.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    /// Of 127.0.0.1; NodePort 30080.
    pub port: u16,
    /// By NodePort, the port of 127.0.0.1 that leads to it.
    pub node_ports: BTreeMap<u16, u16>,
    pub kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    docker_host: Option<String>,
    images: BTreeMap<String, String>,
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "servicechain-system";

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
        what_it_says(&[output.stdout.as_slice(), &output.stderr].concat(), &output)
    }

    /// What `kubectl ARGUMENTS` prints.
    pub async fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
        self.run(&self.kubectl, arguments, "").await
    }

    /// What `kubectl apply` says of a manifest.
    pub async fn apply(&self, manifest: &serde_json::Value) -> anyhow::Result<String> {
        let arguments = ["apply", "--filename", "-"];
        self.run(&self.kubectl, arguments, &manifest.to_string()).await
    }

    /// What `helm ARGUMENTS` prints, in the operator's namespace.
    pub async fn helm<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
        let arguments = ["--namespace", OPERATOR_NAMESPACE].into_iter().chain(arguments);
        self.run(&self.helm, arguments, "").await
    }

    /// What our own command line says, built beside the tests; `Err` has what it says of a failure.
    pub async fn servicechain<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<String> {
        self.run(&servicechain()?, arguments, "").await
    }

    /// What a script for `sh` prints that stops at the first failure: commands as documentation prints them.
    pub async fn shell(&self, script: &str, folder: &Path) -> anyhow::Result<String> {
        let known = std::env::var_os("PATH").unwrap_or_default();
        let tools = [self.kubectl.parent(), self.helm.parent()];
        let tools = tools.into_iter().flatten().map(Path::to_owned);
        let path = std::env::join_paths(tools.chain(std::env::split_paths(&known)))?;
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(folder)
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .kill_on_drop(true);
        let output = command.output().await.context("cannot run sh")?;
        what_it_says(&output.stdout, &output)
    }

    async fn run<'a>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        input: &str,
    ) -> anyhow::Result<String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut stdin = child.stdin.take().context("a piped child has a standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        what_it_says(&output.stdout, &output)
    }

    /// Has a namespace deleted, without waiting for it.
    pub fn begin_to_remove_namespace(&self, name: &str) {
        // What stays goes with its cluster.
        let _ = std::process::Command::new(&self.kubectl)
            .args(["delete", "namespace", name, "--wait=false"])
            .env("KUBECONFIG", &self.kubeconfig)
            .output();
    }

    /// Ends a pod's container at once, as a crash would, without Kubernetes knowing of it beforehand.
    pub async fn kill_container(&self, pod: &Pod, container: &str) -> anyhow::Result<()> {
        self.signal_container(pod, container, "SIGKILL").await
    }

    /// Sends a signal to the first process of a pod's container.
    pub async fn signal_container(&self, pod: &Pod, container: &str, signal: &str) -> anyhow::Result<()> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.context("the pod has no node")?;
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_deref());
        let id = statuses
            .unwrap_or_default()
            .iter()
            .find(|status| status.name == container)
            .and_then(|status| status.container_id.as_deref()?.strip_prefix("containerd://"))
            .with_context(|| format!("the pod runs no container {container}"))?;
        let kill = ["tasks", "kill", "--signal", signal, id];
        self.docker(
            ["exec", node, "ctr", "--namespace", "k8s.io"]
                .into_iter()
                .chain(kill),
        )
        .await?;
        Ok(())
    }

    /// For whoever cannot wait for anything else: runs `back` on a node, and, once the API server answers, has so many
    /// operators again.
    pub fn end_outage(&self, node: &str, back: &str, operators: usize, within: Duration) {
        // What stays away goes with its cluster.
        let _ = self
            .docker_command()
            .args(["exec", node, "sh", "-c", back])
            .output();
        let scale = format!("--replicas={operators}");
        let _ = await_condition_blocking("the API server to be back", within, || {
            let output = std::process::Command::new(&self.kubectl)
                .args([
                    "--namespace",
                    OPERATOR_NAMESPACE,
                    "scale",
                    "deployment/servicechain-operator",
                    &scale,
                ])
                .env("KUBECONFIG", &self.kubeconfig)
                .output()?;
            if output.status.success() {
                return Ok(());
            }
            Err(std::io::Error::other("it does not answer"))
        });
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

fn what_it_says(said: &[u8], output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        let both = [output.stdout.as_slice(), &output.stderr].concat();
        bail!("{} ({})", String::from_utf8_lossy(&both).trim(), output.status);
    }
    Ok(String::from_utf8_lossy(said).trim().to_owned())
}

/// Our own command line, which `cargo xtask test` builds beside the tests.
pub fn servicechain() -> anyhow::Result<PathBuf> {
    let tests = std::env::current_exe()?;
    let folder = tests
        .parent()
        .and_then(Path::parent)
        .context("a test lies in a folder")?;
    Ok(folder.join("servicechain"))
}

/// A client of the server that a kubeconfig names.
pub async fn client(kubeconfig: PathBuf) -> anyhow::Result<Client> {
    // Another crate of the same process may have chosen already, and then chose the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// [`await_condition`] for what an API server has to be asked: looks a few times a second, to leave it time for its work.
pub async fn await_seen<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    await_condition(what, deadline, async || {
        looks.tick().await;
        condition().await
    })
    .await
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
