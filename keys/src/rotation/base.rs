//! Which bundle the next one is made from (key protocol, line 11). It must not know how the others were found.

use crate::acknowledgement::Held;
use crate::bundle::{Bundle, Digest};
use crate::held_bundle::HeldBundle;

/// The bundle that the next one is made from.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub bundle: &'a Bundle,
    pub digest: Digest,
    /// The `ConfigMap` holds it. Where it does not, these very bytes are written there before anything is decided.
    pub in_config_map: bool,
    /// Another authentic bundle of the same generation exists; only a higher generation ends that.
    pub forked: bool,
}

impl Base<'_> {
    pub(super) const fn held(&self) -> Held {
        Held {
            generation: self.bundle.generation,
            digest: self.digest,
        }
    }
}

impl<'a> From<&'a HeldBundle> for Base<'a> {
    fn from(bundle: &'a HeldBundle) -> Self {
        Self {
            bundle: bundle.bundle(),
            digest: bundle.digest(),
            in_config_map: false,
            forked: false,
        }
    }
}

/// The newest of the authentic bundles in the `ConfigMap` and at the pods (line 11). Of two with one generation the
/// `ConfigMap`'s is chosen.
pub fn newest<'a>(
    config_map: Option<Base<'a>>,
    at_pods: impl IntoIterator<Item = Base<'a>>,
) -> Option<Base<'a>> {
    let config_map = config_map.map(|base| Base {
        in_config_map: true,
        ..base
    });
    at_pods
        .into_iter()
        .fold(config_map, |newest, candidate| match newest {
            Some(newest) if newest.bundle.generation > candidate.bundle.generation => Some(newest),
            Some(newest) if newest.bundle.generation == candidate.bundle.generation => Some(Base {
                forked: newest.forked || newest.digest != candidate.digest,
                ..newest
            }),
            _ => Some(candidate),
        })
}
