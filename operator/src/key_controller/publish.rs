//! The only way a bundle comes to be (key protocol, line 12): sign, which opens it again with the verifiers' code, and
//! REPLACE what was read; and which trust key signs. It must not know what is in the bundle.

use std::sync::Arc;

use servicechain_keys::rotation::{Base, ListedPod, Round};
use servicechain_keys::{Bundle, HeldBundle, SignError, TrustKey};

use super::place::{Place, PlaceError};
use super::step::Leader;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the next bundle cannot be signed")]
    Sign(#[from] SignError),
    /// Never written over without an order: its pods would know nothing newer from then on.
    #[error(
        "the chain's keys are signed by a trust key that this operator does not have; restore the Secret servicechain-trust-key from its newest backup, or, where there is none, start the operator with --replace-lost-roots and then replace every pod of the chain"
    )]
    AnotherTrustKey,
}

/// Returns the new version and what is now to be pushed.
pub(super) async fn publish(
    place: &Place,
    signer: &TrustKey,
    read: Option<&str>,
    next: &Bundle,
) -> Result<(String, Arc<HeldBundle>), RoundError> {
    let bundle = Arc::new(next.sign(signer)?);
    let version = place.replace(read, bundle.bytes()).await?;
    Ok((version, bundle))
}

/// What is held once more, for another key to sign; none where this one did.
pub(super) fn resigned(held: &HeldBundle, signer: &TrustKey, round: &Round<'_>) -> Option<Bundle> {
    let is_signed = held.signed_by() == signer.anchor().kid();
    (!is_signed).then(|| Bundle {
        generation: held.generation().next(),
        issued_at: round.now,
        ..held.bundle().clone()
    })
}

impl Leader {
    /// The trust key that signs the chain's next bundle.
    pub(super) fn signer(
        &self,
        config_map: Option<&HeldBundle>,
        round: &Round<'_>,
        is_paused: bool,
    ) -> Arc<TrustKey> {
        let known = self.evidence.lock();
        let counts = |pod: &&ListedPod| known.memory.counts(pod, round.elapsed);
        let counted: Vec<&ListedPod> = round.pods.iter().filter(counts).collect();
        let silent = others_come_back(counted.len(), round.pods.len(), is_paused).then_some(None);
        let anchors = counted.into_iter().map(|pod| {
            let mut heard = round.answers.iter();
            let heard = heard.find(|heard| heard.answer.pod == pod.pod)?;
            Some(heard.answer.anchors.as_slice())
        });
        let held = self.roots.trust_keys.held();
        Arc::clone(held.signer(config_map.map(HeldBundle::signed_by), anchors.chain(silent)))
    }

    /// Whether the base of a round may get a successor: it is stored, and nobody holds a newer one.
    pub(super) fn may_publish(&self, base: Option<Base<'_>>) -> bool {
        self.evidence.lock().memory.is_settled() && base.is_some_and(|base| base.in_config_map)
    }

    /// Nothing is known of a chain but that somebody else signed its bundles. Where that is an order, it begins anew
    /// without a word of its pods: these believe neither this operator nor it them until they are replaced, which waits
    /// for the new bundle.
    pub(super) fn begin_anew(&self) -> Result<(), RoundError> {
        if self.roots.trust_keys.replaces_lost() {
            self.evidence.lock().memory.begin_anew();
            return Ok(());
        }
        Err(RoundError::AnotherTrustKey)
    }
}

/// Where nobody is counted, nobody speaks for those that may come back and know the current key alone: pods that are cut
/// off, or pods of templates that a pause keeps as they are. Pods of other templates will know both keys.
const fn others_come_back(counted: usize, listed: usize, is_paused: bool) -> bool {
    counted == 0 && (listed > 0 || is_paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_without_counted_pods_is_waited_for_unless_none_can_come_back() {
        assert!(others_come_back(0, 3, false), "they are cut off");
        assert!(others_come_back(0, 0, true), "a pause keeps their template");
        assert!(!others_come_back(0, 0, false));
        assert!(!others_come_back(1, 3, true), "one speaks");
    }
}
