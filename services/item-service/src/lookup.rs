//! The look-aside path: the cache, else the database, then the cache is filled; and the write that keeps both
//! right. The order of steps here is what `cache` proves its promise for. Knows nothing of HTTP.

mod flights;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use servicechain_runtime::clock::Clock;
use servicechain_runtime::spans::{Span, SpanKind};
use servicechain_runtime::trace_context::TraceContext;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::cache::{CacheKey, CacheTime, ItemCache, Lifetimes, LookUp, Put};
use crate::item::{Item, ItemKey, Stored};
use crate::metrics::ItemMetrics;
use crate::pause::{Moment, PausePoints};
use crate::store::{Condition, ItemStore, StoreError, StoreIdentity, Written};
use flights::{Boarding, Flights};

/// Reads and writes one hop's items. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct LookAside {
    inner: Arc<Inner>,
}

struct Inner {
    store: ItemStore,
    identity: StoreIdentity,
    cache: Arc<ItemCache>,
    lifetimes: Lifetimes,
    flights: Flights,
    /// Reads and writes that outlive the request that began them.
    tasks: TaskTracker,
    clock: Clock,
    metrics: ItemMetrics,
    pauses: PausePoints,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Cache,
    Database,
}

/// A row, where it came from and how long that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub stored: Stored,
    pub source: Source,
    pub took: Duration,
}

impl Source {
    /// As it stands in replies and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Database => "database",
        }
    }
}

impl LookAside {
    /// Over an opened store and its cache. `pauses` is for tests.
    #[must_use]
    pub fn new(
        (store, identity): (ItemStore, StoreIdentity),
        cache: Arc<ItemCache>,
        lifetimes: Lifetimes,
        clock: Clock,
        metrics: ItemMetrics,
        pauses: PausePoints,
    ) -> Self {
        let (flights, tasks) = (Flights::default(), TaskTracker::new());
        let inner = Inner {
            store,
            identity,
            cache,
            lifetimes,
            flights,
            tasks,
            clock,
            metrics,
            pauses,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What is there under the key: what the cache holds, else what the database says.
    ///
    /// Dropping the future ends the wait and not the read, which others may share.
    pub async fn get(&self, key: &ItemKey, trace: &TraceContext) -> Result<Found, Arc<StoreError>> {
        let begun = Instant::now();
        let cache_key = CacheKey::new(&self.inner.identity, key);
        let found = {
            let _span = Span::child_of(trace, "cache get", SpanKind::Client);
            self.inner.cache.look_up(&cache_key).await
        };
        self.inner.metrics.looked_up(&found);
        let taken = match found {
            LookUp::Hit(stored) => {
                return Ok(Found {
                    stored,
                    source: Source::Cache,
                    took: begun.elapsed(),
                });
            }
            LookUp::Miss(taken) => Some(taken),
            LookUp::Unavailable => None,
        };
        let stored = self.read(key, cache_key, taken, trace).await?;
        Ok(Found {
            stored,
            source: Source::Database,
            took: begun.elapsed(),
        })
    }

    /// Writes the item if the condition holds for the row as it is then.
    ///
    /// It runs in a task of its own, so that what follows a commit happens whoever goes away.
    pub fn put(
        &self,
        key: ItemKey,
        item: Item,
        condition: Box<Condition>,
        trace: TraceContext,
    ) -> JoinHandle<Result<Written, StoreError>> {
        let this = Arc::clone(&self.inner);
        self.inner
            .tasks
            .spawn(async move { this.write(&key, item, &condition, &trace).await })
    }

    /// Waits for the reads and writes under way. Each is bounded in time.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// One database read for all who ask for the key while it is under way.
    async fn read(
        &self,
        key: &ItemKey,
        cache_key: CacheKey,
        taken: Option<CacheTime>,
        trace: &TraceContext,
    ) -> Result<Stored, Arc<StoreError>> {
        let mut landed = match self.inner.flights.board(key) {
            Boarding::Joined(landed) => {
                self.inner.metrics.shared_a_read();
                landed
            }
            Boarding::Started(flight, landed) => {
                let (this, key, trace) = (Arc::clone(&self.inner), key.clone(), trace.clone());
                self.inner.tasks.spawn(async move {
                    let read = this.read_database(&key, &trace).await;
                    this.pauses.at(Moment::AfterRead).await;
                    let stored = read.as_ref().ok().cloned();
                    this.flights.land(&key, flight, read);
                    if let (Some(stored), Some(taken)) = (stored, taken) {
                        this.fill(&cache_key, &stored, taken, &trace).await;
                    }
                });
                landed
            }
        };
        let outcome = landed.wait_for(Option::is_some).await;
        // A flight that never lands was lost with its task.
        outcome
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or_else(|| Err(Arc::new(StoreError::Slow)))
    }
}

impl Inner {
    async fn read_database(&self, key: &ItemKey, trace: &TraceContext) -> Result<Stored, Arc<StoreError>> {
        let mut span = Span::child_of(trace, "database get", SpanKind::Client);
        let read = self.store.get(key).await;
        self.metrics.read(&read);
        if let Err(error) = &read {
            span.fail(error.to_string());
        }
        read.map_err(Arc::new)
    }

    async fn write(
        &self,
        key: &ItemKey,
        item: Item,
        condition: &Condition,
        trace: &TraceContext,
    ) -> Result<Written, StoreError> {
        let cache_key = CacheKey::new(&self.identity, key);
        let taken = self.cache.time().await;
        let mut span = Span::child_of(trace, "database put", SpanKind::Client);
        let written = self
            .store
            .put(key, &item, condition, self.clock.now(), &self.pauses)
            .await;
        self.metrics.wrote(&written);
        if let Err(error) = &written {
            span.fail(error.to_string());
        }
        drop(span);
        // Whoever asks from here on must not be handed what was read before; also if the outcome is unknown.
        self.flights.end(key);
        let written = written?;
        self.pauses.at(Moment::AfterCommit).await;
        if let Some(taken) = taken {
            let stored = Stored {
                version: written.version,
                item: Some(item),
            };
            self.fill(&cache_key, &stored, taken, trace).await;
        }
        Ok(written)
    }

    /// The one write of the cache, after a read as after a commit.
    async fn fill(&self, key: &CacheKey, stored: &Stored, taken: CacheTime, trace: &TraceContext) {
        let validity = self.lifetimes.validity(taken, stored, rand::random());
        let mut span = Span::child_of(trace, "cache put", SpanKind::Client);
        let put = self.cache.put_if_newer(key, stored, validity).await;
        if put == Put::Unavailable {
            span.fail("unavailable");
        }
        self.metrics.put(put);
    }
}

impl fmt::Debug for LookAside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LookAside")
            .field("cache", &self.inner.cache)
            .finish_non_exhaustive()
    }
}
