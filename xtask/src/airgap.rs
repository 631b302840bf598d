//! The path without an image registry: every step that makes a cluster's parts from Go modules and Debian's packages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cluster::Parts;
use crate::engine::Engine;
use crate::host;
use crate::program_image;
use crate::step::{Made, Step, Workshop};
use crate::versions::Versions;

/// Programs built by Go and everything else of the cluster come to this, once; each step asks for its own share.
const GO_GIBIBYTES: u64 = 6;
const IMAGE_GIBIBYTES: u64 = 4;

/// Everything a cluster is made of, with the images of `programs`. Slow builds come first.
pub(crate) fn make(workshop: &mut Workshop, programs: &[&'static str]) -> anyhow::Result<Parts> {
    let versions = Versions::read()?;
    workshop.act("packages", |cache| Ok(((), host::prepare_airgap(cache)?)))?;

    let api_server = workshop.make(&api_server(&versions), None)?;
    let kubernetes = workshop.make(&kubernetes(&versions), None)?;
    let kind = workshop.make(
        &go_tool("kind", "sigs.k8s.io/kind", "", &versions.kind.version),
        None,
    )?;
    let coredns = workshop.make(
        &go_tool(
            "coredns",
            "github.com/coredns/coredns",
            "",
            &versions.coredns.version,
        ),
        None,
    )?;
    let provisioner = "github.com/rancher/local-path-provisioner";
    let version = &versions.local_path_provisioner.version;
    let provisioner = workshop.make(&go_tool("local-path-provisioner", provisioner, "", version), None)?;
    let helm = workshop.make(&helm(&versions), None)?;

    let engine = workshop.act("engine", Engine::find_or_start)?;
    let base = workshop.make(&debian(&versions), Some(&engine))?;
    let base = base.image.unwrap_or_default();
    let control_plane = control_plane(&versions, &base, &api_server, &kubernetes, &coredns, &provisioner);
    let control_plane = workshop.make(&control_plane, Some(&engine))?;
    let node = workshop.make(
        &node(&versions, &base, &kubernetes, &control_plane),
        Some(&engine),
    )?;

    let mut images = BTreeMap::new();
    for (database, major) in [
        ("postgres", &versions.postgres.major),
        ("redis", &versions.redis.major),
    ] {
        let made = workshop.make(&database_image(database, major, &base), Some(&engine))?;
        images.insert(database.to_owned(), made.image.unwrap_or_default());
    }
    let folder = workshop.make(&program_image::programs(programs), None)?.folder;
    images.extend(program_image::make(workshop, &engine, &folder, programs)?);

    Ok(Parts {
        kind: kind.folder.join("kind"),
        kubectl: kubernetes.folder.join("kubectl"),
        helm: helm.folder.join("helm"),
        node_image: node.image,
        images,
        engine,
    })
}

/// etcd, kube-apiserver and kube-controller-manager: the first thing made, since the tests of controllers wait for it.
pub(crate) fn api_server(versions: &Versions) -> Step {
    Step {
        name: "api-server".to_owned(),
        script: "cluster/airgap/api-server.sh",
        sources: vec![
            "cluster/airgap/go-tool.sh".into(),
            "cluster/airgap/kubernetes.sh".into(),
        ],
        values: vec![
            ("ETCD_VERSION", versions.etcd.version.clone()),
            ("KUBERNETES_VERSION", versions.kubernetes.version.clone()),
        ],
        files: ["etcd", "kube-apiserver", "kube-controller-manager"]
            .map(str::to_owned)
            .to_vec(),
        gibibytes: GO_GIBIBYTES,
        ..Step::default()
    }
}

/// What runs on nodes, kubeadm and kubectl.
pub(crate) fn kubernetes(versions: &Versions) -> Step {
    let commands = ["kube-scheduler", "kubelet", "kube-proxy", "kubeadm", "kubectl"];
    Step {
        name: "kubernetes".to_owned(),
        script: "cluster/airgap/kubernetes.sh",
        values: vec![
            ("VERSION", versions.kubernetes.version.clone()),
            ("COMMANDS", commands.join(" ")),
        ],
        files: commands.map(str::to_owned).to_vec(),
        gibibytes: GO_GIBIBYTES,
        ..Step::default()
    }
}

pub(crate) fn helm(versions: &Versions) -> Step {
    go_tool("helm", "helm.sh/helm/v3", "/cmd/helm", &versions.helm.version)
}

/// `package` is below the module.
fn go_tool(name: &str, module: &str, package: &str, version: &str) -> Step {
    Step {
        name: name.to_owned(),
        script: "cluster/airgap/go-tool.sh",
        values: vec![
            ("NAME", name.to_owned()),
            ("PACKAGE", format!("{module}{package}")),
            ("MODULE", module.to_owned()),
            ("VERSION", format!("v{version}")),
        ],
        files: vec![name.to_owned()],
        gibibytes: GO_GIBIBYTES,
        ..Step::default()
    }
}

fn debian(versions: &Versions) -> Step {
    let suite = &versions.debian.suite;
    Step {
        name: "debian".to_owned(),
        script: "cluster/airgap/debian-base.sh",
        values: vec![("SUITE", suite.clone())],
        image: Some(format!("servicechain/debian:{suite}")),
        gibibytes: IMAGE_GIBIBYTES,
        ..Step::default()
    }
}

fn control_plane(
    versions: &Versions,
    base: &str,
    api_server: &Made,
    kubernetes: &Made,
    coredns: &Made,
    provisioner: &Made,
) -> Step {
    Step {
        name: "control-plane".to_owned(),
        script: "cluster/airgap/control-plane-images.sh",
        sources: vec![
            "cluster/airgap/node/tools.Dockerfile".into(),
            "cluster/airgap/node/pod-network".into(),
        ],
        values: vec![
            ("BASE", base.to_owned()),
            ("KUBERNETES_VERSION", versions.kubernetes.version.clone()),
            ("ETCD_TAG", versions.etcd.image_tag.clone()),
            ("COREDNS_TAG", versions.coredns.image_tag.clone()),
            ("PAUSE_TAG", versions.pause.image_tag.clone()),
            ("NODE_TOOLS", node_tools(versions)),
            ("LOCAL_PATH_PROVISIONER", provisioner_image(versions)),
        ],
        results: vec![
            ("API_SERVER_BIN", api_server.folder.clone()),
            ("KUBERNETES_BIN", kubernetes.folder.clone()),
            ("COREDNS_BIN", coredns.folder.clone()),
            ("LOCAL_PATH_PROVISIONER_BIN", provisioner.folder.clone()),
        ],
        files: vec!["images.tar".to_owned()],
        gibibytes: IMAGE_GIBIBYTES,
        ..Step::default()
    }
}

fn node(versions: &Versions, base: &str, kubernetes: &Made, control_plane: &Made) -> Step {
    let version = &versions.kubernetes.version;
    Step {
        name: "node".to_owned(),
        script: "cluster/airgap/node-image.sh",
        sources: ["Dockerfile", "pod-network.yaml", "storage.yaml"]
            .map(|file| PathBuf::from("cluster/airgap/node").join(file))
            .to_vec(),
        values: vec![
            ("BASE", base.to_owned()),
            ("KIND_VERSION", versions.kind.version.clone()),
            ("KUBERNETES_VERSION", version.clone()),
            ("PAUSE_TAG", versions.pause.image_tag.clone()),
            ("NODE_TOOLS", node_tools(versions)),
            ("LOCAL_PATH_PROVISIONER", provisioner_image(versions)),
        ],
        results: vec![
            ("KUBERNETES_BIN", kubernetes.folder.clone()),
            ("IMAGES", control_plane.folder.join("images.tar")),
        ],
        image: Some(format!("kindest/node:v{version}")),
        gibibytes: 2 * IMAGE_GIBIBYTES,
        ..Step::default()
    }
}

fn database_image(database: &str, major: &str, base: &str) -> Step {
    Step {
        name: format!("{database}-image"),
        script: "cluster/airgap/database-image.sh",
        sources: vec![PathBuf::from("cluster/images").join(database)],
        values: vec![
            ("BASE", base.to_owned()),
            ("FOLDER", database.to_owned()),
            ("MAJOR", major.to_owned()),
        ],
        image: Some(format!("servicechain/{database}:{major}")),
        gibibytes: 1,
        ..Step::default()
    }
}

fn node_tools(versions: &Versions) -> String {
    format!(
        "docker.io/servicechain/node-tools:v{}",
        versions.kubernetes.version
    )
}

fn provisioner_image(versions: &Versions) -> String {
    let version = &versions.local_path_provisioner.version;
    format!("docker.io/rancher/local-path-provisioner:v{version}")
}
