//! The cache's contract in this process' own memory, for one machine without Redis.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};
use tokio::time::Instant;

use super::{CacheKey, CacheTime, LookUp, Put, Validity};
use crate::item::Stored;

/// What the whole cache may hold, in bytes.
const CAPACITY: u64 = 64 * 1024 * 1024;
/// A guess that sizes tables; more entries than this are no error.
const EXPECTED_ENTRIES: usize = 10_000;
/// What an entry weighs besides its item.
const OVERHEAD: u64 = 128;

/// Bounded by bytes. Forgets what was used least.
pub struct MemoryCache {
    started: Instant,
    entries: Mutex<Cache<CacheKey, Entry, ByBytes>>,
}

struct Entry {
    stored: Stored,
    expires_at: CacheTime,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<CacheKey, Entry> for ByBytes {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        OVERHEAD
            + entry
                .stored
                .item
                .as_ref()
                .map_or(0, |item| item.as_json().len() as u64)
    }
}

impl MemoryCache {
    pub(super) fn look_up(&self, key: &CacheKey) -> LookUp {
        let now = self.time();
        match self.lock().get(key) {
            Some(entry) if now < entry.expires_at => LookUp::Hit(entry.stored.clone()),
            _ => LookUp::Miss(now),
        }
    }

    /// Milliseconds since this cache was made, on a clock that never goes back.
    pub(super) fn time(&self) -> CacheTime {
        CacheTime(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn put_if_newer(&self, key: &CacheKey, stored: &Stored, validity: Validity) -> Put {
        let mut entries = self.lock();
        let now = self.time();
        if now >= validity.put_before {
            return Put::TooLate;
        }
        match entries.peek(key) {
            Some(held) if now < held.expires_at && held.stored.version >= stored.version => Put::NotNewer,
            _ => {
                entries.insert(
                    *key,
                    Entry {
                        stored: stored.clone(),
                        expires_at: validity.expires_at,
                    },
                );
                Put::Stored
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache<CacheKey, Entry, ByBytes>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        let entries = Cache::with(
            EXPECTED_ENTRIES,
            CAPACITY,
            ByBytes,
            DefaultHashBuilder::default(),
            quick_cache::unsync::DefaultLifecycle::default(),
        );
        Self {
            started: Instant::now(),
            entries: Mutex::new(entries),
        }
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MemoryCache").finish_non_exhaustive()
    }
}
