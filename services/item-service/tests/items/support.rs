//! Opening stores and caches, and holding readers and writers at named moments.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use servicechain_item_service::cache::{CacheUrl, ItemCache, Lifetimes};
use servicechain_item_service::item::{Item, ItemId, ItemKey, Owner, Version};
use servicechain_item_service::lookup::LookAside;
use servicechain_item_service::metrics::ItemMetrics;
use servicechain_item_service::pause::{Moment, PausePoints};
use servicechain_item_service::store::{DatabaseUrl, ItemStore, StoreIdentity};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::trace_context::TraceContext;
use tokio::sync::{Notify, mpsc};

/// Longer than anything here takes, shorter than anybody's patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Its owner is alice of one issuer.
pub(crate) fn key(id: &str) -> ItemKey {
    ItemKey {
        owner: Owner::new("https://issuer.example", "alice"),
        id: ItemId::new(id).unwrap(),
    }
}

pub(crate) fn item(json: &str) -> Item {
    Item::from_json(json.as_bytes()).unwrap()
}

pub(crate) fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(crate) async fn open(url: &str) -> (ItemStore, StoreIdentity) {
    ItemStore::open(&DatabaseUrl::new(url).unwrap()).await.unwrap()
}

/// Connected, so that the first look-up is a miss and not unavailable.
pub(crate) async fn cache(url: &str) -> ItemCache {
    let cache = CacheUrl::new(url).unwrap().open();
    if let ItemCache::Redis(redis) = &cache {
        assert!(redis.connect().await, "no Redis");
    }
    cache
}

/// One replica: its own pause points and flights, over a store and a cache that others may share.
pub(crate) fn replica(
    store: &(ItemStore, StoreIdentity),
    cache: &Arc<ItemCache>,
    life: Duration,
    pauses: PausePoints,
) -> LookAside {
    let (lifetimes, metrics) = (Lifetimes::new(life), ItemMetrics::default());
    LookAside::new(
        store.clone(),
        Arc::clone(cache),
        lifetimes,
        Clock::system(),
        metrics,
        pauses,
    )
}

pub(crate) fn no_trace() -> TraceContext {
    TraceContext::start(false)
}

/// Holds the first who reaches a moment until it is let go.
pub(crate) struct Hold {
    arrived: mpsc::UnboundedReceiver<()>,
    go: Arc<Notify>,
}

impl Hold {
    /// Pause points that hold the first who reaches `moment`.
    pub(crate) fn first_at(moment: Moment) -> (PausePoints, Self) {
        let (arrive, arrived) = mpsc::unbounded_channel();
        let first = Arc::new(Mutex::new(Some(arrive)));
        let go = Arc::new(Notify::new());
        let held = Arc::clone(&go);
        let pauses = PausePoints::new(move |reached| {
            let arrive = (reached == moment)
                .then(|| first.lock().unwrap().take())
                .flatten();
            let go = Arc::clone(&held);
            async move {
                if let Some(arrive) = arrive {
                    arrive.send(()).unwrap();
                    go.notified().await;
                }
            }
        });
        (pauses, Self { arrived, go })
    }

    /// Waits until somebody is held.
    pub(crate) async fn arrived(&mut self) {
        tokio::time::timeout(DEADLINE, self.arrived.recv())
            .await
            .expect("nobody reached the moment")
            .unwrap();
    }

    pub(crate) fn let_go(&self) {
        self.go.notify_one();
    }
}
