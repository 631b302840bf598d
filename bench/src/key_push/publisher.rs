//! The operator's key controller in this process: it is ordered to revoke, and watched until all have acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use servicechain_auth::specimen::{self, AUDIENCE, ISSUER, ISSUER_NAME, Specimen};
use servicechain_keys::rotation::{Desired, DesiredIssuer, KeySource, ListedPod};
use servicechain_keys::{Generation, NumericDate, Revocation, RevocationKind, ShortDigest, Workload};
use servicechain_operator::clock;
use servicechain_operator::key_controller::{BundleFile, KeyController, KeyState, Pod, Roots, TrustKeys};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pods::{Pods, WORKLOAD, pod_id};
use crate::process::{ProcessorTime, resident};
use crate::rounds::Series;
use crate::settings::Budget;

/// An order that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// What one size and one list brought.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) seconds: Vec<f64>,
    pub(super) errors: u64,
    pub(super) first_bundle: Option<f64>,
    pub(super) operator_millis: Series,
    pub(super) pods_millis: Series,
    pub(super) operator_megabytes: Option<f64>,
    pub(super) bundle_kib: Option<f64>,
    pub(super) notes: Vec<String>,
}

pub(super) struct Publisher {
    runtime: Runtime,
    controller: KeyController,
    desired: Desired,
    state: watch::Receiver<Arc<KeyState>>,
    shutdown: CancellationToken,
    now: NumericDate,
    bundle: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Publisher {
    pub(super) fn start(pods: &Pods) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let bundle = folder.path().join("bundle.jws");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let specimen = Specimen::new();
        let clock = clock::system();
        let now = NumericDate::from(clock());
        let mut policy = specimen.bundle().policy;
        policy.max_token_lifetime = Duration::from_hours(1);
        let desired = Desired {
            chain: specimen::chain(),
            policy,
            issuers: vec![DesiredIssuer {
                name: ISSUER_NAME.to_owned(),
                iss: ISSUER.to_owned(),
                audiences: vec![AUDIENCE.to_owned()],
                token_types: vec!["at+jwt".to_owned()],
                scopes_claim: "scope".to_owned(),
                max_token_lifetime: None,
                keys: KeySource::Static {
                    keys: vec![specimen.key.public_jwk().clone()],
                    withdrawn_key_grace: Duration::ZERO,
                },
            }],
            revocations: Vec::new(),
            rotate_keys_before: None,
        };
        let roots = Roots {
            chain: specimen::chain(),
            trust_keys: TrustKeys::only(specimen.trust_key),
            secret: Arc::new(specimen.root),
        };
        let shutdown = CancellationToken::new();
        let controller = {
            let _entered = runtime.enter();
            let store = BundleFile::new(&bundle);
            KeyController::start(roots, store, clock, desired.clone(), shutdown.clone())
        };
        let listed = pods
            .addresses
            .iter()
            .enumerate()
            .map(|(number, address)| {
                Ok(Pod {
                    name: format!("pod-{number}"),
                    listed: ListedPod {
                        pod: pod_id(number)?,
                        issuer: None,
                        addressed: true,
                        runs: true,
                        ready: true,
                        ended: false,
                    },
                    workload: Workload::new(WORKLOAD)?,
                    keys_address: Some(address.to_string()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let state = controller.state();
        controller.set_pods(listed);
        Ok(Self {
            runtime,
            controller,
            desired,
            state,
            shutdown,
            now,
            bundle,
            _folder: folder,
        })
    }

    /// Consumes itself: the loop ends with it.
    pub(super) fn measure(
        mut self,
        pods: &Pods,
        revocations: usize,
        orders: usize,
        budget: Budget,
    ) -> Result<Measured> {
        let mut measured = Measured::default();
        let count = pods.addresses.len();
        let begun = Instant::now();
        self.wait(count, Generation::default())
            .context("the first bundle is not acknowledged by all")?;
        measured.first_bundle = Some(begun.elapsed().as_secs_f64());
        self.desired.revocations = (0..revocations).map(|number| self.revocation(number)).collect();
        if revocations > 0 {
            let held = self.generation();
            self.controller.set_desired(self.desired.clone());
            self.wait(count, held)
                .context("the full list is not acknowledged by all")?;
        }
        let mut longest = Duration::ZERO;
        for order in 0..orders {
            if order > 0 && !budget.allows(longest) {
                break;
            }
            let turn = Instant::now();
            self.settle(count);
            let held = self.generation();
            let (operator, others) = (ProcessorTime::of(std::process::id())?, pods.processor_time()?);
            self.desired
                .revocations
                .push(self.revocation(revocations + order));
            let begun = Instant::now();
            self.controller.set_desired(self.desired.clone());
            if self.wait(count, held).is_err() {
                measured.errors += 1;
                break;
            }
            measured.seconds.push(begun.elapsed().as_secs_f64());
            let used = ProcessorTime::of(std::process::id())?.since(&operator);
            measured.operator_millis.push(used.as_secs_f64() * 1e3);
            let used = pods.processor_time()?.since(&others);
            measured.pods_millis.push(used.as_secs_f64() * 1e3);
            longest = longest.max(turn.elapsed());
        }
        measured.operator_megabytes = Some(resident("self")? / 1e6);
        let bytes = std::fs::metadata(&self.bundle)?.len();
        measured.bundle_kib = Some(f64::from(u32::try_from(bytes)?) / 1024.0);
        if measured.errors > 0 {
            let state = self.state.borrow();
            measured.notes.push(format!(
                "{count} verifiers, {revocations} revocations: after {PATIENCE:?} {} of {} had acknowledged ({})",
                state.acknowledged,
                state.verifiers,
                state.problem.as_deref().unwrap_or("no problem is known")
            ));
        }
        self.shutdown.cancel();
        let controller = self.controller;
        self.runtime.block_on(async {
            let _ = tokio::time::timeout(PATIENCE, controller.ended()).await;
        });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(measured)
    }

    fn generation(&self) -> Generation {
        let state = self.state.borrow();
        state.newest.map(|(generation, _)| generation).unwrap_or_default()
    }

    /// Until a newer bundle than `held` is acknowledged by all.
    fn wait(&mut self, count: usize, held: Generation) -> Result<()> {
        let all = |state: &Arc<KeyState>| {
            let is_newer = state.newest.is_some_and(|(generation, _)| generation > held);
            is_newer && state.verifiers == count && state.acknowledged == count
        };
        let state = &mut self.state;
        let waited = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, state.wait_for(all))
                .await
                .map(|_| ())
        });
        if waited.is_err() {
            let state = self.state.borrow();
            bail!(
                "{} of {} verifiers after {PATIENCE:?}",
                state.acknowledged,
                state.verifiers
            );
        }
        Ok(())
    }

    /// Until the rounds that follow the last order are over: the next order shall find them at rest.
    fn settle(&mut self, count: usize) {
        let state = &mut self.state;
        let _ = self.runtime.block_on(async {
            let is_quiet = |state: &Arc<KeyState>| state.in_sync && state.acknowledged == count;
            tokio::time::timeout(PATIENCE, state.wait_for(is_quiet))
                .await
                .map(|_| ())
        });
    }

    fn revocation(&self, number: usize) -> Revocation {
        Revocation {
            issuer: ISSUER_NAME.to_owned(),
            kind: RevocationKind::Sid,
            digest: ShortDigest::of(&format!("session-{number}")),
            issued_before: self.now,
            expires: None,
        }
    }
}
