//! What a round met that nobody of the chain's own does: a bundle that was put back, changed or signed by somebody else,
//! an answer that is not a pod's. Each was refused or undone before it gets here; here it gets a name. What somebody else
//! wrote is never quoted.

use servicechain_keys::rotation::Base;
use servicechain_keys::{BundleRefusal, Generation, HeldBundle};

use super::place::{Claim, Stored};
use super::state::{Falsehood, PodKeys};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Incident {
    #[error(
        "the stored keys were of {}, and pods hold generation {to}: these were put back",
        from.map_or("no generation".to_owned(), |from| format!("generation {from}"))
    )]
    PutBack {
        from: Option<Generation>,
        to: Generation,
    },
    #[error("the stored keys are not this chain's ({0}): they count for nothing and are written over")]
    NotOurs(BundleRefusal),
    #[error("somebody changed the ConfigMap of the keys: it is written as it was")]
    Changed,
    #[error("pod {pod}: {falsehood}; it counts as not answering")]
    Falsehood { pod: String, falsehood: Falsehood },
    #[error("pod {pod} refused keys that were sent to it: {reason}")]
    Delivery { pod: String, reason: BundleRefusal },
    /// Nothing bad, and nothing that a decision brings.
    #[error("from generation {generation} on keys are signed by trust key {kid}")]
    TrustKey { generation: Generation, kid: String },
}

impl Incident {
    /// In `UpperCamelCase`, as Kubernetes' events have it.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::PutBack { .. } => "KeysPutBack",
            Self::NotOurs(_) => "KeysNotAuthentic",
            Self::Changed => "KeysChanged",
            Self::Falsehood {
                falsehood: Falsehood::NotAuthentic,
                ..
            } => "AnswerNotAuthentic",
            Self::Falsehood {
                falsehood: Falsehood::Claim,
                ..
            } => "ClaimRefuted",
            Self::Delivery { .. } => "KeysRefused",
            Self::TrustKey { .. } => "TrustKeyChanged",
        }
    }

    /// What was refused and why, in a word each for labels; none where nothing was.
    pub(super) const fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::PutBack { .. } => Some(("store", "put-back")),
            Self::NotOurs(reason) => Some(("store", reason.word())),
            Self::Changed => Some(("store", "changed")),
            Self::Falsehood { falsehood, .. } => Some((
                "answer",
                match falsehood {
                    Falsehood::NotAuthentic => "not-authentic",
                    Falsehood::Claim => "claim",
                },
            )),
            Self::Delivery { reason, .. } => Some(("bundle", reason.word())),
            Self::TrustKey { .. } => None,
        }
    }

    /// An older bundle may come late from a leader that slept, and one for another pod where an address was given anew.
    pub(super) const fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::TrustKey { .. }
                | Self::Delivery {
                    reason: BundleRefusal::Lower | BundleRefusal::WrongPod,
                    ..
                }
        )
    }
}

/// What is undone where a round writes: `not_ours` is why what is stored is no bundle of the chain.
pub(super) fn at_store(
    stored: Option<&Stored>,
    not_ours: Option<BundleRefusal>,
    config_map: Option<&HeldBundle>,
    base: Option<Base<'_>>,
) -> Vec<Incident> {
    let put_back = base
        .filter(|base| !base.in_config_map)
        .map(|base| Incident::PutBack {
            from: config_map.map(HeldBundle::generation),
            to: base.bundle.generation,
        });
    let is_changed = stored.is_some_and(|stored| stored.claim == Claim::Changed);
    let changed = not_ours
        .map(Incident::NotOurs)
        .or(is_changed.then_some(Incident::Changed));
    changed.into_iter().chain(put_back).collect()
}

/// Another trust key signs from now on.
pub(super) fn trust_key(before: Option<&HeldBundle>, written: &HeldBundle) -> Option<Incident> {
    let before = before?;
    (before.signed_by() != written.signed_by()).then(|| Incident::TrustKey {
        generation: written.generation(),
        kid: written.signed_by().to_owned(),
    })
}

/// What was found out about pods since `before`: each is told once, for as long as the pod is there.
pub(super) fn at_pods(before: &[PodKeys], now: &[PodKeys]) -> Vec<Incident> {
    let mut incidents = Vec::new();
    for pod in now {
        let known = before.iter().find(|known| known.pod == pod.pod);
        let falsehood = pod
            .falsehood
            .filter(|falsehood| known.and_then(|known| known.falsehood) != Some(*falsehood));
        incidents.extend(falsehood.map(|falsehood| Incident::Falsehood {
            pod: pod.name.clone(),
            falsehood,
        }));
        let is_new = |reason: &&BundleRefusal| !known.is_some_and(|known| known.refused.contains(reason));
        incidents.extend(
            pod.refused
                .iter()
                .filter(is_new)
                .map(|reason| Incident::Delivery {
                    pod: pod.name.clone(),
                    reason: *reason,
                }),
        );
    }
    incidents
}

#[cfg(test)]
mod tests {
    use servicechain_keys::{PodId, Workload};

    use super::*;

    fn pod(refused: &[BundleRefusal], falsehood: Option<Falsehood>) -> PodKeys {
        PodKeys {
            name: "a-1".to_owned(),
            pod: PodId::new("uid-1").unwrap(),
            workload: Workload::new("a").unwrap(),
            is_counted: true,
            acknowledged: true,
            generation: None,
            refusal: None,
            refused: refused.iter().copied().collect(),
            falsehood,
            unconfirmed: false,
            clock_offset: None,
            anchors: Vec::new(),
        }
    }

    #[test]
    fn what_pods_refuse_and_say_falsely_is_told_once() {
        let first = pod(&[BundleRefusal::Lower], None);
        let told = at_pods(&[], std::slice::from_ref(&first));
        assert_eq!(told.len(), 1);
        assert!(!told[0].is_warning(), "{}", told[0]);
        let more = pod(
            &[BundleRefusal::Lower, BundleRefusal::Anchor],
            Some(Falsehood::NotAuthentic),
        );
        let told = at_pods(&[first], std::slice::from_ref(&more));
        let reasons: Vec<_> = told.iter().map(Incident::reason).collect();
        assert_eq!(reasons, ["AnswerNotAuthentic", "KeysRefused"]);
        assert!(told.iter().all(Incident::is_warning));
        assert!(at_pods(std::slice::from_ref(&more), std::slice::from_ref(&more)).is_empty());
    }

    #[test]
    fn a_bundle_that_was_put_back_is_told_with_both_generations() {
        let said = |from: Option<u64>| {
            let incident = Incident::PutBack {
                from: from.map(Generation::new),
                to: Generation::new(9),
            };
            incident.to_string()
        };
        assert_eq!(
            said(Some(7)),
            "the stored keys were of generation 7, and pods hold generation 9: these were put back"
        );
        assert!(said(None).starts_with("the stored keys were of no generation"));
    }
}
