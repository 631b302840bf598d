//! Rotations, and what happens in the midst of them.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use servicechain_e2e::cluster::await_seen;
use servicechain_e2e::installed;
use servicechain_e2e::pod;
use servicechain_e2e::shop::{NAME, READY_WITHIN, is_ready};
use servicechain_e2e::token_load::Killed;

use crate::soak::{ANSWERS_AROUND, SOON, Soak, WITHIN};

/// What `servicechain rotate` said.
pub(crate) struct Rotation {
    pub(crate) meanwhile: &'static str,
    /// From the order until new keys sign and everybody holds them.
    pub(crate) seconds: f64,
    pub(crate) retires: Vec<String>,
}

impl Soak {
    pub(crate) async fn rotate(&mut self, meanwhile: &'static str) {
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
        // A key that signed nothing, such as that of a pod which nobody has asked yet, goes at once.
        let mut retiring = entries.iter().filter(|key| key["state"] == "Retiring");
        let overlaps = retiring.any(|key| last.retires.iter().any(|kid| key["kid"] == **kid));
        assert!(overlaps, "none of {:?} is there still: {entries:?}", last.retires);
    }

    pub(crate) async fn rotate_while_b_grows(&mut self) {
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

    pub(crate) async fn rotate_while_an_issuer_pod_is_replaced(&mut self) {
        self.rotate_while("an issuer pod is replaced", async |soak| {
            soak.replace("issuer-platform").await;
            Vec::new()
        })
        .await;
    }

    pub(crate) async fn rotate_while_a_gateway_pod_is_drained(&mut self) {
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
    pub(crate) async fn rotate_and_kill_b_once_it_has_acknowledged(&mut self) {
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
    pub(crate) async fn rotate_and_kill_the_operator(&mut self) {
        let before = self.bundles.generation();
        self.rotate_while("the operator is killed", async |soak| {
            let cluster = &soak.shop.cluster;
            let leader = installed::leader(cluster).await.unwrap();
            soak.bundles.await_above(before, SOON).await.unwrap();
            cluster
                .kill_container(&leader, installed::CONTAINER)
                .await
                .unwrap();
            // It may lead again at once, and is not to be taken for running before it does.
            installed::await_restart(cluster, &leader).await.unwrap();
            Vec::new()
        })
        .await;
    }

    /// The leader sleeps between its REPLACE and its pushes; another one leads, rotates and revokes; then the first wakes
    /// up in the midst of what it did.
    pub(crate) async fn rotate_and_revoke_while_the_leader_sleeps(&mut self) {
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
}
