//! The real publisher of keys, over a file instead of a ConfigMap and over the parts of this process instead of pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use servicechain_auth::VerifierConfig;
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::ObjectKey;
use servicechain_crds::validated::{Issuer, IssuerKind};
use servicechain_keys::rotation::ListedPod;
use servicechain_keys::{ChainId, PodId, RootSecret, TrustKey, Workload};
use servicechain_operator::key_controller::state::{IssuerProblem, IssuerStanding};
use servicechain_operator::key_controller::{
    BundleFile, KeyController, KeyState, Pod, Roots, TrustKeys, knock,
};
use servicechain_runtime::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use super::addresses::{Bound, Gateway};
use super::config_maps::ConfigMaps;
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
        trust_keys: TrustKeys::only(TrustKey::from_seed(&seed)?),
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

/// Who is asked about keys that a verifier does not know. Nobody rotates keys behind the bundle's back but issuers of
/// others; where there are none, the bundle's file is the authority.
pub(crate) struct Authorities {
    knock_port: Option<(std::net::TcpListener, SocketAddr)>,
    issuers: BTreeMap<String, Uri>,
}

impl Authorities {
    pub(crate) fn bind(chain: &ValidatedChain, bound: &Bound) -> anyhow::Result<Self> {
        let is_external = |issuer: &Issuer| matches!(issuer.kind, IssuerKind::External(_));
        if !chain.issuers.iter().any(is_external) {
            return Ok(Self {
                knock_port: None,
                issuers: BTreeMap::new(),
            });
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let issuers = bound.issuers.iter();
        let issuers = issuers.map(|part| {
            let url = format!("http://{}", part.ports.keys);
            anyhow::Ok((part.name.clone(), url.parse()?))
        });
        Ok(Self {
            knock_port: Some((listener, address)),
            issuers: issuers.collect::<anyhow::Result<_>>()?,
        })
    }

    pub(crate) fn tell(&self, config: &mut VerifierConfig) -> anyhow::Result<()> {
        if let Some((_, address)) = &self.knock_port {
            config.operator_url = Some(format!("http://{address}").parse()?);
            config.issuer_urls.clone_from(&self.issuers);
        }
        Ok(())
    }
}

impl Publisher {
    pub(crate) fn start(
        chain: &ValidatedChain,
        config_maps: &ConfigMaps,
        pods: Vec<Pod>,
        roots: Roots,
        bundle_file: &Path,
        authorities: Authorities,
    ) -> anyhow::Result<Self> {
        let value_of = |key: &ObjectKey| {
            let found = config_maps.get(&(key.name.clone(), key.key.clone()));
            found
                .cloned()
                .ok_or_else(|| format!("ConfigMap {} is not given", key.name))
        };
        let shutdown = CancellationToken::new();
        let store = BundleFile::new(bundle_file);
        let clock = Clock::system().as_fn();
        let controller = KeyController::of_chain(chain, value_of, roots, store, clock, shutdown.clone());
        controller.set_pods(pods);
        if let Some((listener, _)) = authorities.knock_port {
            let listener = TcpListener::from_std(listener)?;
            let router = controller.knock_port().router();
            tokio::spawn(knock::serve(listener, router, shutdown.clone()));
        }
        tokio::spawn(tell_of_issuers(controller.state()));
        Ok(Self {
            controller,
            _shutdown: shutdown.drop_guard(),
        })
    }

    /// The id of the key that signs, by the name of its issuer.
    pub(crate) fn active_keys(&self, chain: &ValidatedChain) -> BTreeMap<String, String> {
        let state = self.controller.state();
        let state = state.borrow();
        let active = |name: &str| Some((name.to_owned(), state.active_key(name)?.kid.clone()?));
        chain
            .managed_issuers()
            .filter_map(|(issuer, _)| active(&issuer.name))
            .collect()
    }
}

/// Tells what is wrong with the keys of issuers that this chain does not run, once for each thing, until the publisher
/// ends. Fetches tell of themselves.
async fn tell_of_issuers(mut states: watch::Receiver<Arc<KeyState>>) {
    let mut told = BTreeSet::new();
    loop {
        let wrong = sentences(&states.borrow_and_update());
        for sentence in wrong.difference(&told) {
            tracing::warn!("{sentence}");
        }
        told = wrong;
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn sentences(state: &KeyState) -> BTreeSet<String> {
    let of_issuer = |(name, standing): (&String, &IssuerStanding)| {
        let problem = standing.problem.as_ref();
        let problem = problem.filter(|problem| !matches!(problem, IssuerProblem::NotFetched(_)));
        let said = problem.map(IssuerProblem::says).into_iter();
        let said = said.chain(standing.refused.iter().map(String::as_str));
        said.map(|says| format!("issuer {name}: {says}"))
            .collect::<Vec<_>>()
    };
    state.issuers.iter().flat_map(of_issuer).collect()
}
