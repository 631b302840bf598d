//! What issuers that somebody else runs take from ConfigMaps of the chain's namespace: a key set, or the certificates of
//! an authority. Whatever becomes of these, what was known stays.

use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use servicechain_keys::{Algorithm, KeyState as State, SigningKey};
use servicechain_operator::key_controller::KeyState;
use servicechain_operator::lease::LeaseState;
use tokio::net::TcpSocket;

use crate::client;
use crate::leader::Leader;
use crate::pods::Cluster;

const AUTHORITY: &str = include_str!("../../../operator/tests/external/certificates/authority.pem");

/// A chain with one foreign issuer, `corp`, and no pods.
struct Foreign {
    cluster: Cluster,
    leader: Leader,
}

impl Foreign {
    async fn start(kind: Value) -> Self {
        let mut issuer = kind;
        issuer["name"] = "corp".into();
        let cluster = Cluster::with_issuers(client().await, json!([issuer])).await;
        let leader = Leader::start(&cluster.client, &cluster.roots, LeaseState::always_held()).await;
        leader.track(&cluster.chain);
        Self { cluster, leader }
    }

    /// Makes it hold this and nothing else; none deletes it.
    async fn config_map(&self, content: Option<(&str, &str)>) {
        let api = self.cluster.api::<ConfigMap>();
        if let Some((key, value)) = content {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-map"}, "data": {key: value}});
            let params = PatchParams::apply("somebody").force();
            api.patch("corp-map", &params, &Patch::Apply(map)).await.unwrap();
        } else {
            api.delete("corp-map", &DeleteParams::default()).await.unwrap();
        }
        self.leader.keys.wake(&self.cluster.uid());
    }

    async fn await_problem(&self, says: &str) -> std::sync::Arc<KeyState> {
        let has_it = |state: &KeyState| {
            let problem = state.issuers.get("corp").and_then(|corp| corp.problem.as_ref());
            state.newest.is_some() && problem.is_some_and(|problem| problem.says() == says)
        };
        self.leader.await_state(&self.cluster.chain, says, has_it).await
    }

    /// Waits for exactly these keys, and no complaint.
    async fn await_keys(&self, wanted: &[(&SigningKey, State)]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(key, state)| (Some(key.kid()), *state))
            .collect();
        let is_as_wanted = |state: &KeyState| {
            let keys = state.entries.iter();
            let keys: Vec<_> = keys.map(|entry| (entry.kid.as_deref(), entry.state)).collect();
            keys.len() == wanted.len()
                && wanted.iter().all(|key| keys.contains(key))
                && state
                    .issuers
                    .get("corp")
                    .is_some_and(|corp| corp.problem.is_none())
        };
        self.leader
            .await_state(&self.cluster.chain, "the keys", is_as_wanted)
            .await;
    }
}

#[tokio::test]
async fn a_given_key_set_is_followed_and_kept_whatever_becomes_of_its_config_map() {
    const GONE: &str = "ConfigMap corp-map does not exist; create it with the key jwks.json";
    const GARBAGE: &str = "its key set is no JWKS document";
    let jwks = json!({"configMapKeyRef": {"name": "corp-map", "key": "jwks.json"}});
    let url = "https://partner.example.com";
    let foreign = Foreign::start(json!({"static": {"url": url, "jwks": jwks}})).await;
    let key = || SigningKey::generate(Algorithm::ES256).unwrap();
    let (first, second) = (key(), key());
    let set = |key: &SigningKey| json!({"keys": [key.public_jwk()]}).to_string();

    let state = foreign.await_problem(GONE).await;
    assert_eq!(state.entries, []);
    foreign.config_map(Some(("keys.json", &set(&first)))).await;
    foreign
        .await_problem("ConfigMap corp-map has no key jwks.json; add it")
        .await;
    foreign.config_map(Some(("jwks.json", "<html>"))).await;
    let state = foreign.await_problem(GARBAGE).await;
    assert_eq!(state.entries, []);

    foreign.config_map(Some(("jwks.json", &set(&first)))).await;
    foreign.await_keys(&[(&first, State::Active)]).await;
    foreign.config_map(Some(("jwks.json", &set(&second)))).await;
    let both = [(&first, State::Withdrawn), (&second, State::Active)];
    foreign.await_keys(&both).await;

    let before = foreign.leader.keys.state(&foreign.cluster.uid()).unwrap();
    foreign.config_map(Some(("jwks.json", "<html>"))).await;
    let state = foreign.await_problem(GARBAGE).await;
    assert_eq!((state.newest, &state.entries), (before.newest, &before.entries));
    foreign.config_map(None).await;
    let state = foreign.await_problem(GONE).await;
    assert_eq!((state.newest, &state.entries), (before.newest, &before.entries));
    foreign.config_map(Some(("jwks.json", &set(&second)))).await;
    foreign.await_keys(&both).await;
}

#[tokio::test]
async fn an_authority_is_taken_from_its_config_map_once_that_is_there() {
    const GONE: &str = "ConfigMap corp-map does not exist; create it with the key ca.crt";
    const ASKED: &str = "nobody listens at its address";
    // It has a port, and listens to nobody.
    let server = TcpSocket::new_v4().unwrap();
    server.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    let authority = json!({"configMapKeyRef": {"name": "corp-map", "key": "ca.crt"}});
    let foreign = Foreign::start(json!({"external": {"url": url, "caBundle": authority}})).await;

    foreign.await_problem(GONE).await;
    for (content, says) in [
        (
            Some(("ca.pem", AUTHORITY)),
            "ConfigMap corp-map has no key ca.crt; add it",
        ),
        (
            Some(("ca.crt", "garbage")),
            "its caBundle holds no certificate in PEM",
        ),
        (Some(("ca.crt", AUTHORITY)), ASKED),
        (None, GONE),
        (Some(("ca.crt", AUTHORITY)), ASKED),
    ] {
        foreign.config_map(content).await;
        foreign.await_problem(says).await;
    }
}
