//! What the objects of a chain are called, and the labels and annotations that say whose they are. Names are derived,
//! never stored: the same chain always finds its objects again. It must not know what is in them.

use std::collections::BTreeMap;

use servicechain_crds::ValidatedChain;
use servicechain_crds::validated::Cache;
use servicechain_crds::validated::Database;

/// Labels of every object of a chain, and the only ones that selectors use, for ever: a selector cannot be changed.
pub const CHAIN_LABEL: &str = "servicechain.dev/chain";
pub const COMPONENT_LABEL: &str = "servicechain.dev/component";

/// SHA-256 of an object as it was built, so that building the same again writes nothing.
pub const BUILT_ANNOTATION: &str = "servicechain.dev/built";
/// Of a pod template: digest of what its container reads only once, so that a change of it is a rollout.
pub const CONFIG_ANNOTATION: &str = "servicechain.dev/config";
/// Of a database's claim: the major version of PostgreSQL that its volume belongs to.
pub const POSTGRES_MAJOR_ANNOTATION: &str = "servicechain.dev/postgres-major";

/// Key of the bundle in its `ConfigMap`.
pub const BUNDLE_KEY: &str = "bundle.jws";
/// Key of the last accepted spec in its `ConfigMap`.
pub const ACCEPTED_KEY: &str = "spec.json";
/// Key of what shows that the operator wrote that spec: HMAC-SHA256 by its root secret, base64url.
pub const ACCEPTED_SEAL_KEY: &str = "spec.seal";
/// Keys of a client's credentials in its Secret.
pub const CLIENT_ID_KEY: &str = "clientID";
pub const CLIENT_SECRET_KEY: &str = "clientSecret";

const MANAGED_BY: &str = "servicechain-operator";
const PART_OF: &str = "servicechain";

/// A part of a chain that has pods of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component<'a> {
    Gateway,
    /// By the name of the issuer.
    Issuer(&'a str),
    /// By the name of the service.
    Service(&'a str),
    Database {
        service: &'a str,
    },
    Cache {
        service: &'a str,
    },
}

impl<'a> Component<'a> {
    /// The value of its label: unique in its chain, since services are not called `gateway`, `issuer-*`, `*-postgres`
    /// and `*-redis`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Gateway => "gateway".to_owned(),
            Self::Issuer(name) => format!("issuer-{name}"),
            Self::Service(name) => name.to_owned(),
            Self::Database { service } => format!("{service}-postgres"),
            Self::Cache { service } => format!("{service}-redis"),
        }
    }

    /// Under which name its pods verify tokens and answer for keys; stores do neither.
    #[must_use]
    pub fn workload(self) -> Option<&'a str> {
        match self {
            Self::Gateway => Some("gateway"),
            Self::Issuer(name) | Self::Service(name) => Some(name),
            Self::Database { .. } | Self::Cache { .. } => None,
        }
    }

    /// What its own container is called.
    #[must_use]
    pub fn container(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Issuer(_) => "issuer",
            Self::Service(_) => "service",
            Self::Database { .. } => "postgres",
            Self::Cache { .. } => "redis",
        }
    }

    /// What runs in it, for `app.kubernetes.io/name`.
    fn application(self) -> &'static str {
        match self {
            Self::Gateway => "servicechain-gateway",
            Self::Issuer(_) => "servicechain-token-issuer",
            Self::Service(_) => "servicechain-item-service",
            Self::Database { .. } => "postgresql",
            Self::Cache { .. } => "redis",
        }
    }
}

/// Every component that a chain has: its managed issuers, then services in their order with their stores, then the gateway.
#[must_use]
pub fn components(chain: &ValidatedChain) -> Vec<Component<'_>> {
    let issuers = chain
        .managed_issuers()
        .map(|(issuer, _)| Component::Issuer(&issuer.name));
    let services = chain.services.iter().flat_map(|service| {
        let name = service.name.as_str();
        let database = service
            .database
            .as_ref()
            .map(|Database::Managed(_)| Component::Database { service: name });
        let cache = service
            .cache
            .as_ref()
            .map(|Cache::Managed { .. }| Component::Cache { service: name });
        [Some(Component::Service(name)), database, cache]
            .into_iter()
            .flatten()
    });
    issuers.chain(services).chain([Component::Gateway]).collect()
}

/// Of its Deployment or `StatefulSet`, Service, `ServiceAccount`, `NetworkPolicy` and `PodDisruptionBudget`; of a
/// database also its claim. At most 45 characters.
#[must_use]
pub fn object(chain: &str, component: Component<'_>) -> String {
    format!("{chain}-{}", component.label())
}

/// `ConfigMap` with the newest key bundle. Only the key controller writes it.
#[must_use]
pub fn bundle_config_map(chain: &str) -> String {
    format!("{chain}-keys")
}

/// `ConfigMap` with the last accepted spec.
#[must_use]
pub fn accepted_config_map(chain: &str) -> String {
    format!("{chain}-accepted")
}

/// `ConfigMap` with the files of a component; for an issuer, which knows digests of secrets, a Secret.
#[must_use]
pub fn config(chain: &str, component: Component<'_>) -> String {
    format!("{}-config", object(chain, component))
}

/// Secret with the key that authenticates a workload's answers and knocks.
#[must_use]
pub fn ack_secret(chain: &str, component: Component<'_>) -> String {
    format!("{}-ack", object(chain, component))
}

/// Secret with what opens a store.
#[must_use]
pub fn store_secret(chain: &str, component: Component<'_>) -> String {
    object(chain, component)
}

/// What a component's pods are selected by, for ever.
#[must_use]
pub fn selector(chain: &str, component: Component<'_>) -> BTreeMap<String, String> {
    labelled([(CHAIN_LABEL, chain), (COMPONENT_LABEL, &component.label())])
}

/// Labels of a component's objects and pods.
#[must_use]
pub fn labels(chain: &str, component: Component<'_>) -> BTreeMap<String, String> {
    let mut labels = chain_labels(chain);
    labels.append(&mut selector(chain, component));
    labels.append(&mut labelled([
        ("app.kubernetes.io/name", component.application()),
        ("app.kubernetes.io/component", &component.label()),
    ]));
    labels
}

/// Labels of an object that belongs to the whole chain.
#[must_use]
pub fn chain_labels(chain: &str) -> BTreeMap<String, String> {
    labelled([
        (CHAIN_LABEL, chain),
        ("app.kubernetes.io/instance", chain),
        ("app.kubernetes.io/part-of", PART_OF),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ])
}

fn labelled<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
