//! The path of a machine with Docker and a network: kind's published node image, and our programs compiled in a published
//! image with Rust in it. Databases come from their official images.

use anyhow::bail;

use crate::child;
use crate::cluster::Parts;
use crate::engine::Engine;
use crate::host;
use crate::program_image;
use crate::step::{Step, Workshop};
use crate::versions::Versions;

pub(crate) fn make(workshop: &mut Workshop, programs: &[&'static str]) -> anyhow::Result<Parts> {
    let versions = Versions::read()?;
    host::require_online_tools()?;
    let Some(engine) = Engine::find()? else {
        bail!("Docker is installed, but no engine answers; start it and run this again");
    };
    let folder = workshop
        .make(&programs_in_docker(&versions, programs), Some(&engine))?
        .folder;
    let mut images = program_image::make(workshop, &engine, &folder, programs)?;
    for (database, major) in [
        ("postgres", versions.postgres.major),
        ("redis", versions.redis.major),
    ] {
        let image = format!("{database}:{major}");
        workshop.act(&format!("{database}-image"), |cache| {
            let missing = engine.image_id(&image).is_none();
            if missing {
                child::run(
                    engine.docker().args(["pull", &image]),
                    database,
                    &cache.log(database),
                )?;
            }
            Ok(((), missing))
        })?;
        images.insert(database.to_owned(), image);
    }
    Ok(Parts {
        kind: "kind".into(),
        kubectl: "kubectl".into(),
        helm: "helm".into(),
        node_image: None,
        images,
        engine,
    })
}

/// The binaries, compiled in a container.
pub(crate) fn programs_in_docker(versions: &Versions, programs: &[&'static str]) -> Step {
    let mut step = program_image::programs(programs);
    step.script = "cluster/images/programs-in-docker.sh";
    step.sources.extend([
        "cluster/images/programs.Dockerfile".into(),
        "cluster/images/programs.sh".into(),
    ]);
    step.values.push(("BUILDER", versions.rust.builder_image.clone()));
    step
}
