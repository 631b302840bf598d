//! Replaces the trust key, when it is ordered: makes the next one, waits until it has signed every chain's keys and every
//! verifier holds them, and drops the old one. How far it has got stands in the Secret and in the bundles, so it may end
//! anywhere. The leader alone does this, and every leader reads the keys before it publishes anything.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::ServiceChain;

use super::state::KeyState;
use super::trust_keys::Held;
use super::trust_secret::{self, ROTATE_ANNOTATION, TRUST_KEY_SECRET};
use super::{KeyChains, chain_of};
use crate::api_client::{ApiError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use crate::clock::Clock;
use crate::object_names::bundle_config_map;
use crate::pages;

/// Between two looks at the Secret.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What looks after the trust key.
pub struct TrustRotation {
    client: Client,
    /// Where the Secret is.
    namespace: String,
    /// The one namespace whose chains there are; none for all.
    watched: Option<String>,
    keys: KeyChains,
    clock: Clock,
    /// Chains whose every verifier was seen to hold what the next key signed.
    switched: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
enum RotationError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(
        "Secret {0}/{TRUST_KEY_SECRET} is gone; this operator still has its key: restore the Secret from its newest backup before the operator is restarted"
    )]
    Gone(String),
    #[error("Secret {0}/{TRUST_KEY_SECRET} holds no usable trust key; restore it from its newest backup")]
    Unusable(String),
    #[error(
        "Secret {0}/{TRUST_KEY_SECRET} holds another trust key than this operator has; restore it from its newest backup"
    )]
    Another(String),
    #[error("a new trust key cannot be made")]
    Made,
}

/// What is done about the trust key now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Rest,
    Make,
    /// Said to people.
    Wait(String),
    Finish,
}

