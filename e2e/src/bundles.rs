//! Every key bundle that a chain's `ConfigMap` holds while somebody looks. One generation has one content (I1), and none
//! is lower than what was there: whatever operators did, their own chain of bundles shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A watch of the bundles; it ends when it is dropped.
#[derive(Debug)]
pub struct Bundles {
    generation: watch::Receiver<u64>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    by_generation: BTreeMap<u64, String>,
    faults: Vec<String>,
}

impl Bundles {
    #[must_use]
    pub fn watch(maps: Api<ConfigMap>, name: &str) -> Self {
        let (sender, generation) = watch::channel(0);
        let seen = Arc::<Mutex<Seen>>::default();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut maps = watcher(maps, config).default_backoff().applied_objects().boxed();
            while let Some(map) = maps.next().await {
                // The watcher begins again by itself.
                let Ok(map) = map else { continue };
                let bundle = map
                    .data
                    .and_then(|mut data| data.remove("bundle.jws"))
                    .unwrap_or_default();
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                match generation_of(&bundle) {
                    Ok(generation) => {
                        noted.note(generation, &bundle);
                        sender.send_replace(generation);
                    }
                    Err(error) => noted.faults.push(format!("{error:#}")),
                }
            }
        });
        Self {
            generation,
            seen,
            task,
        }
    }

    /// The newest generation seen; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Waits for a generation above `generation`.
    pub async fn await_above(&self, generation: u64, deadline: Duration) -> anyhow::Result<u64> {
        let mut newest = self.generation.clone();
        let above = tokio::time::timeout(deadline, newest.wait_for(|newest| *newest > generation)).await;
        let above = above.with_context(|| format!("no generation above {generation} within {deadline:?}"))?;
        Ok(*above?)
    }

    /// How many generations there were. Any fault is an error.
    pub fn audit(&self) -> anyhow::Result<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.faults.is_empty() {
            bail!("{}", seen.faults.join("; "));
        }
        Ok(seen.by_generation.len())
    }
}

impl Seen {
    fn note(&mut self, generation: u64, bundle: &str) {
        let newest = self.by_generation.keys().next_back().copied();
        if newest.is_some_and(|newest| generation < newest) {
            self.faults
                .push(format!("generation {generation} came after {newest:?}"));
        }
        let known = self
            .by_generation
            .entry(generation)
            .or_insert_with(|| bundle.to_owned());
        if *known != bundle {
            self.faults
                .push(format!("generation {generation} has two contents"));
        }
    }
}

/// By its header, which whoever signs vouches for.
fn generation_of(bundle: &str) -> anyhow::Result<u64> {
    let header = bundle.split('.').next().unwrap_or_default();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    header["gen"].as_u64().context("a bundle has a generation")
}

impl Drop for Bundles {
    fn drop(&mut self) {
        self.task.abort();
    }
}
