//! `cargo xtask down`: removes a cluster and ends the engine if it was ours and nothing else is on it.

use clap::Args;

use crate::cache::Cache;
use crate::cluster;
use crate::engine::Engine;
use crate::terminal::{print, say};
use crate::up::ClusterName;

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterName,
}

pub(crate) fn run(args: &DownArgs) -> anyhow::Result<()> {
    let cache = Cache::open()?;
    let name = &args.cluster.name;
    let _lock = cache.lock(&format!("cluster-{name}"))?;
    let removed = match Engine::find() {
        Ok(Some(engine)) => cluster::remove(&cache, &engine, name)?,
        Ok(None) => cluster::forget(&cache, name)?,
        // Its data is gone, and the cluster with it.
        Err(error) => {
            say(error);
            cluster::forget(&cache, name)?
        }
    };
    let stopped = Engine::stop_if_idle(&cache)?;
    print(match (removed, stopped) {
        (true, true) => {
            format!("cluster {name} is removed, and the Docker engine that was started for it has ended")
        }
        (true, false) => format!("cluster {name} is removed"),
        (false, true) => {
            format!("there was no cluster {name}; the Docker engine that was started here has ended")
        }
        (false, false) => format!("there is no cluster {name}; nothing was changed"),
    });
    Ok(())
}
