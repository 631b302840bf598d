//! The cache in front of the database, and the rule that makes what it serves provable.
//!
//! It has one write, [`ItemCache::put_if_newer`]; nobody deletes. The time comes from the cache itself, taken before
//! the database read (the miss carries it) and before a writer's commit, and an entry ends [`Lifetimes::item`] after
//! that. So whatever is served was the committed row at some moment within that time, whoever was paused, killed or
//! cut off in between. A put is refused when the cache holds the same or a higher version, and when it comes later
//! than a short window after its time was taken ([`Lifetimes::validity`]). An entry always outlives the window of
//! every read that began before it was put: once a put has succeeded, no older version comes back, unless the cache
//! itself forgets (eviction, restart), and then for no longer than the entry's time.

mod circuit;
mod key;
mod memory;
mod redis;

use std::fmt;
use std::time::Duration;

use crate::item::{Stored, Version};

pub use self::key::CacheKey;
pub use self::memory::MemoryCache;
pub use self::redis::RedisCache;

/// Until when a missing item is believed to be missing.
const MISSING: Duration = Duration::from_secs(5);
/// The longest a put may come after its time was taken: a slow read and its put, with room to spare.
const LONGEST_WINDOW: Duration = Duration::from_secs(3);
/// Entries that were filled together should not end together: up to a tenth of their life is cut off.
const JITTER: f64 = 0.1;

/// Redis, this process' own memory, or nothing.
#[derive(Debug)]
pub enum ItemCache {
    Redis(RedisCache),
    Memory(MemoryCache),
    /// Every look-up is a miss of a cache that cannot be filled.
    None,
}

/// A moment on the cache's own clock, in milliseconds. Clocks of two caches are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheTime(pub(crate) u64);

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    Hit(Stored),
    /// Not there; the time is the cache's, before the database is read.
    Miss(CacheTime),
    /// The cache does not answer, or there is none.
    Unavailable,
}

/// What became of a put. None of these is an error to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    Stored,
    /// The cache holds this version or a higher one.
    NotNewer,
    /// The window had passed.
    TooLate,
    /// The cache does not answer, or there is none.
    Unavailable,
}

/// When a put may still happen, and when the entry ends. Both on the cache's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub put_before: CacheTime,
    pub expires_at: CacheTime,
}

/// How long entries live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    item: Duration,
}

impl Lifetimes {
    /// `item` is the staleness that is promised; zero would be no cache.
    #[must_use]
    pub fn new(item: Duration) -> Self {
        Self { item }
    }

    /// The promised bound.
    #[must_use]
    pub fn item(&self) -> Duration {
        self.item
    }

    /// For a row read, or committed, after `taken`. `chance` is in 0..1 and shortens the life.
    ///
    /// Why no older version comes back: say a put succeeded at p, of an entry whose time was taken at t, so that
    /// p < t + W. It lives until at least t + 0.9 L > p - W + 0.9 L. A read that saw something older began before
    /// the commit, hence before p, and may put only before p + W. The window W is at most L / 4, so p + W lies
    /// before the entry's end, and the entry refuses what is older. The window is also at most 3 s, whatever L is,
    /// so that replicas with different settings keep this from L = 7 s on.
    #[must_use]
    pub fn validity(&self, taken: CacheTime, stored: &Stored, chance: f64) -> Validity {
        let whole = if stored.version == Version::MISSING {
            self.item.min(MISSING)
        } else {
            self.item
        };
        let life = whole.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
        let window = (self.item / 4).min(LONGEST_WINDOW).min(life);
        Validity {
            put_before: taken.plus(window),
            expires_at: taken.plus(life),
        }
    }
}

