//! The cache's bound, whoever is paused, killed or cut off at the worst moment: what it serves was the committed
//! value at some moment within the last `cacheTTL`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use servicechain_e2e::client::Answer;
use servicechain_e2e::running::START;
use servicechain_e2e::{Chain, Plan};
use servicechain_fixtures::{Proxy, Redis, await_condition};
use servicechain_item_service::pause::{Moment, PausePoints};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{at_a, read, write};

const TTL: Duration = Duration::from_secs(1);

/// Holds whoever reaches one moment, while it is set.
#[derive(Clone, Default)]
struct Trap {
    set_for: Arc<Mutex<Option<Moment>>>,
    /// When somebody was caught last.
    caught: Arc<Mutex<Option<Instant>>>,
    release: Arc<Notify>,
}

impl Trap {
    fn pauses(&self) -> PausePoints {
        let trap = self.clone();
        PausePoints::new(move |moment| {
            let trap = trap.clone();
            async move {
                // It springs once: who comes later passes.
                let springs = trap
                    .set_for
                    .lock()
                    .unwrap()
                    .take_if(|set| *set == moment)
                    .is_some();
                if springs {
                    *trap.caught.lock().unwrap() = Some(Instant::now());
                    trap.release.notified().await;
                }
            }
        })
    }

    fn set(&self, moment: Moment) {
        *self.caught.lock().unwrap() = None;
        *self.set_for.lock().unwrap() = Some(moment);
    }

    /// Waits until somebody is caught, and says when.
    async fn caught(&self) -> Instant {
        let caught = await_condition("somebody in the trap", START, async || {
            self.caught.lock().unwrap().ok_or("nobody")
        });
        caught.await.unwrap()
    }

    fn release(&self) {
        self.release.notify_one();
    }
}

async fn chain(trap: &Trap) -> Arc<Chain> {
    let mut plan = Plan::new().unwrap();
    plan.cache_ttl = "1s";
    plan.pauses[0] = trap.pauses();
    Arc::new(Chain::start(plan).await.unwrap())
}

/// A reader who has read the database and not yet put what it found. Only a miss reads the database, so this waits
/// until what is cached has expired.
async fn caught_reader(chain: &Arc<Chain>, trap: &Trap, token: &str) -> JoinHandle<Answer> {
    let expired = await_condition("a miss", START, async || {
        trap.set(Moment::AfterRead);
        let (chain, token) = (Arc::clone(chain), token.to_owned());
        let reader = tokio::spawn(async move { read(&chain, "1", &token).await });
        let caught = async || {
            if trap.caught.lock().unwrap().is_some() || reader.is_finished() {
                Ok(())
            } else {
                Err("neither")
            }
        };
        await_condition("a reader in the trap or an answer from the cache", START, caught)
            .await
            .unwrap();
        if trap.caught.lock().unwrap().is_some() {
            Ok(reader)
        } else {
            Err("a hit")
        }
    });
    expired.await.unwrap()
}

/// Reads until the bound has passed since `since`, when the old value was the committed one for the last time, and
/// the new value has come. A read that began after the bound and shows the old value is the failure that everything
/// here is about.
async fn never_older_than_the_bound(chain: &Chain, token: &str, since: Instant, old: u64, new: u64) {
    let mut seen_new = false;
    let end = Instant::now() + START;
    while !(seen_new && since.elapsed() > TTL + TTL / 2) {
        let begun = Instant::now();
        let item = at_a(&read(chain, "1", token).await, "item");
        if item == json!({"n": old}) {
            let late = begun.duration_since(since);
            assert!(late <= TTL, "{late:?} after it was exchanged");
        } else {
            assert_eq!(item, json!({"n": new}));
            seen_new = true;
        }
        assert!(begun < end, "the new value never came");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_paused_between_select_and_put_does_not_bring_back_the_old_value() {
    let trap = Trap::default();
    let chain = chain(&trap).await;
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"n":1}"#).await.status, 201);
    let reader = caught_reader(&chain, &trap, &token).await;

    assert_eq!(write(&chain, "1", &token, r#"{"n":2}"#).await.status, 200);
    let written = Instant::now();
    trap.release();
    // The paused reader itself answers with what was true when it read.
    assert_eq!(reader.await.unwrap().status, 200);
    while written.elapsed() < TTL * 2 {
        assert_eq!(at_a(&read(&chain, "1", &token).await, "item"), json!({"n": 2}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_paused_for_longer_than_the_bound_puts_nothing_that_is_served() {
    let trap = Trap::default();
    let chain = chain(&trap).await;
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"n":1}"#).await.status, 201);
    let reader = caught_reader(&chain, &trap, &token).await;
    let read_at = trap.caught().await;

    // A writer commits and is killed before its put, so only time keeps the reader's old value out.
    trap.set(Moment::AfterCommit);
    let (writing, asking) = (Arc::clone(&chain), token.clone());
    let writer = tokio::spawn(async move { write(&writing, "1", &asking, r#"{"n":2}"#).await });
    let committed = trap.caught().await;
    writer.abort();
    let passed = async || {
        if read_at.elapsed() > TTL {
            Ok(())
        } else {
            Err("not yet")
        }
    };
    await_condition("the bound to pass", START, passed).await.unwrap();
    trap.release();
    let _ = reader.await;
    never_older_than_the_bound(&chain, &token, committed, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_killed_between_commit_and_put_leaves_the_old_value_for_the_bound_at_most() {
    let trap = Trap::default();
    let chain = chain(&trap).await;
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"n":1}"#).await.status, 201);
    trap.set(Moment::AfterCommit);
    let (writing, asking) = (Arc::clone(&chain), token.clone());
    let writer = tokio::spawn(async move { write(&writing, "1", &asking, r#"{"n":2}"#).await });
    let committed = trap.caught().await;
    never_older_than_the_bound(&chain, &token, committed, 1, 2).await;
    writer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_cut_off_from_redis_leaves_the_old_value_for_the_bound_at_most() {
    let redis = Redis::start().unwrap();
    let network = Proxy::start(redis.address()).unwrap();
    let mut plan = Plan::new().unwrap();
    plan.cache_ttl = "1s";
    plan.stores[0].redis_url = network.in_front_of(&redis.url());
    let chain = Chain::start(plan).await.unwrap();
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, r#"{"n":1}"#).await.status, 201);
    assert_eq!(at_a(&read(&chain, "1", &token).await, "item"), json!({"n": 1}));

    network.cut();
    let cut = Instant::now();
    assert_eq!(write(&chain, "1", &token, r#"{"n":2}"#).await.status, 200);
    network.mend();
    // From here on only time keeps the old value, which is still in Redis, from being served.
    never_older_than_the_bound(&chain, &token, cut, 1, 2).await;
}
