//! The real publisher of keys, over a file instead of a ConfigMap and over the parts of this process instead of pods.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use servicechain_crds::ValidatedChain;
use servicechain_keys::rotation::ListedPod;
use servicechain_keys::{ChainId, PodId, RootSecret, TrustKey, Workload};
use servicechain_operator::key_controller::desired::desired;
use servicechain_operator::key_controller::{BundleFile, KeyController, Pod, Roots};
use servicechain_runtime::clock::Clock;
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use super::addresses::{Bound, Gateway};
use super::random;

/// The publisher of one run; it ends when dropped.
pub(crate) struct Publisher {
    controller: KeyController,
    _shutdown: DropGuard,
}

/// What authenticates the bundles and answers of one run; made for it and gone with it.
pub(crate) fn roots() -> anyhow::Result<Roots> {
    let seed = Zeroizing::new(random()?);
    Ok(Roots {
        chain: ChainId::new(uuid::Uuid::new_v4().to_string())?,
        trust: Arc::new(TrustKey::from_seed(&seed)?),
        secret: Arc::new(RootSecret::new(random()?)),
    })
}

/// The pod of a part: there is one of each, named like it.
pub(crate) fn pod_of(part: &str) -> anyhow::Result<PodId> {
    Ok(PodId::new(format!("local-{part}"))?)
}

/// Every verifier of the chain, with the address of its keys port.
pub(crate) fn pods(bound: &Bound, gateway: &Gateway) -> anyhow::Result<Vec<Pod>> {
    let issuers = bound
        .issuers
        .iter()
        .map(|part| (part.name.as_str(), Some(part.name.clone()), part.ports.keys));
    let services = bound
        .services
        .iter()
        .map(|part| (part.name.as_str(), None, part.ports.keys));
    let all = issuers
        .chain(services)
        .chain([("gateway", None, gateway.ports.keys)]);
    all.map(|(name, issuer, address)| {
        Ok(Pod {
            name: name.to_owned(),
            listed: ListedPod {
                pod: pod_of(name)?,
                issuer,
                addressed: true,
                runs: true,
                ready: true,
                ended: false,
            },
            workload: Workload::new(name)?,
            keys_address: Some(address.to_string()),
        })
    })
    .collect()
}

impl Publisher {
    pub(crate) fn start(chain: &ValidatedChain, pods: Vec<Pod>, roots: Roots, bundle_file: &Path) -> Self {
        let desired = desired(chain, roots.chain.clone(), Vec::new(), None);
        let shutdown = CancellationToken::new();
        let store = BundleFile::new(bundle_file);
        let controller =
            KeyController::start(roots, store, Clock::system().as_fn(), desired, shutdown.clone());
        controller.set_pods(pods);
        Self {
            controller,
            _shutdown: shutdown.drop_guard(),
        }
    }

    /// The id of the key that signs, by the name of its issuer.
    pub(crate) fn active_keys(&self, chain: &ValidatedChain) -> BTreeMap<String, String> {
        let state = self.controller.state();
        let state = state.borrow();
        let active = |name: &str| Some((name.to_owned(), state.active_key(name)?.kid.clone()?));
        chain
            .issuers
            .iter()
            .filter_map(|issuer| active(&issuer.name))
            .collect()
    }
}
