//! The Helm charts, as helm renders them without a cluster. What must be true of them is in `tests/admit_charts.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::ListParams;
use kube::{Api, Client};
use servicechain_crds::{Revocation, ServiceChain};
use servicechain_fixtures::{await_condition, program};

/// Where the operator is installed in tests.
pub const NAMESPACE: &str = "servicechain-system";
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// The oldest Kubernetes that the charts are for.
const KUBERNETES: &str = "1.33.0";

/// The folder of a chart.
#[must_use]
pub fn chart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts").join(name)
}

/// Values files of the operator's chart that are rendered and compared, each with the file that holds the rendering.
pub fn cases() -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(chart("servicechain").join("tests"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.strip_suffix(".values.yaml") {
            cases.push((path.clone(), path.with_file_name(format!("{name}.rendered.yaml"))));
        }
    }
    cases.sort();
    Ok(cases)
}

/// The operator's objects with the values of a file.
pub fn render(values: &Path) -> anyhow::Result<String> {
    let values = values.to_str().context("the path of a values file is text")?;
    let chart = chart("servicechain");
    let chart = chart.to_str().context("the path of a chart is text")?;
    helm([
        "template",
        "servicechain",
        chart,
        "--namespace",
        NAMESPACE,
        "--kube-version",
        KUBERNETES,
        "--values",
        values,
    ])
}

/// Waits until the API server serves both kinds, which it does a moment after their CRDs were created.
pub async fn crds_are_served(client: &Client) -> anyhow::Result<()> {
    await_condition("both CRDs to be served", SERVED_WITHIN, async || {
        let chains = Api::<ServiceChain>::all(client.clone());
        let revocations = Api::<Revocation>::all(client.clone());
        let all = ListParams::default();
        let listed = tokio::try_join!(chains.list(&all), revocations.list(&all));
        listed.map(|_| ()).map_err(|error| error.to_string())
    })
    .await
}

/// What helm prints; what it complains of is the error.
pub fn helm<'a>(arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let output = Command::new(program("helm")?)
        .args(arguments)
        .output()
        .context("cannot run helm")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
