//! A chain under load, what was done to it, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::json;
use servicechain_e2e::bundles::Bundles;
use servicechain_e2e::pod;
use servicechain_e2e::progress::Progress;
use servicechain_e2e::shop::{Shop, is_ready, restarts};
use servicechain_e2e::token_load::{Credentials, Killed, Kind, Token, TokenLoad};

use crate::partner::{self, Partner};
use crate::rotations::Rotation;

const ASKERS: usize = 6;
/// An event is under load only if there is load before and after it.
pub(crate) const ANSWERS_AROUND: u64 = 100;
/// So short that keys of the first rotations are gone before the last, and clients use their tokens to the end.
const TOKEN_LIFETIME: &str = "1m";
const ROTATIONS: usize = 10;
/// Longer than another operator takes to lead.
pub(crate) const WITHIN: &str = "150s";
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) struct Soak {
    pub(crate) progress: Progress,
    pub(crate) load: TokenLoad,
    pub(crate) bundles: Bundles,
    pub(crate) partner: Partner,
    pub(crate) mallory: Credentials,
    /// Of a subject that nothing is done to.
    pub(crate) bystander: Arc<Token>,
    pub(crate) killed: Vec<Killed>,
    pub(crate) rotations: Vec<Rotation>,
    /// What was revoked, and how long the answer took, in seconds.
    pub(crate) revocations: Vec<(String, f64)>,
    /// By pod and its restarts.
    pub(crate) disagreements: BTreeMap<(String, i32), u64>,
    pub(crate) accepted_at_a_hop: usize,
    pub(crate) shop: Shop,
}

impl Soak {
    pub(crate) async fn begin() -> Self {
        let progress = Progress::begin();
        let shop = Shop::prepare().await.unwrap();
        let partner = Partner::new();
        let data = json!({"jwks.json": partner.jwks().to_string()});
        let map = json!({"metadata": {"name": "partner-jwks"}, "data": data});
        let maps = shop.api::<ConfigMap>();
        let map = serde_json::from_value(map).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        shop.apply(|chain| {
            let client = |id: &str| json!({"id": id, "scopes": ["items:read", "items:write"]});
            let managed = json!({
                "tokenLifetime": TOKEN_LIFETIME,
                "clients": [client("demo"), client("guest"), client("mallory")],
            });
            let jwks = json!({"configMapKeyRef": {"name": "partner-jwks", "key": "jwks.json"}});
            chain["spec"]["issuers"] = json!([
                {"name": "platform", "managed": managed},
                {"name": "partner", "static": {"url": partner::URL, "jwks": jwks}},
            ]);
        })
        .await
        .unwrap();
        shop.await_ready().await.unwrap();
        progress.say("the chain is ready");

        let mut credentials = Vec::new();
        for client in ["demo", "guest", "mallory"] {
            let client = shop.credentials(client).await.unwrap();
            let token = Token::fetch(shop.gateway, &client).await.unwrap();
            pod::put_items(&shop, &token).await.unwrap();
            credentials.push(client);
        }
        let mallory = credentials.pop().unwrap();
        let bystander = partner.token("bystander", "quiet");
        pod::put_items(&shop, &bystander).await.unwrap();
        let bundles = Bundles::watch(maps, "shop-keys");
        bundles.await_above(0, SOON).await.unwrap();
        let load = TokenLoad::start(shop.gateway, ASKERS, &credentials);
        load.take_up(&bystander);
        load.await_answers(ANSWERS_AROUND).await.unwrap();
        Self {
            progress,
            load,
            bundles,
            partner,
            mallory,
            bystander,
            killed: Vec::new(),
            rotations: Vec::new(),
            revocations: Vec::new(),
            disagreements: BTreeMap::new(),
            accepted_at_a_hop: 0,
            shop,
        }
    }

    /// Counters go with their process: read before anything may end one.
    pub(crate) async fn note_disagreements(&mut self) {
        for component in ["gateway", "a", "b", "c"] {
            for pod in self
                .shop
                .pods(component)
                .await
                .unwrap()
                .iter()
                .filter(|pod| is_ready(pod))
            {
                let counted = pod::disagreements(&self.shop.client, pod).await.unwrap();
                let uid = pod.metadata.uid.clone().unwrap();
                self.disagreements.insert((uid, restarts(pod)), counted);
            }
        }
    }

    pub(crate) fn say_mishaps(&self) {
        let seen = self.load.seen();
        if let Some(mishap) = seen.mishaps.last() {
            let counts = seen.counts();
            self.progress
                .say(format_args!("mishaps so far: {counts:?}; the last: {mishap:?}"));
        }
    }

    pub(crate) async fn end(mut self) {
        self.shop.await_ready().await.unwrap();
        self.load.await_answers(ANSWERS_AROUND).await.unwrap();
        self.note_disagreements().await;
        let clients = self.load.clients();
        let mut seen = self.load.stop().await.unwrap();
        let inside = seen.take_inside(&self.killed);
        let disagreements: u64 = self.disagreements.values().sum();
        let accepted = seen.count(Kind::AcceptedRevoked) + self.accepted_at_a_hop;
        self.progress.say(format_args!(
            "requests {}, 401 for valid tokens {}, 5xx {}, revoked accepted after the answer {accepted}, verdict \
             disagreements {disagreements}",
            seen.requests,
            seen.count(Kind::RefusedValid),
            seen.count(Kind::ServerError),
        ));
        let generations = self.bundles.audit().unwrap();
        self.progress.say(format_args!(
            "tokens {}, wrong answers {}, broken connections {}, inside killed containers {inside:?}, generations \
             {generations}",
            seen.fetched,
            seen.count(Kind::Wrong),
            seen.count(Kind::Broken),
        ));
        for rotation in &self.rotations {
            let (seconds, meanwhile) = (rotation.seconds, rotation.meanwhile);
            self.progress.say(format_args!(
                "rotation, order to signing: {seconds:.2} s ({meanwhile})"
            ));
        }
        for (what, seconds) in &self.revocations {
            self.progress.say(format_args!(
                "revocation, order to answer: {seconds:.2} s ({what})"
            ));
        }
        assert_eq!(self.rotations.len(), ROTATIONS);
        assert!(seen.mishaps.is_empty(), "{:#?}", seen.mishaps);
        assert!(
            inside.values().sum::<usize>() <= clients,
            "{inside:?} of {clients} clients"
        );
        assert_eq!((accepted, disagreements), (0, 0));
    }
}
