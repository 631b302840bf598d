//! Whether a knock may be answered: by a reading of the `ConfigMap`'s version and of the pods that began after the knock
//! came (ADR 3, rule 3). Who knocks while one reads shares the next reading, so a chain that starts as a whole costs no
//! more than one pod.

use std::sync::Arc;

use servicechain_keys::{HeldBundle, PodId, Workload};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Pod;
use super::bundle_file::BundleFile;
use super::evidence::Evidence;
use super::place::{Cluster, PlaceError};

pub(super) struct Witness {
    watched: Watched,
    evidence: Arc<Evidence>,
    last: Mutex<Option<Arc<Reading>>>,
}

/// What is read.
pub(super) enum Watched {
    Cluster(Box<Cluster>),
    /// The file and the pods of this machine.
    Local {
        store: BundleFile,
        pods: watch::Receiver<Vec<Pod>>,
    },
}

struct Reading {
    begun: Instant,
    version: Option<String>,
    pods: Vec<Pod>,
}

/// A pod that may be told the newest generation.
#[derive(Debug)]
pub(super) struct Witnessed {
    pub newest: Arc<HeldBundle>,
    pub pod: Pod,
}

/// Why a knock is not answered yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotYet {
    #[error("what is so now cannot be read")]
    Place(#[from] PlaceError),
    #[error("the API server does not show that this pod of that workload runs")]
    NotListed,
    #[error("the pod was silent for so long that no key waits for it; it is asked again")]
    LeftOut,
    #[error("not every pod was asked yet whether it holds newer keys")]
    NotSettled,
}

impl Witness {
    pub(super) fn new(watched: Watched, evidence: Arc<Evidence>) -> Self {
        Self {
            watched,
            evidence,
            last: Mutex::default(),
        }
    }

    /// By a reading that begins now or later.
    pub(super) async fn testify(&self, pod: &PodId, workload: &Workload) -> Result<Witnessed, NotYet> {
        let reading = self.read_after(Instant::now()).await?;
        let mut pods = reading.pods.iter();
        let pod = pods
            .find(|listed| listed.listed.pod == *pod && listed.workload == *workload)
            .filter(|pod| pod.listed.addressed && pod.listed.runs && !pod.listed.ended)
            .ok_or(NotYet::NotListed)?;
        let known = self.evidence.lock();
        if !known.memory.counts(&pod.listed, self.evidence.started.elapsed()) {
            return Err(NotYet::LeftOut);
        }
        let version = reading.version.as_deref().ok_or(NotYet::NotSettled)?;
        let newest = known.settled_at(version).ok_or(NotYet::NotSettled)?;
        Ok(Witnessed {
            newest: Arc::clone(newest),
            pod: pod.clone(),
        })
    }

    /// One at a time: who waits meanwhile came before the next one begins, and takes that.
    async fn read_after(&self, arrived: Instant) -> Result<Arc<Reading>, PlaceError> {
        let mut last = self.last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.begun >= arrived) {
            return Ok(Arc::clone(reading));
        }
        let begun = Instant::now();
        let (version, pods) = match &self.watched {
            Watched::Cluster(cluster) => tokio::try_join!(cluster.store().version(), cluster.pods().list())?,
            Watched::Local { store, pods } => {
                let store = store.clone();
                let stored = tokio::task::spawn_blocking(move || store.read()).await??;
                (stored.map(|stored| stored.version), pods.borrow().clone())
            }
        };
        let reading = Arc::new(Reading { begun, version, pods });
        *last = Some(Arc::clone(&reading));
        Ok(reading)
    }
}
