//! What is said about a chain, from one pass of the reconcile: pure, and derived anew each time. Of what was said before
//! only times are kept, and what is known about keys while a new leader has not asked yet. Nothing in it moves by itself,
//! or the patch would call the next pass. It must not know how any of it was read.

mod address;
pub(crate) mod conditions;
mod foreign_issuers;
mod keys;
mod parts;
pub(crate) mod pods;
pub mod reason;
mod remarks;
mod stores;
mod verdicts;
pub(crate) mod words;
pub(crate) mod workloads;
mod writes;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::ServiceChainStatus;

use self::conditions::{Verdict, condition};
use self::parts::Parts;
use self::verdicts::{of_acceptance, unjudged, verdicts};
pub(crate) use self::writes::awaits_a_secret;
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
    let skew = pass.accepted.chain().map(|chain| chain.token_policy.clock_skew);
    let keys = keys::judge(pass.keys, before.keys.as_ref(), pass.observed, skew);
    let generation = chain.metadata.generation;
    let mut status = ServiceChainStatus {
        observed_generation: generation,
        operator_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        keys: keys.status.clone(),
        ..ServiceChainStatus::default()
    };
    let acceptance = of_acceptance(pass.accepted);
    let is_accepted = acceptance.is_true();
    let mut verdicts = match pass.accepted.chain() {
        Some(validated) => {
            let parts = Parts::look(validated, pass, &keys, now);
            status.gateway = Some(parts.gateway(validated, pass));
            status.issuers = parts.issuers(validated, pass);
            status.services = parts.services(validated, pass);
            status.summary = Some(parts.summary(validated, &keys));
            verdicts(chain, pass, &parts, &keys, &before.conditions)
        }
        None => unjudged(&acceptance),
    };
    verdicts.insert(Kind::Accepted, acceptance);
    let say = |(kind, verdict): (&Kind, &Verdict)| {
        // Everything else is about the spec that runs.
        let generation = if is_accepted || *kind == Kind::Accepted {
            generation
        } else {
            observed_before(*kind, &before.conditions)
        };
        condition(kind.as_str(), verdict, generation, &before.conditions, now)
    };
    status.conditions = verdicts.iter().map(say).collect();
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
    ClocksInSync,
    Progressing,
    Degraded,
    Ready,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::GatewayReady => "GatewayReady",
            Self::IssuersReady => "IssuersReady",
            Self::ServicesReady => "ServicesReady",
            Self::StoresReady => "StoresReady",
            Self::KeysInSync => "KeysInSync",
            Self::ClocksInSync => "ClocksInSync",
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