impl CacheTime {
    /// Rounded down, so that nothing lives longer than promised.
    fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl ItemCache {
    /// Looks the key up.
    pub async fn look_up(&self, key: &CacheKey) -> LookUp {
        match self {
            Self::Redis(cache) => cache.look_up(key).await,
            Self::Memory(cache) => cache.look_up(key),
            Self::None => LookUp::Unavailable,
        }
    }

    /// The cache's time now, for a writer that is about to commit.
    pub async fn time(&self) -> Option<CacheTime> {
        match self {
            Self::Redis(cache) => cache.time().await,
            Self::Memory(cache) => Some(cache.time()),
            Self::None => None,
        }
    }

    /// The one write: puts the row unless the cache holds its version or a higher one, or it is too late.
    pub async fn put_if_newer(&self, key: &CacheKey, stored: &Stored, validity: Validity) -> Put {
        match self {
            Self::Redis(cache) => cache.put_if_newer(key, stored, validity).await,
            Self::Memory(cache) => cache.put_if_newer(key, stored, validity),
            Self::None => Put::Unavailable,
        }
    }
}

/// Where the cache is: `redis://…`, `rediss://…` or `memory:`. A password in it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheUrl(String);

/// Why a text is no cache URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be redis://…, rediss://… or memory:")]
pub struct InvalidCacheUrl;

impl CacheUrl {
    /// Checks the text.
    pub fn new(url: impl Into<String>) -> Result<Self, InvalidCacheUrl> {
        let url = url.into();
        let is_redis = ["redis://", "rediss://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        if url == "memory:" || is_redis && ::redis::Client::open(url.as_str()).is_ok() {
            return Ok(Self(url));
        }
        Err(InvalidCacheUrl)
    }

    /// The cache at this place. Redis need not be there yet.
    #[must_use]
    pub fn open(&self) -> ItemCache {
        match ::redis::Client::open(self.0.as_str()) {
            Ok(client) if self.0 != "memory:" => ItemCache::Redis(RedisCache::new(client)),
            _ => ItemCache::Memory(MemoryCache::default()),
        }
    }
}

impl std::str::FromStr for CacheUrl {
    type Err = InvalidCacheUrl;

    fn from_str(url: &str) -> Result<Self, InvalidCacheUrl> {
        Self::new(url)
    }
}

impl fmt::Debug for CacheUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CacheUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use proptest::prelude::*;

    fn some() -> Stored {
        Stored {
            version: Version::new(7).unwrap(),
            item: Some(Item::from_json(b"{}").unwrap()),
        }
    }

    #[test]
    fn jitter_only_shortens_and_a_missing_item_is_believed_for_five_seconds() {
        let lifetimes = Lifetimes::new(Duration::from_mins(1));
        let at = |stored: &Stored, chance| lifetimes.validity(CacheTime(1000), stored, chance).expires_at.0;
        assert_eq!(at(&some(), 0.0), 61_000);
        assert_eq!(at(&some(), 1.0), 55_000);
        assert_eq!(at(&Stored::MISSING, 0.0), 6_000);
        let short = Lifetimes::new(Duration::from_secs(1)).validity(CacheTime(0), &Stored::MISSING, 0.0);
        assert_eq!(short.expires_at.0, 1_000);
    }

    proptest! {
        #[test]
        fn an_entry_outlives_the_window_of_every_read_that_began_before_it_was_put(
            millis in 8_u64..10_000_000, other_millis in 7_000_u64..10_000_000, chance in 0.0..1.0
        ) {
            let taken = CacheTime(1_000_000);
            let lifetimes = Lifetimes::new(Duration::from_millis(millis));
            let entry = lifetimes.validity(taken, &some(), chance);
            let last_put = entry.put_before.0 - 1;
            // A read that began when that put happened, with the same setting.
            let late = lifetimes.validity(CacheTime(last_put), &some(), 0.0);
            prop_assert!(late.put_before <= entry.expires_at, "{late:?} {entry:?}");
            if millis >= 7_000 {
                let other = Lifetimes::new(Duration::from_millis(other_millis));
                prop_assert!(other.validity(CacheTime(last_put), &some(), 0.0).put_before <= entry.expires_at);
            }
        }
    }

    #[test]
    fn a_cache_url_is_checked_and_never_shown() {
        for good in ["memory:", "redis://:secret@127.0.0.1:1/7", "rediss://host"] {
            assert_eq!(format!("{:?}", CacheUrl::new(good).unwrap()), "CacheUrl(…)");
        }
        for bad in [
            "",
            "memory",
            "http://host",
            "redis://host:secret",
            "unix:///tmp/x",
            "redis://h/db",
        ] {
            assert_eq!(CacheUrl::new(bad), Err(InvalidCacheUrl), "{bad}");
        }
    }
}
