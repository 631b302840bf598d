//! What keys are changed for, while clients fetch tokens and use them all the time: ten rotations, each ordered before the
//! keys of the last are gone, revocations, and all that goes wrong meanwhile. No valid token is refused, none that was
//! revoked is accepted, and hops do not disagree.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use servicechain_auth::specimen::{AUDIENCE, new_key, sign_claims};
use servicechain_e2e::bundles::Bundles;
use servicechain_e2e::cluster::await_seen;
use servicechain_e2e::installed;
use servicechain_e2e::pod;
use servicechain_e2e::progress::Progress;
use servicechain_e2e::shop::{NAME, READY_WITHIN, Shop, is_ready, restarts};
use servicechain_e2e::token_load::{Credentials, ITEM, Killed, Kind, Token, TokenLoad};
use servicechain_keys::{Algorithm, NumericDate, SigningKey};
use servicechain_runtime::clock::Clock;

const ASKERS: usize = 6;
/// An event is under load only if there is load before and after it.
const ANSWERS_AROUND: u64 = 100;
/// So short that keys of the first rotations are gone before the last, and clients use their tokens to the end.
const TOKEN_LIFETIME: &str = "1m";
const ROTATIONS: usize = 10;
/// Longer than another operator takes to lead.
const WITHIN: &str = "150s";
const SOON: Duration = Duration::from_mins(1);
const PARTNER: &str = "https://partner.example.com";
const PARTNER_LIFETIME: Duration = Duration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_overlapping_rotations_and_all_that_goes_wrong_meanwhile_refuse_no_valid_token() {
    let mut soak = Soak::begin().await;
    for _ in 0..2 {
        soak.rotate("nothing else happens").await;
    }
    soak.revoke_a_subject().await;
    soak.rotate_while_b_grows().await;
    soak.rotate_while_an_issuer_pod_is_replaced().await;
    soak.revoke_a_session().await;
    soak.rotate_and_kill_b_once_it_has_acknowledged().await;
    soak.rotate_while_a_gateway_pod_is_drained().await;
    soak.revoke_a_token().await;
    soak.rotate_and_kill_the_operator().await;
    soak.rotate_and_revoke_while_the_leader_sleeps().await;
    soak.rotate("nothing else happens").await;
    soak.end().await;
}

struct Soak {
    progress: Progress,
    load: TokenLoad,
    bundles: Bundles,
    partner: Partner,
    mallory: Credentials,
    /// Of a subject that nothing is done to.
    bystander: Arc<Token>,
    killed: Vec<Killed>,
    rotations: Vec<Rotation>,
    /// What was revoked, and how long the answer took, in seconds.
    revocations: Vec<(String, f64)>,
    /// By pod and its restarts.
    disagreements: BTreeMap<(String, i32), u64>,
    accepted_at_a_hop: usize,
    shop: Shop,
}

/// What `servicechain rotate` said.
struct Rotation {
    meanwhile: &'static str,
    /// From the order until new keys sign and everybody holds them.
    seconds: f64,
    retires: Vec<String>,
}

/// An issuer whose tokens the test makes itself: the chain's own ones have no sessions.
struct Partner(SigningKey);

