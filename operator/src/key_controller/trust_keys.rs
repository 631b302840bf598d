//! The trust key of this operator, and the next one while the first is being replaced: which of the two signs a chain's
//! next bundle, and what pods know both by. Pure; where they are kept is for `roots`, when they change for
//! `trust_rotation`.

use std::sync::Arc;

use servicechain_keys::{ChainId, Trust, TrustAnchor, TrustKey};
use tokio::sync::watch;

/// The trust keys as they were last read. Cheap to clone; every clone sees the same.
#[derive(Clone, Debug)]
pub struct TrustKeys {
    held: watch::Sender<Arc<Held>>,
    /// A bundle that is signed by an unknown key is written over: by order, or where nobody else can have signed one.
    replaces_lost: bool,
}

/// What is held at a moment.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub current: Arc<TrustKey>,
    /// It signs once every verifier knows it, and takes the place of the current one once it signed everything.
    pub next: Option<Arc<TrustKey>>,
}

impl TrustKeys {
    /// The one key there ever was: it has no predecessor whose bundles must be spared.
    #[must_use]
    pub fn only(key: TrustKey) -> Self {
        Self::new(Held::of(key), true)
    }

    pub(super) fn new(held: Held, replaces_lost: bool) -> Self {
        Self {
            held: watch::Sender::new(Arc::new(held)),
            replaces_lost,
        }
    }

    /// What pods are given to know them by, the current one's first.
    #[must_use]
    pub fn anchors(&self) -> Vec<TrustAnchor> {
        let held = self.held();
        held.keys().map(|key| key.anchor().clone()).collect()
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.borrow())
    }

    pub(super) fn trust(&self, chain: ChainId) -> Trust {
        Trust::new(chain, self.anchors())
    }

    pub(super) const fn replaces_lost(&self) -> bool {
        self.replaces_lost
    }

    /// Returns whether these are others than before.
    pub(super) fn set(&self, held: Held) -> bool {
        self.held.send_if_modified(|known| {
            let is_other = !known.kids().eq(held.kids());
            if is_other {
                *known = Arc::new(held);
            }
            is_other
        })
    }
}

impl Held {
    pub(super) fn of(current: TrustKey) -> Self {
        Self {
            current: Arc::new(current),
            next: None,
        }
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<TrustKey>> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten()
    }

    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.anchor().kid())
    }

    /// Who signs the chain's next bundle. `signed_by` is the kid of who signed the newest; `counted` are the anchors that
    /// each counted pod said in this round to have, none where it said nothing.
    ///
    /// The next key signs once every counted pod knows both, and from then on: whoever holds a bundle of it may have
    /// forgotten the other.
    pub(super) fn signer<'a>(
        &self,
        signed_by: Option<&str>,
        counted: impl IntoIterator<Item = Option<&'a [String]>>,
    ) -> &Arc<TrustKey> {
        let Some(next) = &self.next else {
            return &self.current;
        };
        let knows_both = |anchors: Option<&[String]>| {
            anchors.is_some_and(|anchors| self.kids().all(|kid| anchors.iter().any(|anchor| anchor == kid)))
        };
        if signed_by == Some(next.anchor().kid()) || counted.into_iter().all(knows_both) {
            next
        } else {
            &self.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> TrustKey {
        TrustKey::from_seed(&[seed; 32]).unwrap()
    }

    fn two() -> Held {
        Held {
            next: Some(Arc::new(key(2))),
            ..Held::of(key(1))
        }
    }

    fn signs(held: &Held, signed_by: Option<u8>, counted: &[Option<&[u8]>]) -> String {
        let kid = |seed: u8| key(seed).anchor().kid().to_owned();
        let counted: Vec<Option<Vec<String>>> = counted
            .iter()
            .map(|anchors| anchors.map(|anchors| anchors.iter().map(|seed| kid(*seed)).collect()))
            .collect();
        let signed_by = signed_by.map(kid);
        let signer = held.signer(signed_by.as_deref(), counted.iter().map(Option::as_deref));
        signer.anchor().kid().to_owned()
    }

    #[test]
    fn the_next_key_signs_once_every_counted_pod_knows_both_and_from_then_on() {
        let [one, other] = [key(1), key(2)].map(|key| key.anchor().kid().to_owned());
        let (both, old): (&[u8], &[u8]) = (&[1, 2], &[1]);
        assert_eq!(signs(&Held::of(key(1)), Some(1), &[Some(both)]), one);
        assert_eq!(signs(&two(), Some(1), &[Some(both), Some(old)]), one);
        assert_eq!(
            signs(&two(), Some(1), &[Some(both), None]),
            one,
            "it was not heard"
        );
        assert_eq!(signs(&two(), Some(1), &[Some(both), Some(&[2])]), one);
        assert_eq!(signs(&two(), Some(1), &[Some(both), Some(&[2, 1])]), other);
        assert_eq!(
            signs(&two(), Some(2), &[Some(both), Some(old)]),
            other,
            "never back"
        );
        assert_eq!(signs(&two(), None, &[]), other, "a chain that begins");
    }

    #[test]
    fn all_clones_see_the_same_keys() {
        let keys = TrustKeys::only(key(1));
        let clone = keys.clone();
        assert!(!keys.set(Held::of(key(1))));
        assert!(keys.set(two()));
        assert_eq!(clone.anchors(), [key(1), key(2)].map(|key| key.anchor().clone()));
        assert!(clone.set(Held::of(key(2))));
        assert_eq!(keys.anchors(), [key(2).anchor().clone()]);
    }
}
