//! What is said about a chain, from one pass of the reconcile: pure, and derived anew each time. Of what was said before
//! only times are kept, and what is known about keys while a new leader has not asked yet. Nothing in it moves by itself,
//! or the patch would call the next pass. It must not know how any of it was read.

mod address;
mod conditions;
mod keys;
mod parts;
pub(crate) mod pods;
pub mod reason;
mod stores;
mod verdicts;
pub(crate) mod words;
pub(crate) mod workloads;
mod writes;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::ServiceChainStatus;

use self::conditions::{Truth, Verdict, condition};
use self::parts::Parts;
use self::reason::Reason;
use self::verdicts::{of_acceptance, verdicts};
use super::accepted::Accepted;
use super::observed::Observed;
use super::resources::{Applied, Resources};
use super::rollout::Held;
use crate::config::Settings;
use crate::key_controller::KeyState;

/// What one pass found out.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    pub accepted: &'a Accepted,
    /// `None`: nothing was applied in this pass.
    pub applied: Option<&'a Resources<Applied>>,
    pub observed: &'a Observed,
    /// `None`: this operator has not asked yet.
    pub keys: Option<&'a KeyState>,
    pub held: &'a [Held],
    pub settings: &'a Settings,
}

/// What is to be said about `chain`, whose `status` is what was said before.
#[must_use]
pub fn status(chain: &ServiceChain, pass: &Pass<'_>, now: Timestamp) -> ServiceChainStatus {
    let before = chain.status.clone().unwrap_or_default();
    let keys = keys::judge(pass.keys, before.keys.as_ref(), pass.observed);
    let generation = chain.metadata.generation;
    let mut status = ServiceChainStatus {
        observed_generation: generation,
        operator_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        keys: keys.status.clone(),
        ..ServiceChainStatus::default()
    };
    let accepted = of_acceptance(pass.accepted);
    let Some(validated) = pass.accepted.chain() else {
        let unknown = Verdict::new(
            Truth::Unknown,
            Reason::NotAccepted,
            "nothing is made before spec is accepted",
        );
        let ready = Verdict::new(Truth::False, Reason::NotAccepted, accepted.message.clone());
        let says = |kind| match kind {
            Kind::Accepted => &accepted,
            Kind::Ready => &ready,
            _ => &unknown,
        };
        status.conditions = Kind::ALL
            .iter()
            .map(|kind| condition(kind.as_str(), says(*kind), generation, &before.conditions, now))
            .collect();
        return status;
    };
    let parts = Parts::look(validated, pass, &keys);
    let verdicts = verdicts(chain, pass, &parts, &keys, &before.conditions);
    status.conditions = Kind::ALL
        .iter()
        .map(|kind| match kind {
            Kind::Accepted => condition(kind.as_str(), &accepted, generation, &before.conditions, now),
            // What is judged is the chain of an older spec.
            _ => {
                let generation = if accepted.is_true() {
                    generation
                } else {
                    observed_before(*kind, &before.conditions)
                };
                condition(
                    kind.as_str(),
                    &verdicts[kind],
                    generation,
                    &before.conditions,
                    now,
                )
            }
        })
        .collect();
    status.gateway = Some(parts.gateway(validated, pass));
    status.issuers = parts.issuers(validated);
    status.services = validated
        .services
        .iter()
        .map(|service| parts.service(validated, service, pass))
        .collect();
    status.summary = Some(parts.summary(validated, &keys));
    status
}

/// The conditions, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Accepted,
    GatewayReady,
    IssuersReady,
    ServicesReady,
    StoresReady,
    KeysInSync,
    Progressing,
    Degraded,
    Ready,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Accepted,
        Self::GatewayReady,
        Self::IssuersReady,
        Self::ServicesReady,
        Self::StoresReady,
        Self::KeysInSync,
        Self::Progressing,
        Self::Degraded,
        Self::Ready,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::GatewayReady => "GatewayReady",
            Self::IssuersReady => "IssuersReady",
            Self::ServicesReady => "ServicesReady",
            Self::StoresReady => "StoresReady",
            Self::KeysInSync => "KeysInSync",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::Ready => "Ready",
        }
    }
}

/// Of which generation a condition speaks that was not judged anew.
fn observed_before(kind: Kind, before: &[Condition]) -> Option<i64> {
    let known = before.iter().find(|known| known.type_ == kind.as_str());
    known.and_then(|known| known.observed_generation)
}
