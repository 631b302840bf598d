//! Which operator leads: one `Lease`, changed only by replacing the version that was read. Somebody else's lease has
//! expired when this process saw it unchanged for its whole duration on its own monotonic clock, so no two clocks are
//! ever compared. It must not know what a leader does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::api_client::{ApiError, within};
use crate::clock::Clock;

/// How long the others wait for a leader that is not heard of. The values are those of Kubernetes' own controllers.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long has lost the lease. Shorter than [`DURATION`], so that it knows before
/// anybody else takes over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// One request; several fit into the deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// What everybody else in the process may know of the lease. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LeaseState(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    held_until: Option<Instant>,
    holder: Option<String>,
}

impl LeaseState {
    /// For a process that shares its cluster with no other operator, such as a test.
    #[must_use]
    pub fn always_held() -> Self {
        let far = Instant::now() + Duration::from_hours(24 * 365);
        Self(Arc::new(Mutex::new(Known {
            held_until: Some(far),
            holder: None,
        })))
    }

    /// Whether nobody else can have taken over yet, by the monotonic clock.
    #[must_use]
    pub fn is_surely_held(&self) -> bool {
        self.with(|known| known.held_until.is_some_and(|until| Instant::now() < until))
    }

    /// Host and port where the leader is knocked at, as far as this process knows.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        self.with(|known| address_of(known.holder.as_deref()?).map(str::to_owned))
    }

    fn with<T>(&self, read: impl FnOnce(&mut Known) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// This process as a candidate.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Clock,
    state: LeaseState,
    /// The lease as it was last seen, and when it was first seen so.
    seen: Option<(Lease, Instant)>,
}

/// The lease is held by nobody that this process could speak for.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    #[error("the lease could not be renewed for {} s", RENEW_DEADLINE.as_secs())]
    NotRenewed,
    #[error("{0} holds the lease now")]
    Taken(String),
}

enum Attempt {
    Held,
    /// By this identity, for now.
    HeldBy(String),
}

impl Candidate {
    /// The lease `name` in `namespace`, for the pod `pod_name` that is knocked at `knock_address`. A process that starts
    /// again in the same pod is the same candidate: there is never more than one of it.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        pod_name: &str,
        knock_address: SocketAddr,
        clock: Clock,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: format!("{pod_name}_{knock_address}"),
            clock,
            state: LeaseState::default(),
            seen: None,
        }
    }

    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state.clone()
    }

    /// Returns once the lease is held.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => {
                    tracing::info!(identity = self.identity, "this operator leads");
                    return;
                }
                Ok(Attempt::HeldBy(holder)) => tracing::debug!(holder, "another operator leads"),
                Err(error) if error.code() == Some(409) => {}
                Err(error) => tracing::warn!(error = %error.message(), "{error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the held lease until it is lost. Whoever leads must then end at once.
    pub async fn keep(&mut self) -> LeaseLost {
        loop {
            tokio::time::sleep(RETRY).await;
            if !self.state.is_surely_held() {
                return LeaseLost::NotRenewed;
            }
            match self.attempt().await {
                Ok(Attempt::Held) => {}
                Ok(Attempt::HeldBy(holder)) => return LeaseLost::Taken(holder),
                Err(error) if error.code() == Some(409) => {}
                Err(error) => tracing::warn!(error = %error.message(), "{error}"),
            }
        }
    }

    /// Lets another operator lead at once. Only for a leader that has ended everything it did.
    pub async fn release(mut self) {
        self.state.with(|known| known.held_until = None);
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        if lease.spec.as_ref().and_then(holder) != Some(&self.identity) {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(self.now());
        match self.replace(&lease).await {
            Ok(_) => tracing::info!("the lease is released"),
            Err(error) => tracing::warn!(error = %error.message(), "the lease is not released: {error}"),
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, ApiError> {
        let begun = Instant::now();
        let read = within(
            REQUEST_TIMEOUT,
            "cannot read the lease",
            self.api.get_opt(&self.name),
        )
        .await?;
        let Some(lease) = read else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claimed(None)),
            };
            let params = PostParams::default();
            let create = self.api.create(&params, &lease);
            let created = within(REQUEST_TIMEOUT, "cannot create the lease", create).await?;
            return Ok(self.held(&created, begun));
        };
        let since = self.saw(&lease);
        let spec = lease.spec.clone().unwrap_or_default();
        if let Some(holder) = holder(&spec).filter(|holder| **holder != self.identity)
            && !has_expired(&spec, since, begun)
        {
            self.state.with(|known| known.held_until = None);
            return Ok(Attempt::HeldBy(holder.clone()));
        }
        let claimed = Lease {
            metadata: lease.metadata,
            spec: Some(self.claimed(Some(&spec))),
        };
        let written = self.replace(&claimed).await?;
        Ok(self.held(&written, begun))
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let params = PostParams::default();
        let replace = self.api.replace(&self.name, &params, lease);
        within(REQUEST_TIMEOUT, "cannot write the lease", replace).await
    }

    fn held(&mut self, lease: &Lease, begun: Instant) -> Attempt {
        self.saw(lease);
        // From when the renewal began: whoever waits for it to expire begins later.
        self.state
            .with(|known| known.held_until = Some(begun + RENEW_DEADLINE));
        Attempt::Held
    }

    /// Since when the lease is as it is now, on this process's clock.
    fn saw(&mut self, lease: &Lease) -> Instant {
        self.state
            .with(|known| known.holder = lease.spec.as_ref().and_then(holder).cloned());
        match &mut self.seen {
            Some((seen, since)) if seen.metadata.resource_version == lease.metadata.resource_version => {
                *since
            }
            seen => {
                let now = Instant::now();
                *seen = Some((lease.clone(), now));
                now
            }
        }
    }

    fn claimed(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let mut spec = before.cloned().unwrap_or_default();
        let now = self.now();
        if holder(&spec) != Some(&self.identity) {
            spec.lease_transitions = before.map(|_| spec.lease_transitions.unwrap_or(0) + 1);
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        spec
    }

    /// For people who read the lease; nothing is decided by it.
    fn now(&self) -> MicroTime {
        MicroTime(jiff::Timestamp::try_from((self.clock)()).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("identity", &self.identity)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

fn holder(spec: &LeaseSpec) -> Option<&String> {
    spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// A holder that asks for more time than [`DURATION`] gets it.
fn has_expired(spec: &LeaseSpec, since: Instant, now: Instant) -> bool {
    let asked = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let duration = asked.map_or(DURATION, |seconds| Duration::from_secs(seconds).max(DURATION));
    now.duration_since(since) >= duration
}

/// A pod's name has no underscore.
fn address_of(identity: &str) -> Option<&str> {
    identity.split_once('_').map(|(_, address)| address)
}

#[cfg(test)]
mod tests;