impl TrustRotation {
    /// `client` writes the Secret in `namespace`; `watched` is the one namespace whose chains are looked after, if it is
    /// one.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        watched: Option<String>,
        keys: KeyChains,
        clock: Clock,
    ) -> Self {
        Self {
            client,
            namespace,
            watched,
            keys,
            clock,
            switched: BTreeSet::new(),
        }
    }

    /// Reads what a leader before may have changed; to be awaited before anything is published. A Secret that is gone is
    /// waited for: what this replica read when it began may be older than any backup.
    pub async fn catch_up(&self) {
        loop {
            let read = async {
                let secret = self.read().await?;
                self.held(&secret)
            };
            match read.await {
                Ok(held) => {
                    self.set(held);
                    return;
                }
                Err(error) => {
                    tracing::error!(error = %chain_of(&error), "the trust key is read again before keys are published");
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks after the trust key for as long as it is polled.
    pub async fn run(mut self) {
        let mut said = None;
        loop {
            let error = self.turn().await.err();
            let says = error.as_ref().map(|error| chain_of(error));
            if let Some(error) = says.as_ref().filter(|_| says != said) {
                tracing::error!("{error}");
            }
            said = says;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn turn(&mut self) -> Result<(), RotationError> {
        let secret = self.read().await?;
        let held = self.held(&secret)?;
        let known = self.keys.roots().trust_keys.held();
        if !known.kids().any(|known| held.kids().any(|kid| kid == known)) {
            return Err(RotationError::Another(self.namespace.clone()));
        }
        let next = held.next.as_ref().map(|next| next.anchor().kid().to_owned());
        self.set(held);
        let order = trust_secret::order(&secret).unwrap_or_else(|text| {
            tracing::warn!(
                "annotation {ROTATE_ANNOTATION} orders nothing: {text:?} is no time such as 2026-01-31T12:00:00Z"
            );
            None
        });
        let waits = match &next {
            Some(next) => self.waits(next).await?,
            None => Vec::new(),
        };
        let now = self.now();
        match step(order, trust_secret::made(&secret), next.is_some(), &waits, now) {
            Step::Rest => Ok(()),
            Step::Wait(says) if trust_secret::standing(&secret) == Some(&says) => Ok(()),
            Step::Wait(says) => self.write(trust_secret::saying(secret, &says)).await,
            Step::Make => {
                tracing::info!("the trust key is replaced: the next one is made");
                self.switched.clear();
                let next = trust_secret::new_key().ok_or(RotationError::Made)?;
                let secret = trust_secret::with_next(secret, &next, now);
                self.write(trust_secret::saying(secret, "the next trust key is made"))
                    .await
            }
            Step::Finish => {
                tracing::info!("the trust key is replaced: the old one is dropped");
                let says = format!("done: trust key {} signs alone", next.unwrap_or_default());
                let secret = trust_secret::with_next_alone(secret, now);
                self.write(trust_secret::saying(secret, &says)).await
            }
        }
    }

    fn held(&self, secret: &Secret) -> Result<Held, RotationError> {
        trust_secret::held(secret).ok_or_else(|| RotationError::Unusable(self.namespace.clone()))
    }

    fn set(&self, held: Held) {
        if self.keys.roots().trust_keys.set(held) {
            tracing::info!("the trust keys changed");
            self.keys.trust_changed();
        }
    }

    async fn read(&self) -> Result<Secret, RotationError> {
        let what = format!("cannot read Secret {}/{TRUST_KEY_SECRET}", self.namespace);
        let secret = within(READ_TIMEOUT, what, self.api().get_opt(TRUST_KEY_SECRET)).await?;
        secret.ok_or_else(|| RotationError::Gone(self.namespace.clone()))
    }

    /// Only in the version that was read. What another wrote meanwhile is looked at in the next turn.
    async fn write(&self, secret: Secret) -> Result<(), RotationError> {
        let params = PostParams::default();
        let what = format!("cannot write Secret {}/{TRUST_KEY_SECRET}", self.namespace);
        let api = self.api();
        let write = api.replace(TRUST_KEY_SECRET, &params, &secret);
        match within(WRITE_TIMEOUT, what, write).await {
            Err(error) if error.code() != Some(409) => Err(error.into()),
            _ => {
                let held = self.read().await?;
                self.set(self.held(&held)?);
                Ok(())
            }
        }
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Chains that the next key does not serve yet, each with what it waits for, in the order of their names.
    async fn waits(&mut self, next: &str) -> Result<Vec<String>, RotationError> {
        let api: Api<ServiceChain> = match &self.watched {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let is_there = |chain: &ServiceChain| chain.metadata.deletion_timestamp.is_none();
        let mut chains = pages::read(&api, "cannot list chains", is_there).await?;
        chains.sort_by_key(|chain| (chain.namespace(), chain.name_any()));
        let mut waits = Vec::new();
        for chain in chains {
            let uid = chain.uid().unwrap_or_default();
            if self.switched.contains(&uid) {
                continue;
            }
            let state = self.keys.state(&uid);
            let why = match &state {
                Some(state) => why_not(state, next, chain.spec.paused),
                None if has_had_keys(&chain) || self.has_bundle(&chain).await? => {
                    Some("its keys have not been asked for yet")
                }
                None => None,
            };
            let Some(why) = why else {
                // One without keys may get its first bundle at any time, and by which key is seen then.
                if state.is_some() {
                    self.switched.insert(uid);
                }
                continue;
            };
            let namespace = chain.namespace().unwrap_or_default();
            waits.push(format!("chain {namespace}/{}: {why}", chain.name_any()));
        }
        Ok(waits)
    }

    /// Of a chain that nobody looks after: no spec of it was accepted, or its first round is still to come.
    async fn has_bundle(&self, chain: &ServiceChain) -> Result<bool, ApiError> {
        let namespace = chain.namespace().unwrap_or_default();
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &namespace);
        let name = bundle_config_map(&chain.name_any());
        let what = format!("cannot read ConfigMap {namespace}/{name}");
        let found = within(READ_TIMEOUT, what, api.get_metadata_opt(&name)).await?;
        Ok(found.is_some())
    }

    fn now(&self) -> Timestamp {
        let now = Timestamp::try_from((self.clock)()).unwrap_or(Timestamp::UNIX_EPOCH);
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

impl fmt::Debug for TrustRotation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TrustRotation")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// `waits` are the chains that the next key does not serve yet.
fn step(order: Option<Timestamp>, made: Timestamp, has_next: bool, waits: &[String], now: Timestamp) -> Step {
    match (has_next, waits) {
        // An order ahead of its time would be carried out again and again until then.
        (false, _) if order.is_some_and(|before| before <= now && made < before) => Step::Make,
        (false, _) => Step::Rest,
        (true, []) => Step::Finish,
        (true, [first]) => Step::Wait(format!("waits for {first}")),
        (true, [first, rest @ ..]) => Step::Wait(format!("waits for {first}; and for {} more", rest.len())),
    }
}

/// Its bundle may be gone for a moment, or for longer; then its pods have it.
fn has_had_keys(chain: &ServiceChain) -> bool {
    let status = chain.status.as_ref();
    let keys = status.and_then(|status| status.keys.as_ref());
    keys.is_some_and(|keys| keys.generation > 0)
}

/// Why the chain does not stand on the next trust key yet.
fn why_not(state: &KeyState, next: &str, is_paused: bool) -> Option<&'static str> {
    match &state.signed_by {
        None => Some("it has no keys yet"),
        Some(signed_by) if signed_by == next && state.in_sync => None,
        Some(signed_by) if signed_by == next => {
            Some("not all of its verifiers hold what the next key signed")
        }
        Some(_) if is_paused => Some("it is paused, so its pods do not get to know the next key"),
        Some(_) => Some("not all of its verifiers know the next key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_trust_key_older_than_the_order_is_replaced_once_the_time_has_come() {
        let step = |order: Option<i64>, made| step(order.map(time), time(made), false, &[], time(1000));
        assert_eq!(step(None, 10), Step::Rest);
        assert_eq!(step(Some(900), 10), Step::Make);
        assert_eq!(step(Some(900), 900), Step::Rest, "it was carried out");
        assert_eq!(step(Some(1001), 10), Step::Rest, "its time has not come");
    }

    #[test]
    fn the_old_key_goes_when_no_chain_needs_it_any_more() {
        let step = |waits: &[&str]| {
            let waits: Vec<String> = waits.iter().map(|wait| (*wait).to_owned()).collect();
            step(Some(time(900)), time(10), true, &waits, time(1000))
        };
        assert_eq!(step(&[]), Step::Finish);
        assert_eq!(
            step(&["chain a/b: c"]),
            Step::Wait("waits for chain a/b: c".to_owned())
        );
        let says = "waits for chain a/b: c; and for 2 more".to_owned();
        assert_eq!(step(&["chain a/b: c", "d", "e"]), Step::Wait(says));
    }

    #[test]
    fn a_chain_stands_on_the_next_key_when_all_its_verifiers_hold_what_it_signed() {
        let state = |signed_by: Option<&str>, in_sync| KeyState {
            signed_by: signed_by.map(str::to_owned),
            in_sync,
            ..KeyState::default()
        };
        assert_eq!(why_not(&state(Some("next"), true), "next", false), None);
        for (state, paused) in [
            (state(Some("next"), false), false),
            (state(Some("old"), true), false),
            (state(Some("old"), true), true),
            (state(None, true), false),
        ] {
            assert!(why_not(&state, "next", paused).is_some(), "{state:?}");
        }
    }
}
