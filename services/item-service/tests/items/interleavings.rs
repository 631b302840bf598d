//! Random interleavings of readers and writers on several replicas, paused or killed at every moment, while time
//! passes. After every step: what was served had been the committed version at some moment within the last
//! `cacheTTL`, and no version older than one the cache once held comes back from it.
//!
//! The look-aside code, the database and the in-process cache are the real ones; time is tokio's, and moves only when
//! the test says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use servicechain_item_service::cache::{CacheKey, ItemCache, LookUp};
use servicechain_item_service::item::{ItemId, ItemKey, Version};
use servicechain_item_service::lookup::{Found, LookAside, Source};
use servicechain_item_service::pause::{Moment, PausePoints};
use servicechain_item_service::store::{ItemStore, StoreError, StoreIdentity, Written};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{cache, item, key, no_trace, open, replica};

const LIFE: Duration = Duration::from_secs(1);
const REPLICAS: usize = 4;
const CASES: u32 = 400;

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Write(usize),
    /// One of those who are paused goes on to its next moment.
    Resume(usize),
    /// One of those who are paused never goes on.
    Kill(usize),
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..REPLICAS).prop_map(Step::Read),
        3 => (0..REPLICAS).prop_map(Step::Write),
        6 => any::<usize>().prop_map(Step::Resume),
        1 => any::<usize>().prop_map(Step::Kill),
        // Around the window (a quarter of a life), and up to a whole life.
        3 => (1_u64..1_100).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
        2 => (1_u64..260).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
    ];
    prop::collection::vec(step, 1..60)
}