impl Soak {
    async fn begin() -> Self {
        let progress = Progress::begin();
        let shop = Shop::prepare().await.unwrap();
        let partner = Partner(new_key(Algorithm::ES256));
        let jwks = json!({"keys": [partner.0.public_jwk()]}).to_string();
        let map = json!({"metadata": {"name": "partner-jwks"}, "data": {"jwks.json": jwks}});
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
                {"name": "partner", "static": {"url": PARTNER, "jwks": jwks}},
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

    async fn rotate(&mut self, meanwhile: &'static str) {
        self.rotate_while(meanwhile, async |_| Vec::new()).await;
    }

    /// Orders a rotation and has `event` happen meanwhile, which says what it killed.
    async fn rotate_while(&mut self, meanwhile: &'static str, event: impl AsyncFnOnce(&Self) -> Vec<Killed>) {
        self.note_disagreements().await;
        self.assert_last_keys_retire().await;
        let (rotation, killed) = tokio::join!(self.order_rotation(meanwhile), event(self));
        self.killed.extend(killed);
        self.note_rotation(rotation);
        self.load.await_answers(ANSWERS_AROUND).await.unwrap();
        self.say_mishaps();
    }

    async fn order_rotation(&self, meanwhile: &'static str) -> Rotation {
        let namespace = &self.shop.namespace;
        let rotate = [
            "rotate",
            NAME,
            "--namespace",
            namespace,
            "--timeout",
            WITHIN,
            "--output",
            "json",
        ];
        let said = self.shop.cluster.servicechain(rotate).await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        Rotation {
            meanwhile,
            seconds: said["seconds"].as_f64().unwrap(),
            retires: serde_json::from_value(said["retires"].clone()).unwrap(),
        }
    }

    fn note_rotation(&mut self, rotation: Rotation) {
        let number = self.rotations.len() + 1;
        let Rotation {
            meanwhile,
            seconds,
            retires,
        } = &rotation;
        assert!(!retires.is_empty(), "rotation {number} retires nothing");
        self.progress.say(format_args!(
            "rotation {number} ({meanwhile}): {seconds:.2} s, {} keys retire",
            retires.len()
        ));
        self.rotations.push(rotation);
    }

    /// Rotations overlap: what the last one retired verifies tokens still.
    async fn assert_last_keys_retire(&self) {
        let Some(last) = self.rotations.last() else { return };
        let chain = self.shop.chain().await.unwrap();
        let entries = chain["status"]["keys"]["entries"].as_array().unwrap();
        for kid in &last.retires {
            let is_there = entries
                .iter()
                .any(|key| key["kid"] == **kid && key["state"] == "Retiring");
            assert!(
                is_there,
                "the last rotation's key {kid} is gone before the next: {entries:?}"
            );
        }
    }

    async fn rotate_while_b_grows(&mut self) {
        self.rotate_while("B is scaled up", async |soak| {
            let mut services = soak.shop.chain().await.unwrap()["spec"]["services"].clone();
            services[1]["replicas"] = json!(3);
            soak.shop
                .patch(json!({"spec": {"services": services}}))
                .await
                .unwrap();
            await_seen("three pods of B", READY_WITHIN, async || {
                let pods = soak.shop.pods("b").await.map_err(|error| format!("{error:#}"))?;
                let ready = pods.iter().filter(|pod| is_ready(pod)).count();
                if ready == 3 {
                    Ok(())
                } else {
                    Err(format!("{ready} are ready"))
                }
            })
            .await
            .unwrap();
            Vec::new()
        })
        .await;
    }

    async fn rotate_while_an_issuer_pod_is_replaced(&mut self) {
        self.rotate_while("an issuer pod is replaced", async |soak| {
            soak.replace("issuer-platform").await;
            Vec::new()
        })
        .await;
    }

    async fn rotate_while_a_gateway_pod_is_drained(&mut self) {
        self.rotate_while("a gateway pod is drained", async |soak| {
            soak.replace("gateway").await;
            Vec::new()
        })
        .await;
    }

    /// Deletes a pod gracefully, and waits until it is gone and the chain is Ready again.
    async fn replace(&self, component: &str) {
        let pod = self.shop.pods(component).await.unwrap().remove(0);
        let (name, uid) = (pod.metadata.name.unwrap(), pod.metadata.uid);
        let pods = self.shop.api::<Pod>();
        pods.delete(&name, &DeleteParams::default()).await.unwrap();
        await_seen(
            &format!("pod {name} to be gone"),
            READY_WITHIN,
            async || match pods.get_opt(&name).await {
                Ok(Some(pod)) if pod.metadata.uid == uid => Err("it is there still".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
        .unwrap();
        self.shop.await_ready().await.unwrap();
    }

    /// It has promised to verify with the new keys: it must after it has started again, from its disk.
    async fn rotate_and_kill_b_once_it_has_acknowledged(&mut self) {
        let before = self.bundles.generation();
        self.rotate_while("a container of B is killed after it acknowledged", async |soak| {
            let shop = &soak.shop;
            let pod = shop.pods("b").await.unwrap().remove(0);
            let published = soak.bundles.await_above(before, SOON).await.unwrap();
            await_seen(
                "B to acknowledge",
                SOON,
                async || match pod::durable_generation(&shop.client, &pod).await {
                    Ok(held) if held >= published => Ok(()),
                    Ok(held) => Err(format!("it holds {held} of {published}")),
                    Err(error) => Err(format!("{error:#}")),
                },
            )
            .await
            .unwrap();
            let not_before = Instant::now();
            shop.cluster.kill_container(&pod, "service").await.unwrap();
            let killed = Killed {
                hop: "b".to_owned(),
                not_before,
                not_after: Instant::now(),
            };
            shop.await_restart(&pod).await.unwrap();
            vec![killed]
        })
        .await;
    }

    /// It has just written a bundle, and may have pushed it to some.
    async fn rotate_and_kill_the_operator(&mut self) {
        let before = self.bundles.generation();
        self.rotate_while("the operator is killed", async |soak| {
            let cluster = &soak.shop.cluster;
            let leader = installed::leader(cluster).await.unwrap();
            soak.bundles.await_above(before, SOON).await.unwrap();
            cluster
                .kill_container(&leader, installed::CONTAINER)
                .await
                .unwrap();
            Vec::new()
        })
        .await;
    }

    /// The leader sleeps between its REPLACE and its pushes; another one leads, rotates and revokes; then the first wakes
    /// up in the midst of what it did.
    async fn rotate_and_revoke_while_the_leader_sleeps(&mut self) {
        self.note_disagreements().await;
        self.assert_last_keys_retire().await;
        let token = self.partner.token("trudy", "s-3");
        self.use_before(&token).await;
        let (before, cluster) = (self.bundles.generation(), &self.shop.cluster);
        let leader = installed::leader(cluster).await.unwrap();
        let first = async {
            self.bundles.await_above(before, SOON).await.unwrap();
            cluster
                .signal_container(&leader, installed::CONTAINER, "SIGSTOP")
                .await
                .unwrap();
            let asleep = Instant::now();
            let named = ["--issuer", "partner", "--subject", "trudy"];
            let (second, answer, other) = tokio::join!(
                self.order_rotation("another leads while the first sleeps"),
                self.order_revocation(&named, &token),
                installed::await_another_leader(cluster, &leader),
            );
            other.unwrap();
            let slept = asleep.elapsed();
            cluster
                .signal_container(&leader, installed::CONTAINER, "SIGCONT")
                .await
                .unwrap();
            (second, answer, slept)
        };
        let (first, (second, answer, slept)) =
            tokio::join!(self.order_rotation("the leader falls asleep"), first);
        self.note_rotation(first);
        self.note_rotation(second);
        self.progress.say(format_args!(
            "the first leader slept {:.1} s",
            slept.as_secs_f64()
        ));
        self.assert_refused_everywhere(&token).await;
        self.revocations
            .push(("a subject while the leader sleeps".to_owned(), answer));
        self.load.await_answers(ANSWERS_AROUND).await.unwrap();
        self.say_mishaps();
    }

    async fn revoke_a_subject(&mut self) {
        let token = Token::fetch(self.shop.gateway, &self.mallory).await.unwrap();
        self.revoke(
            "a subject",
            &["--issuer", "platform", "--subject", "mallory"],
            &token,
        )
        .await;
        // What she is given from then on is good.
        await_seen("mallory to be let in with a new token", SOON, async || {
            let token = Token::fetch(self.shop.gateway, &self.mallory).await;
            let token = token.map_err(|error| format!("{error:#}"))?;
            let answer = self.shop.get(ITEM, Some(&token.text)).await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    async fn revoke_a_session(&mut self) {
        let [token, other] = ["s-1", "s-2"].map(|session| self.partner.token("pat", session));
        self.use_before(&other).await;
        self.revoke("a session", &["--issuer", "partner", "--session", "s-1"], &token)
            .await;
    }

    async fn revoke_a_token(&mut self) {
        let guest = self.shop.credentials("guest").await.unwrap();
        let token = Token::fetch(self.shop.gateway, &guest).await.unwrap();
        let id = token.claim("jti").unwrap();
        self.revoke("a token", &["--issuer", "platform", "--token-id", &id], &token)
            .await;
    }

    async fn revoke(&mut self, what: &str, named: &[&str], token: &Arc<Token>) {
        self.use_before(token).await;
        let seconds = self.order_revocation(named, token).await;
        self.assert_refused_everywhere(token).await;
        self.progress
            .say(format_args!("{what} is revoked: {seconds:.2} s"));
        self.revocations.push((what.to_owned(), seconds));
        self.say_mishaps();
    }

    /// So that every hop remembers a good verdict.
    async fn use_before(&self, token: &Arc<Token>) {
        pod::put_items(&self.shop, token).await.unwrap();
        self.load.take_up(token);
        for component in ["gateway", "a", "b", "c"] {
            for pod in self
                .shop
                .pods(component)
                .await
                .unwrap()
                .iter()
                .filter(|pod| is_ready(pod))
            {
                let status = self.ask(pod, token).await;
                assert_eq!(status, 200, "{:?} before the revocation", pod.metadata.name);
            }
        }
    }

    async fn order_revocation(&self, named: &[&str], token: &Token) -> f64 {
        token.is_ordered_revoked();
        let namespace = &self.shop.namespace;
        let revoke = [
            "revoke",
            NAME,
            "--namespace",
            namespace,
            "--timeout",
            WITHIN,
            "--output",
            "json",
        ];
        let said = self
            .shop
            .cluster
            .servicechain(revoke.iter().chain(named).copied())
            .await;
        token.is_answered_revoked();
        let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
        said["seconds"].as_f64().unwrap()
    }

    /// Each hop by itself, as if the one before it had let the token in.
    async fn assert_refused_everywhere(&mut self, token: &Token) {
        for component in ["gateway", "a", "b", "c"] {
            for pod in self
                .shop
                .pods(component)
                .await
                .unwrap()
                .iter()
                .filter(|pod| is_ready(pod))
            {
                let (revoked, good) = (self.ask(pod, token).await, self.ask(pod, &self.bystander).await);
                assert_eq!(good, 200, "the bystander at {:?}", pod.metadata.name);
                match revoked {
                    401 => {}
                    200 => self.accepted_at_a_hop += 1,
                    other => panic!("{:?} answers {other}", pod.metadata.name),
                }
            }
        }
    }

    async fn ask(&self, pod: &Pod, token: &Token) -> u16 {
        pod::ask(&self.shop.api(), pod, &token.get(ITEM, "close"))
            .await
            .unwrap()
    }

    /// Counters go with their process: read before anything may end one.
    async fn note_disagreements(&mut self) {
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

    fn say_mishaps(&self) {
        let seen = self.load.seen();
        if let Some(mishap) = seen.mishaps.last() {
            let counts = seen.counts();
            self.progress
                .say(format_args!("mishaps so far: {counts:?}; the last: {mishap:?}"));
        }
    }

    async fn end(mut self) {
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

impl Partner {
    fn token(&self, subject: &str, session: &str) -> Arc<Token> {
        let (now, since) = (NumericDate::from(Clock::system().now()), Instant::now());
        let claims = json!({
            "iss": PARTNER, "sub": subject, "sid": session, "aud": AUDIENCE, "client_id": "partner",
            "jti": format!("{subject}-{session}"), "iat": now.as_seconds(),
            "exp": now.plus(PARTNER_LIFETIME).as_seconds(), "scope": "items:read items:write",
        });
        let text = sign_claims(&self.0, claims.as_object().unwrap());
        Token::new(text, subject, since, PARTNER_LIFETIME)
    }
}
