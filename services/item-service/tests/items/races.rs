//! The races that the cache's proof is about, each forced at its moment, against real PostgreSQL and Redis. Replicas
//! share a database and a cache, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use servicechain_fixtures::{Proxy, Stores, await_condition};
use servicechain_item_service::cache::{CacheKey, ItemCache, Lifetimes, LookUp, Put};
use servicechain_item_service::item::Version;
use servicechain_item_service::lookup::{Found, LookAside, Source};
use servicechain_item_service::metrics::ItemMetrics;
use servicechain_item_service::pause::{Moment, PausePoints};
use servicechain_item_service::store::{ItemStore, StoreIdentity, Written};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::metrics::Metrics;
use tokio::task::JoinHandle;

use crate::support::{DEADLINE, Hold, cache, item, key, no_trace, open, replica};

const LIFE: Duration = Duration::from_secs(2);

/// A database with version one of an item, and a cache that nobody has filled.
struct Chain {
    stores: Stores,
    store: (ItemStore, StoreIdentity),
    first: Version,
}

impl Chain {
    async fn start() -> Self {
        let stores = servicechain_fixtures::shared().unwrap();
        let store = open(&stores.database_url).await;
        let alone = replica(&store, &Arc::new(ItemCache::None), LIFE, PausePoints::default());
        let first = write(&alone, 1).await.unwrap().version;
        Self { stores, store, first }
    }

    /// A replica with its own connection to the shared cache.
    async fn replica(&self, pauses: PausePoints) -> LookAside {
        self.replica_with(&self.stores.redis_url, LIFE, pauses).await
    }

    async fn replica_with(&self, redis_url: &str, life: Duration, pauses: PausePoints) -> LookAside {
        replica(&self.store, &Arc::new(cache(redis_url).await), life, pauses)
    }
}