#[test]
fn whatever_is_served_was_committed_within_the_last_life_of_an_entry_and_nothing_older_comes_back() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    // While a blocking task runs, tokio does not move the time by itself. Dropping this ends it.
    let (_keep, kept) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || kept.recv());
    let url = format!("sqlite://{}", folder.path().join("items.db").display());
    let store = runtime.block_on(open(&url));
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let case = std::cell::Cell::new(0);
    let outcome = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        runtime.block_on(async {
            let mut world = World::new(&store, key(&format!("case-{}", case.get())).id).await;
            for step in steps {
                world.take(step).await;
                world.look_into_the_cache().await;
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Somebody who waits to go on.
struct Paused {
    replica: usize,
    moment: Moment,
    go: oneshot::Sender<()>,
}

struct World {
    store: ItemStore,
    cache: Arc<ItemCache>,
    key: ItemKey,
    cache_key: CacheKey,
    replicas: Vec<Replica>,
    arrivals: mpsc::UnboundedReceiver<Paused>,
    paused: Vec<Paused>,
    /// Killed ones wait for ever.
    killed: Vec<Paused>,
    /// Every version that was committed, and when.
    history: Vec<(Version, Instant)>,
    /// The highest version that came from the cache.
    seen: Version,
}

struct Replica {
    look_aside: LookAside,
    reading: Option<JoinHandle<Found>>,
    /// When it read the database.
    read_at: Instant,
    writing: Option<JoinHandle<Result<Written, StoreError>>>,
    is_dead: bool,
}

impl World {
    async fn new(store: &(ItemStore, StoreIdentity), id: ItemId) -> Self {
        let cache: Arc<ItemCache> = Arc::new(cache("memory:").await);
        let (arrive, arrivals) = mpsc::unbounded_channel();
        let arrive = Arc::new(Mutex::new(arrive));
        let replicas = (0..REPLICAS).map(|number| {
            let arrive = Arc::clone(&arrive);
            let pauses = PausePoints::new(move |moment| {
                let (go, gone) = oneshot::channel();
                arrive
                    .lock()
                    .unwrap()
                    .send(Paused {
                        replica: number,
                        moment,
                        go,
                    })
                    .unwrap_or_default();
                async move { gone.await.unwrap_or_default() }
            });
            let look_aside = replica(store, &cache, LIFE, pauses);
            Replica {
                look_aside,
                reading: None,
                read_at: Instant::now(),
                writing: None,
                is_dead: false,
            }
        });
        let replicas = replicas.collect();
        let key = ItemKey {
            owner: key("1").owner,
            id,
        };
        Self {
            store: store.0.clone(),
            cache,
            cache_key: CacheKey::new(&store.1, &key),
            key,
            replicas,
            arrivals,
            paused: Vec::new(),
            killed: Vec::new(),
            history: vec![(Version::MISSING, Instant::now())],
            seen: Version::MISSING,
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Read(number) => self.read(number).await,
            Step::Write(number) => self.write(number).await,
            Step::Resume(index) if !self.paused.is_empty() => {
                let index = index % self.paused.len();
                self.resume(index).await;
            }
            Step::Kill(index) if !self.paused.is_empty() => {
                let index = index % self.paused.len();
                self.kill(index).await;
            }
            Step::Resume(_) | Step::Kill(_) => {}
            Step::Pass(time) => tokio::time::advance(time).await,
        }
    }

    /// A hit is judged at once; a miss is paused after its database read.
    async fn read(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.is_dead || replica.reading.is_some() {
            return;
        }
        let (look_aside, key) = (replica.look_aside.clone(), self.key.clone());
        let mut reading = tokio::spawn(async move { look_aside.get(&key, &no_trace()).await.unwrap() });
        tokio::select! {
            found = &mut reading => self.judge(&found.unwrap(), Instant::now()),
            paused = self.arrivals.recv() => {
                let replica = &mut self.replicas[number];
                (replica.reading, replica.read_at) = (Some(reading), Instant::now());
                self.paused.push(paused.unwrap());
            }
        }
    }

    /// Paused before its commit. The row's lock admits one writer at a time.
    async fn write(&mut self, number: usize) {
        let is_locked = self
            .paused
            .iter()
            .any(|paused| paused.moment == Moment::BeforeCommit);
        let replica = &mut self.replicas[number];
        if replica.is_dead || replica.writing.is_some() || is_locked {
            return;
        }
        let always = Box::new(|_| true);
        replica.writing = Some(
            replica
                .look_aside
                .put(self.key.clone(), item("{}"), always, no_trace()),
        );
        let paused = self.arrivals.recv().await.unwrap();
        assert_eq!(paused.moment, Moment::BeforeCommit);
        self.paused.push(paused);
    }

    async fn resume(&mut self, index: usize) {
        let Paused {
            replica: number,
            moment,
            go,
        } = self.paused.swap_remove(index);
        go.send(()).unwrap();
        match moment {
            Moment::AfterRead => {
                let replica = &mut self.replicas[number];
                let (reading, read_at) = (replica.reading.take().unwrap(), replica.read_at);
                self.judge(&reading.await.unwrap(), read_at);
            }
            Moment::BeforeCommit => {
                let paused = self.arrivals.recv().await.unwrap();
                assert_eq!(paused.moment, Moment::AfterCommit);
                self.paused.push(paused);
                let committed = self.store.get(&self.key).await.unwrap().version;
                self.history.push((committed, Instant::now()));
            }
            Moment::AfterCommit => {
                let written = self.replicas[number]
                    .writing
                    .take()
                    .unwrap()
                    .await
                    .unwrap()
                    .unwrap();
                assert!(
                    self.history
                        .iter()
                        .any(|(version, _)| *version == written.version)
                );
            }
        }
    }

    async fn kill(&mut self, index: usize) {
        let paused = self.paused.swap_remove(index);
        let replica = &mut self.replicas[paused.replica];
        // A whole process dies, and whoever else is paused in it.
        replica.is_dead = true;
        if let Some(writing) = replica.writing.take() {
            writing.abort();
            let _ = writing.await;
        }
        let number = paused.replica;
        let (mut dead, alive): (Vec<_>, Vec<_>) =
            self.paused.drain(..).partition(|paused| paused.replica == number);
        self.paused = alive;
        self.killed.append(&mut dead);
        self.killed.push(paused);
    }

    /// What anybody would be served now.
    async fn look_into_the_cache(&mut self) {
        if let LookUp::Hit(stored) = self.cache.look_up(&self.cache_key).await {
            let found = Found {
                stored,
                source: Source::Cache,
                took: Duration::ZERO,
            };
            self.judge(&found, Instant::now());
        }
    }

    fn judge(&mut self, found: &Found, at: Instant) {
        let version = found.stored.version;
        let position = self
            .history
            .iter()
            .position(|(committed, _)| *committed == version);
        let position = position.unwrap_or_else(|| panic!("{version:?} was never committed"));
        if let Some((_, superseded)) = self.history.get(position + 1) {
            let behind = at - *superseded;
            assert!(
                behind < LIFE,
                "{version:?} was served {behind:?} after it was superseded"
            );
            assert!(
                found.source == Source::Cache || behind.is_zero(),
                "the database served an old version"
            );
        }
        if found.source == Source::Cache {
            assert!(
                version >= self.seen,
                "{version:?} came back after {:?}",
                self.seen
            );
            self.seen = version;
        }
    }
}
