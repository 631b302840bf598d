//! `cargo xtask status`: what is there. Changes nothing.

use crate::cache::Cache;
use crate::child;
use crate::cluster::Record;
use crate::engine::Engine;
use crate::terminal::print;

pub(crate) fn run() -> anyhow::Result<()> {
    let cache = Cache::open()?;
    print(format_args!("cache    {}", cache.root().display()));
    let engine = Engine::find()?;
    print(match &engine {
        None => "engine   no Docker engine answers".to_owned(),
        Some(engine) => match engine.environment() {
            Some((_, host)) => format!("engine   ours, {host}"),
            None => "engine   the one of this machine".to_owned(),
        },
    });
    let mut names: Vec<String> = std::fs::read_dir(cache.root().join("clusters"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    if names.is_empty() {
        print("clusters none; `cargo xtask up` makes one");
    }
    for name in names {
        let nodes = engine
            .as_ref()
            .map(|engine| engine.nodes(&name))
            .transpose()?
            .unwrap_or_default();
        let state = if nodes.is_empty() {
            "no nodes".to_owned()
        } else {
            nodes
                .iter()
                .map(|(node, state)| format!("{node} {state}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match Record::read(&cache, &name) {
            None => print(format_args!(
                "cluster  {name} · half made ({state}); `up` makes it anew, `down` removes it"
            )),
            Some(record) => {
                print(format_args!(
                    "cluster  {name} · {state} · http://127.0.0.1:{}",
                    record.port
                ));
                print(format_args!(
                    "         export KUBECONFIG={}",
                    record.kubeconfig.display()
                ));
                for chain in chains(&record) {
                    print(format_args!("         chain {chain}"));
                }
                for image in record.images.values() {
                    print(format_args!("         image {image}"));
                }
            }
        }
    }
    Ok(())
}

/// One line for each chain: what its printer columns say. Nothing where nobody answers.
fn chains(record: &Record) -> Vec<String> {
    let get = [
        "get",
        "servicechains",
        "--all-namespaces",
        "--no-headers",
        "--request-timeout=3s",
    ];
    let said = child::ask(record.kubectl().args(get)).unwrap_or_default();
    said.lines().map(str::to_owned).collect()
}
