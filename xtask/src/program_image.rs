//! The images of our own programs: static binaries, built once and tagged by what is in them, so that pods roll when a
//! program changed and only then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::step::{Step, Workshop, stamp};

/// The programs that run in a cluster; package `servicechain-NAME`, image `servicechain/NAME`.
pub(crate) const PROGRAMS: [&str; 4] = ["operator", "gateway", "item-service", "token-issuer"];
/// `servicechain` itself, for who uses a cluster.
pub(crate) const CLI: &str = "cli";
/// Looks at a cluster from inside of it; only the end-to-end tests want it.
pub(crate) const PROBE: &str = "probe";

/// What the programs are compiled from.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "crds",
    "keys",
    "operator",
    "services",
];
/// What the command line is compiled from besides.
const CLI_SOURCES: [&str; 2] = ["cli", "examples"];
const PROBE_SOURCES: [&str; 2] = ["rust-toolchain.toml", "e2e/probe"];

/// The binaries, compiled on this machine.
pub(crate) fn programs(programs: &[&'static str]) -> Step {
    let mut step = Step {
        name: "programs".to_owned(),
        script: "cluster/images/programs.sh",
        sources: SOURCES.map(PathBuf::from).to_vec(),
        values: vec![("PROGRAMS", programs.join(" "))],
        files: programs
            .iter()
            .copied()
            .chain(["ca-certificates.crt"])
            .map(str::to_owned)
            .collect(),
        gibibytes: 4,
        ..Step::default()
    };
    if programs == [CLI] {
        CLI.clone_into(&mut step.name);
        step.sources.extend(CLI_SOURCES.map(PathBuf::from));
    }
    if programs == [PROBE] {
        PROBE.clone_into(&mut step.name);
        step.sources = PROBE_SOURCES.map(PathBuf::from).to_vec();
    }
    step
}

/// An image for each program whose binary is in `folder`, by program.
pub(crate) fn make(
    workshop: &mut Workshop,
    engine: &Engine,
    folder: &Path,
    programs: &[&str],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut images = BTreeMap::new();
    for program in programs {
        let step = Step {
            name: format!("{program}-image"),
            script: "cluster/images/program-image.sh",
            sources: vec!["cluster/images/Dockerfile".into()],
            values: vec![
                ("PROGRAM", (*program).to_owned()),
                ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
                ("PROGRAM_SHA256", stamp::sha256(&folder.join(program))?),
                (
                    "CERTIFICATES_SHA256",
                    stamp::sha256(&folder.join("ca-certificates.crt"))?,
                ),
            ],
            places: vec![("PROGRAMS_BIN", folder.to_owned())],
            image: Some(format!("servicechain/{program}:{}", env!("CARGO_PKG_VERSION"))),
            gibibytes: 1,
            ..Step::default()
        };
        let made = workshop.make(&step, Some(engine))?;
        images.insert((*program).to_owned(), made.image.unwrap_or_default());
    }
    Ok(images)
}
