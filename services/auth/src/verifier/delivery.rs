//! Takes bundles, from whoever delivers them: decides, swaps, makes durable. Anyone may deliver an authentic bundle
//! (key protocol, line 4); an older one never replaces a newer.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use servicechain_keys::bundle::MAX_BUNDLE_BYTES;
use servicechain_keys::{BundleRefusal, Held, HeldBundle, Outcome, Taken, take};

use super::Verifier;

const BUNDLE_NAME: &str = "bundle.jws";

/// What became of delivered bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// As the pod's answer says it.
    pub outcome: Outcome,
    /// Why it was refused.
    pub reason: Option<BundleRefusal>,
}

impl Delivered {
    const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            reason: None,
        }
    }

    pub(crate) const fn refused(reason: BundleRefusal) -> Self {
        Self {
            outcome: Outcome::Refused,
            reason: Some(reason),
        }
    }
}

impl Verifier {
    /// Takes a bundle that is newer than the one held, and returns when requests and what is open are judged by it and it
    /// is as durable as it will be. It goes on even if the returned future is dropped.
    pub async fn deliver(&self, bytes: Vec<u8>) -> Delivered {
        let Some(this) = self.this.upgrade() else {
            return Delivered::refused(BundleRefusal::Format);
        };
        // Signature, parsing and fsync take milliseconds: not on a thread that serves requests.
        let taken = tokio::task::spawn_blocking(move || this.deliver_blocking(&bytes)).await;
        self.followed().await;
        // The only other outcome is a runtime that is shutting down.
        taken.unwrap_or(Delivered::refused(BundleRefusal::Format))
    }

    /// Takes an authentic bundle from within the process, where nothing newer is held; nothing is made durable.
    pub fn hold(&self, bundle: Arc<HeldBundle>) {
        let _one_at_a_time = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if bundle.generation() > self.generation() {
            self.swap(bundle);
        }
    }

    /// What is held and whether it may be counted on: it would survive a restart of the container, and nothing that is
    /// open goes by an older one.
    pub(crate) fn held_durably(&self) -> (Option<Held>, bool) {
        let held = self.held();
        let counts = held
            .as_deref()
            .is_some_and(|bundle| self.is_durable(bundle) && self.is_followed(bundle.generation()));
        (held.as_deref().map(Held::from), counts)
    }

    fn is_durable(&self, bundle: &HeldBundle) -> bool {
        self.durable.load(Ordering::SeqCst) == bundle.generation().number()
    }

    pub(super) fn deliver_blocking(&self, bytes: &[u8]) -> Delivered {
        let _one_at_a_time = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held();
        match take(held.as_deref(), bytes, &self.config.trust) {
            Taken::Accepted(bundle) => {
                self.swap(bundle);
                self.counters.bundles_accepted.increment();
                self.make_durable(bytes);
                Delivered::of(Outcome::Accepted)
            }
            Taken::Unchanged => {
                if !held.is_some_and(|held| self.is_durable(&held)) {
                    self.make_durable(bytes);
                }
                Delivered::of(Outcome::Unchanged)
            }
            Taken::Refused(reason) => {
                self.counters.bundles_refused.increment();
                self.counters.refusals.bundle(reason);
                Delivered::refused(reason)
            }
        }
    }

    /// From here on every core judges by this bundle.
    fn swap(&self, bundle: Arc<HeldBundle>) {
        let generation = bundle.generation();
        self.held.store(Some(bundle));
        self.generation.store(generation.number(), Ordering::SeqCst);
        self.generations.send_replace(generation);
        tracing::info!(generation = generation.number(), "key bundle taken");
    }

    fn make_durable(&self, bytes: &[u8]) {
        let Some(directory) = &self.config.state_dir else {
            return;
        };
        match write_durably(directory, bytes) {
            Ok(()) => self.durable.store(self.generation().number(), Ordering::SeqCst),
            Err(error) => {
                self.counters.not_durable.increment();
                tracing::error!(%error, directory = %directory.display(), "key bundle is not durable");
            }
        }
    }

    /// What the state directory holds is durable without being written again.
    pub(super) fn restore(&self) -> Option<Delivered> {
        let path = self.config.state_dir.as_ref()?.join(BUNDLE_NAME);
        let bytes = read_bundle(&path).ok()?;
        let _one_at_a_time = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        match take(self.held().as_deref(), &bytes, &self.config.trust) {
            Taken::Accepted(bundle) => {
                let generation = bundle.generation().number();
                self.swap(bundle);
                self.durable.store(generation, Ordering::SeqCst);
                Some(Delivered::of(Outcome::Accepted))
            }
            Taken::Unchanged => Some(Delivered::of(Outcome::Unchanged)),
            Taken::Refused(reason) => Some(Delivered::refused(reason)),
        }
    }

    /// Delivers what the bundle file holds; nothing where there is no file to read.
    pub(super) fn deliver_file(&self) -> Option<Delivered> {
        let bytes = read_bundle(self.config.bundle_file.as_ref()?).ok()?;
        Some(self.deliver_blocking(&bytes))
    }
}

/// Reads no more than a bundle may have, and one byte to tell that there is more.
fn read_bundle(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BUNDLE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file is replaced as a whole or not at all, and its new name outlives a crash.
fn write_durably(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{BUNDLE_NAME}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(BUNDLE_NAME))?;
    File::open(directory)?.sync_all()
}
