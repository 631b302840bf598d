//! docs/trust-key.md as it is printed, while clients fetch tokens and use them: what it says of replacing the trust key and
//! of restoring it.
#![cfg(test)]

use std::time::Duration;

use servicechain_e2e::cluster::{OPERATOR_NAMESPACE, await_seen};
use servicechain_e2e::installed;
use servicechain_e2e::pod;
use servicechain_e2e::progress::Progress;
use servicechain_e2e::shop::{READY_WITHIN, Shop};
use servicechain_e2e::token_load::{Token, TokenLoad};

const RUNBOOK: &str = include_str!("../../docs/trust-key.md");
const CLIENT: &str = "demo";
const ASKERS: usize = 4;
/// A change is under load only if there was load before and after it.
const ANSWERS_AROUND: u64 = 100;
const WITHIN: Duration = Duration::from_mins(3);

/// The commands that the runbook prints under this name.
fn printed(name: &str) -> String {
    let begin = format!("```sh {name}\n");
    let (_, rest) = RUNBOOK
        .split_once(&begin)
        .unwrap_or_else(|| panic!("the runbook has no commands called {name}"));
    rest.split_once("```").unwrap().0.to_owned()
}

struct Runbook<'a> {
    shop: &'a Shop,
    /// Where its files are.
    folder: tempfile::TempDir,
    progress: Progress,
}

impl Runbook<'_> {
    /// As printed, but for the namespace of the chain.
    async fn run(&self, name: &str) -> String {
        let script = printed(name).replace("-n shop ", &format!("-n {} ", self.shop.namespace));
        self.progress.say(format_args!("runs {name}"));
        self.shop
            .cluster
            .shell(&script, self.folder.path())
            .await
            .unwrap()
    }

    async fn await_standing(&self, wanted: &str) {
        let script = printed("standing");
        let said = await_seen(wanted, READY_WITHIN, async || {
            let says = self.shop.cluster.shell(&script, self.folder.path()).await;
            let says = says.map_err(|error| format!("{error:#}"))?;
            if says.contains(wanted) {
                Ok(says)
            } else {
                Err(says)
            }
        });
        let said = said.await.unwrap();
        self.progress.say(said.trim());
    }

    /// Every pod knows so many trust keys.
    async fn await_anchors(&self, count: usize) {
        let what = format!("{count} anchors in every pod");
        await_seen(&what, READY_WITHIN, async || {
            let lines = self.run_quietly("anchors").await?;
            let are_so =
                |line: &str| line.split(' ').nth(1).map(|them| them.split(',').count()) == Some(count);
            if lines.lines().all(are_so) && lines.lines().count() > 0 {
                Ok(())
            } else {
                Err(lines)
            }
        })
        .await
        .unwrap();
        self.progress.say(what);
    }

    async fn run_quietly(&self, name: &str) -> Result<String, String> {
        let script = printed(name).replace("-n shop ", &format!("-n {} ", self.shop.namespace));
        let run = self.shop.cluster.shell(&script, self.folder.path()).await;
        run.map_err(|error| format!("{error:#}"))
    }

    async fn load(&self) -> TokenLoad {
        let credentials = [self.shop.credentials(CLIENT).await.unwrap()];
        let token = Token::fetch(self.shop.gateway, &credentials[0]).await.unwrap();
        pod::put_items(self.shop, &token).await.unwrap();
        let load = TokenLoad::start(self.shop.gateway, ASKERS, &credentials);
        load.await_answers(ANSWERS_AROUND).await.unwrap();
        load
    }

    async fn end(&self, load: TokenLoad) {
        load.await_answers(ANSWERS_AROUND).await.unwrap();
        let seen = load.stop().await.unwrap();
        self.progress.say(format_args!(
            "{} requests, {} tokens, {} failures",
            seen.requests,
            seen.fetched,
            seen.mishaps.len()
        ));
        assert!(seen.mishaps.is_empty(), "{:?}", seen.mishaps);
    }

    async fn signer(&self) -> String {
        let chain = self.shop.chain().await.unwrap();
        chain["status"]["keys"]["signedBy"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_trust_key_is_replaced_and_restored_as_the_runbook_says_and_no_request_fails() {
    let shop = Shop::start(|_| {}).await.unwrap();
    let runbook = Runbook {
        shop: &shop,
        folder: tempfile::tempdir().unwrap(),
        progress: Progress::begin(),
    };
    let first = runbook.signer().await;

    let load = runbook.load().await;
    runbook.run("replace").await;
    runbook.await_standing("waits for").await;
    runbook.await_standing("done:").await;
    runbook.await_anchors(1).await;
    shop.await_ready().await.unwrap();
    let second = runbook.signer().await;
    assert_ne!(first, second);
    runbook.run("backup").await;

    // Gone: requests go on, and an operator that begins names it.
    let lose = format!("kubectl delete secret -n {OPERATOR_NAMESPACE} servicechain-trust-key");
    let folder = runbook.folder.path();
    shop.cluster.shell(&lose, folder).await.unwrap();
    installed::scale(&shop.cluster, 0).await.unwrap();
    let again =
        format!("kubectl scale -n {OPERATOR_NAMESPACE} deployment/servicechain-operator --replicas=2");
    shop.cluster.shell(&again, folder).await.unwrap();
    await_named(&runbook).await;
    runbook.run("restore").await;
    installed::await_rollout(&shop.cluster).await.unwrap();
    shop.await_ready().await.unwrap();
    assert_eq!(runbook.signer().await, second);
    runbook.end(load).await;
}

/// Not Ready, and its log says which Secret is gone.
async fn await_named(runbook: &Runbook<'_>) {
    let log = format!(
        "kubectl logs -n {OPERATOR_NAMESPACE} -l app.kubernetes.io/name=servicechain-operator --tail=20"
    );
    await_seen("the operator to name the Secret", WITHIN, async || {
        let says = runbook.shop.cluster.shell(&log, runbook.folder.path()).await;
        let says = says.map_err(|error| format!("{error:#}"))?;
        if says.contains("servicechain-trust-key is gone") {
            Ok(())
        } else {
            Err(says)
        }
    })
    .await
    .unwrap();
    runbook.progress.say("an operator without its trust key says so");
}
