//! `servicechain rotate` and `revoke`, the real program, where real verifiers follow a real key controller.

use std::convert::Infallible;
use std::process::{Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use servicechain_crds::ServiceChain;
use servicechain_e2e::cluster;
use servicechain_keys::{NumericDate, RevocationKind};
use servicechain_operator::key_controller::KeyState;
use servicechain_runtime::clock::Clock;
use tokio::process::Command;

use crate::leader::DEADLINE;
use crate::pods::SERVICE;
use crate::{Shop, kid, world};

/// How often the pass over the chain is played, which tells its status and wakes the rounds.
const A_PASS: Duration = Duration::from_millis(50);

impl Shop {
    /// Runs it to its end, with somebody who plays the passes over the chain meanwhile.
    async fn servicechain(&self, arguments: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(cluster::servicechain().unwrap());
        command
            .args(arguments.split_whitespace())
            .args(["-n", &self.cluster.namespace])
            .env_clear()
            .env("KUBECONFIG", world().await.server.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::select! {
            ended = tokio::time::timeout(DEADLINE, command.output()) => ended,
            never = self.play_passes() => match never {},
        };
        let Output {
            status,
            stdout,
            stderr,
        } = ended.expect("it ends").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    async fn play_passes(&self) -> Infallible {
        let mut said = None;
        loop {
            let status = self
                .leader
                .keys
                .state(&self.cluster.uid())
                .map(|state| status(&state));
            if said != status {
                let patch = Patch::Merge(json!({"status": status}));
                let chains = self.cluster.api::<ServiceChain>();
                chains
                    .patch_status("shop", &PatchParams::default(), &patch)
                    .await
                    .unwrap();
                said = status;
            }
            self.leader.keys.wake(&self.cluster.uid());
            tokio::time::sleep(A_PASS).await;
        }
    }
}

/// As a pass says it.
fn status(state: &KeyState) -> Value {
    let time =
        |date: NumericDate| jiff::Timestamp::from_second(i64::try_from(date.as_seconds()).unwrap()).unwrap();
    let laggards = state.laggards.iter().map(|laggard| {
        json!({"pod": laggard.name, "generation": laggard.generation.map(servicechain_keys::Generation::number),
               "reason": laggard.word(), "since": time(laggard.since)})
    });
    let entries = state.entries.iter().map(|entry| {
        json!({"issuer": entry.issuer, "kid": entry.kid, "state": format!("{:?}", entry.state), "since": time(entry.since)})
    });
    json!({"keys": {
        "generation": state.newest.map_or(0, |(generation, _)| generation.number()),
        "digest": "",
        "acknowledged": state.acknowledged,
        "verifiers": state.verifiers,
        "laggardCount": state.laggards.len(),
        "laggards": laggards.collect::<Vec<_>>(),
        "entries": entries.collect::<Vec<_>>(),
    }})
}

/// `after 0.4 s` as `after …`.
fn timeless(line: &str) -> String {
    let (before, after) = line.split_once(" after ").unwrap();
    let (_, after) = after.split_once(" s, ").unwrap();
    format!("{before} after …, {after}")
}

#[tokio::test]
async fn rotate_says_which_keys_sign_once_every_verifier_holds_them() {
    let shop = Shop::start().await;
    let state = shop.await_in_sync().await;
    let before = kid(&state);
    let (code, stdout, stderr) = shop.servicechain("rotate shop --timeout 60s").await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let state = shop.await_in_sync().await;
    let now = kid(&state);
    assert!(before.iter().all(|old| !now.contains(old)), "{before:?} {now:?}");
    let (generation, _) = state.newest.unwrap();
    let short = |kids: &[String]| {
        kids.iter()
            .map(|kid| format!("{}…", &kid[..4]))
            .collect::<Vec<_>>()
    };
    let said = timeless(stdout.trim_end());
    let (signs, rest) = said
        .split_once(" sign after …, 4/4 verifiers, generation ")
        .unwrap();
    let (told, retire) = rest.split_once(" · ").unwrap();
    assert!(told.parse::<u64>().unwrap() <= generation.number(), "{said}");
    let sorted = |words: &str| {
        let mut words: Vec<_> = words.split(", ").map(str::to_owned).collect();
        words.sort();
        words
    };
    let expected = |kids: &[String]| sorted(&short(kids).join(", "));
    assert_eq!(sorted(signs), expected(&now));
    assert_eq!(sorted(retire.strip_suffix(" retire").unwrap()), expected(&before));
}

#[tokio::test]
async fn revoke_returns_when_every_verifier_refuses_and_no_issuer_grants() {
    let shop = Shop::start().await;
    let line = "revoke shop --issuer platform --client demo --issued-before 2099-01-01T00:00:00Z -o json";
    let (code, stdout, stderr) = shop.servicechain(line).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let said: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&said["acknowledged"], &said["verifiers"]),
        (&json!(4), &json!(4))
    );
    let now = NumericDate::from(Clock::system().now());
    for pod in &shop.pods {
        let held = pod.verifier.held().unwrap();
        assert!(
            Some(held.generation().number()) >= said["generation"].as_u64(),
            "{}",
            pod.name
        );
        let revokes = |client: &str| held.issuers()[0].revokes(RevocationKind::ClientId, client, Some(now));
        assert!(revokes("demo") && !revokes("other"), "{}", pod.name);
    }
    let (code, stdout, _) = shop
        .servicechain("revoke shop --issuer platform --subject mallory")
        .await;
    assert_eq!(code, Some(0));
    let said = timeless(stdout.trim_end());
    assert!(
        said.starts_with("mallory of platform is refused after …, 4/4 verifiers, generation "),
        "{said}"
    );
}

#[tokio::test]
async fn an_isolated_laggard_ends_and_then_everybody_who_is_left_refuses() {
    let shop = Shop::start().await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    drop(shop.cluster.schedule("a-silent", SERVICE, &services).await);
    shop.cluster.say_running("a-silent").await;
    let line = "revoke shop --issuer platform --subject mallory --timeout 3s";
    let (code, _, stderr) = shop.servicechain(line).await;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        stderr.contains("4 of 5 verifiers refuse what it names; not yet: a-silent (does not answer)"),
        "{stderr}"
    );
    let (code, stdout, stderr) = shop.servicechain(&format!("{line} --isolate")).await;
    // The other revocation is of a second before, and so is the pod.
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let (ended, refused) = stdout.trim_end().split_once('\n').unwrap();
    assert_eq!(ended, "a-silent (Unreachable) was ended");
    assert!(
        timeless(refused).starts_with("mallory of platform is refused after …, 4/4 verifiers, generation "),
        "{refused}"
    );
    let pods = shop.cluster.api::<Pod>();
    assert!(pods.get_opt("a-silent").await.unwrap().is_none());
    for pod in &shop.pods {
        let labels = pods.get(&pod.name).await.unwrap().labels().clone();
        assert!(labels.contains_key("servicechain.dev/component"), "{}", pod.name);
    }
}
