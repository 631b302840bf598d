//! `cargo xtask images`: our programs' images, and pushing them.

use clap::Args;

use crate::cache::Cache;
use crate::child;
use crate::engine::Engine;
use crate::program_image::{self, PROGRAMS};
use crate::step::Workshop;
use crate::terminal::print;
use crate::versions::Versions;
use crate::{host, online};

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Push them as PREFIX/NAME:TAG, for example to registry.example.com/team. `docker login` comes before.
    #[arg(long, value_name = "PREFIX")]
    push: Option<String>,
}

pub(crate) fn run(args: &ImagesArgs) -> anyhow::Result<()> {
    let mut workshop = Workshop::new(Cache::open()?);
    if Engine::find()?.is_none() {
        workshop.act("packages", |cache| Ok(((), host::prepare_airgap(cache)?)))?;
    }
    let engine = workshop.act("engine", Engine::find_or_start)?;
    let step = if cfg!(target_os = "linux") {
        program_image::programs(&PROGRAMS)
    } else {
        online::programs_in_docker(&Versions::read()?, &PROGRAMS)
    };
    let folder = workshop.make(&step, Some(&engine))?.folder;
    let images = program_image::make(&mut workshop, &engine, &folder, &PROGRAMS)?;
    for image in images.values() {
        let Some(prefix) = &args.push else {
            print(image);
            continue;
        };
        let name = image.strip_prefix("servicechain/").unwrap_or(image);
        let pushed = format!("{}/{name}", prefix.trim_end_matches('/'));
        child::answer(engine.docker().args(["tag", image, &pushed]))?;
        workshop.act(&format!("push {name}"), |cache| {
            child::run(
                engine.docker().args(["push", &pushed]),
                "push",
                &cache.log("push"),
            )?;
            Ok(((), true))
        })?;
        print(pushed);
    }
    print(workshop.finish("servicechain images").0);
    Ok(())
}