fn write(replica: &LookAside, number: u32) -> impl Future<Output = Result<Written, String>> + use<> {
    let writing = replica.put(
        key("1"),
        item(&format!("{{\"n\":{number}}}")),
        Box::new(|_| true),
        no_trace(),
    );
    async {
        writing
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

async fn read(replica: &LookAside) -> Found {
    let found = tokio::time::timeout(DEADLINE, replica.get(&key("1"), &no_trace())).await;
    found.expect("a read that never ends").unwrap()
}

fn reading(replica: &LookAside) -> JoinHandle<Found> {
    let replica = replica.clone();
    tokio::spawn(async move { read(&replica).await })
}

/// Reads until the new version comes, and fails if the old one is served longer than the bound after the commit,
/// or ever again once the new one was seen.
async fn never_older_than_the_bound(reader: &LookAside, old: Version, committed: Instant) {
    loop {
        let asked = Instant::now();
        let found = read(reader).await;
        if found.stored.version > old {
            break;
        }
        assert!(
            asked < committed + LIFE,
            "{old:?} was served {:?} after the commit",
            asked - committed
        );
        tokio::task::yield_now().await;
    }
    let until = Instant::now() + LIFE / 2;
    while Instant::now() < until {
        assert!(
            read(reader).await.stored.version > old,
            "the old version came back"
        );
    }
}

#[tokio::test]
async fn a_reader_paused_between_select_and_put_does_not_undo_a_writers_put() {
    let chain = Chain::start().await;
    let (pauses, mut held) = Hold::first_at(Moment::AfterRead);
    let (slow, other) = (
        chain.replica(pauses).await,
        chain.replica(PausePoints::default()).await,
    );
    let slow_read = reading(&slow);
    held.arrived().await;
    let second = write(&other, 2).await.unwrap().version;
    held.let_go();
    assert_eq!(
        slow_read.await.unwrap().stored.version,
        chain.first,
        "it had read before the commit"
    );
    slow.finish().await;
    let found = read(&other).await;
    assert_eq!((found.stored.version, found.source), (second, Source::Cache));
}

#[tokio::test]
async fn a_reader_paused_until_the_newer_entry_has_ended_does_not_bring_the_older_version_back() {
    const LIFE: Duration = Duration::from_secs(4);
    let chain = Chain::start().await;
    let url = chain.stores.redis_url.as_str();
    let (before_commit, mut writer_held) = Hold::first_at(Moment::BeforeCommit);
    let (after_read, mut reader_held) = Hold::first_at(Moment::AfterRead);
    let writer = chain.replica_with(url, LIFE, before_commit).await;
    let reader = chain.replica_with(url, LIFE, after_read).await;
    let cache = cache(url).await;
    let cache_key = CacheKey::new(&chain.store.1, &key("1"));

    // The writer takes its time, then the reader, so that what the reader holds would live longer.
    let writing = tokio::spawn(write(&writer, 2));
    writer_held.arrived().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let slow_read = reading(&reader);
    reader_held.arrived().await;
    writer_held.let_go();
    let second = writing.await.unwrap().unwrap().version;
    assert!(matches!(cache.look_up(&cache_key).await, LookUp::Hit(stored) if stored.version == second));

    await_condition("the newer entry's end", DEADLINE, async || {
        match cache.look_up(&cache_key).await {
            LookUp::Miss(_) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await
    .unwrap();
    reader_held.let_go();
    assert_eq!(slow_read.await.unwrap().stored.version, chain.first);
    reader.finish().await;
    let found = cache.look_up(&cache_key).await;
    assert!(
        matches!(found, LookUp::Miss(_)),
        "the older version came back: {found:?}"
    );
}

#[tokio::test]
async fn a_writer_killed_between_commit_and_put_leaves_nothing_older_than_the_bound() {
    let chain = Chain::start().await;
    let (pauses, mut held) = Hold::first_at(Moment::AfterCommit);
    let (writer, reader) = (
        chain.replica(pauses).await,
        chain.replica(PausePoints::default()).await,
    );
    assert_eq!(read(&reader).await.stored.version, chain.first);
    reader_fills_the_cache(&reader).await;
    // Never let go: for the others it is a process that died there.
    let _killed = tokio::spawn(write(&writer, 2));
    held.arrived().await;
    never_older_than_the_bound(&reader, chain.first, Instant::now()).await;
}

async fn reader_fills_the_cache(reader: &LookAside) {
    await_condition("the cache to be filled", DEADLINE, async || {
        match read(reader).await.source {
            Source::Cache => Ok(()),
            Source::Database => Err("database"),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_writer_cut_off_from_redis_leaves_nothing_older_than_the_bound() {
    let chain = Chain::start().await;
    let redis = servicechain_fixtures::Redis::shared().unwrap();
    for moment in [Moment::BeforeCommit, Moment::AfterCommit] {
        let proxy = Proxy::start(redis.address()).unwrap();
        let reader = chain.replica(PausePoints::default()).await;
        let before = read(&reader).await.stored.version;
        reader_fills_the_cache(&reader).await;
        let (pauses, mut held) = Hold::first_at(moment);
        let url = proxy.in_front_of(&chain.stores.redis_url);
        let writer = chain.replica_with(&url, LIFE, pauses).await;
        let writing = tokio::spawn(write(&writer, 2));
        held.arrived().await;
        proxy.cut();
        held.let_go();
        assert!(
            writing.await.unwrap().is_ok(),
            "the write is made without the cache"
        );
        never_older_than_the_bound(&reader, before, Instant::now()).await;
    }
}

#[tokio::test]
async fn a_write_is_seen_at_once_by_every_replica_that_shares_the_cache() {
    let chain = Chain::start().await;
    let (one, other) = (
        chain.replica(PausePoints::default()).await,
        chain.replica(PausePoints::default()).await,
    );
    for number in 2..20 {
        let (writer, reader) = if number % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        let written = write(writer, number).await.unwrap().version;
        let found = read(reader).await;
        assert_eq!((found.stored.version, found.source), (written, Source::Cache));
    }
}

#[tokio::test]
async fn after_a_local_write_nobody_is_handed_what_was_read_before_it() {
    let chain = Chain::start().await;
    let (pauses, mut held) = Hold::first_at(Moment::AfterRead);
    // Without a cache, so that only the shared read could answer.
    let replica = replica(&chain.store, &Arc::new(ItemCache::None), LIFE, pauses);
    let slow_read = reading(&replica);
    held.arrived().await;
    let written = write(&replica, 2).await.unwrap().version;
    assert_eq!(read(&replica).await.stored.version, written);
    held.let_go();
    assert_eq!(slow_read.await.unwrap().stored.version, chain.first);
}

#[tokio::test]
async fn those_who_miss_together_read_once_and_need_not_the_first_of_them() {
    let chain = Chain::start().await;
    let (pauses, mut held) = Hold::first_at(Moment::AfterRead);
    let mut metrics = Metrics::new();
    let counted = ItemMetrics::register(&mut metrics, "a");
    let cache = Arc::new(cache(&chain.stores.redis_url).await);
    let lifetimes = Lifetimes::new(LIFE);
    let replica = LookAside::new(
        chain.store.clone(),
        cache,
        lifetimes,
        Clock::system(),
        counted,
        pauses,
    );
    let value = |name: &str| {
        let text = metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("0");
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };

    let first = reading(&replica);
    held.arrived().await;
    let others: Vec<_> = (0..20).map(|_| reading(&replica)).collect();
    await_condition("all others to share its read", DEADLINE, async || {
        match value("servicechain_shared_reads_total") {
            20 => Ok(()),
            shared => Err(shared),
        }
    })
    .await
    .unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    held.let_go();
    for other in others {
        assert_eq!(other.await.unwrap().stored.version, chain.first);
    }
    assert_eq!(value("servicechain_database_reads_total"), 1);
}

#[tokio::test]
async fn a_cache_of_another_database_is_never_believed() {
    let (one, other) = (Chain::start().await, Chain::start().await);
    let mine = one.replica(PausePoints::default()).await;
    let theirs = other
        .replica_with(&one.stores.redis_url, LIFE, PausePoints::default())
        .await;
    let written = write(&mine, 2).await.unwrap().version;
    assert_eq!(read(&mine).await.stored.version, written);
    let found = read(&theirs).await;
    assert_eq!(
        (found.stored.version, found.source),
        (other.first, Source::Database)
    );
}

#[tokio::test]
async fn the_cache_ends_an_entry_by_its_own_clock_and_not_by_the_writers() {
    let chain = Chain::start().await;
    let cache = cache(&chain.stores.redis_url).await;
    let cache_key = CacheKey::new(&chain.store.1, &key("1"));
    let stored = chain.store.0.get(&key("1")).await.unwrap();
    let long_ago = Lifetimes::new(LIFE).validity(cache.time().await.unwrap(), &stored, 0.0);
    await_condition("the window's end", DEADLINE, async || {
        match cache.put_if_newer(&cache_key, &stored, long_ago).await {
            Put::TooLate => Ok(()),
            put => Err(format!("{put:?}")),
        }
    })
    .await
    .unwrap();
}
