//! One suite over both caches.

use std::time::Duration;

use servicechain_fixtures::{Proxy, Redis, await_condition};
use servicechain_item_service::cache::{CacheKey, CacheTime, ItemCache, Lifetimes, LookUp, Put};
use servicechain_item_service::item::{Stored, Version};

use crate::support::{DEADLINE, cache, item, key, open, version};

macro_rules! on_every_cache {
    ($($name:ident),* $(,)?) => {
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                let url = servicechain_fixtures::Redis::shared().unwrap().fresh_keyspace();
                super::$name(super::cache(&url).await, super::a_key().await).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::cache("memory:").await, super::a_key().await).await;
            })*
        }
    };
}

on_every_cache! {
    what_was_put_is_found_until_its_time_ends,
    a_higher_version_replaces_a_lower_one_and_never_the_other_way,
    a_put_after_its_window_is_refused,
    the_time_of_a_miss_is_the_caches_own,
    a_large_item_comes_back_whole,
}

async fn a_key() -> CacheKey {
    CacheKey::new(&open("sqlite::memory:").await.1, &key("1"))
}

fn stored(number: u64, json: &str) -> Stored {
    Stored {
        version: version(number),
        item: Some(item(json)),
    }
}

async fn missed_at(cache: &ItemCache, key: &CacheKey) -> CacheTime {
    let LookUp::Miss(time) = cache.look_up(key).await else {
        panic!("a hit in an empty cache")
    };
    time
}

async fn put(cache: &ItemCache, key: &CacheKey, stored: &Stored, taken: CacheTime, life: Duration) -> Put {
    cache
        .put_if_newer(key, stored, Lifetimes::new(life).validity(taken, stored, 0.0))
        .await
}

async fn what_was_put_is_found_until_its_time_ends(cache: ItemCache, key: CacheKey) {
    let life = Duration::from_millis(400);
    let begun = std::time::Instant::now();
    let taken = missed_at(&cache, &key).await;
    assert_eq!(
        put(&cache, &key, &stored(7, "{\"a\": 1}"), taken, life).await,
        Put::Stored
    );
    if let found @ LookUp::Hit(_) = cache.look_up(&key).await {
        assert_eq!(found, LookUp::Hit(stored(7, "{\"a\": 1}")));
    } else {
        assert!(begun.elapsed() >= life, "the entry ended before its time");
    }
    await_condition("the entry's end", DEADLINE, async || {
        match cache.look_up(&key).await {
            LookUp::Miss(_) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await
    .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(399));
}

async fn a_higher_version_replaces_a_lower_one_and_never_the_other_way(cache: ItemCache, key: CacheKey) {
    let taken = missed_at(&cache, &key).await;
    let life = Duration::from_mins(1);
    assert_eq!(
        put(&cache, &key, &Stored::MISSING, taken, life).await,
        Put::Stored
    );
    assert_eq!(cache.look_up(&key).await, LookUp::Hit(Stored::MISSING));
    // Versions of 16 digits, where a careless comparison of texts or small numbers would fail.
    for (number, expected) in [
        (99, Put::Stored),
        (1_800_000_000_000, Put::Stored),
        (99, Put::NotNewer),
        (1_800_000_000_000, Put::NotNewer),
    ] {
        assert_eq!(
            put(&cache, &key, &stored(number, "{}"), taken, life).await,
            expected,
            "{number}"
        );
    }
    assert_eq!(
        put(&cache, &key, &stored(1_800_000_000_001, "{\"b\":2}"), taken, life).await,
        Put::Stored
    );
    assert_eq!(
        put(&cache, &key, &Stored::MISSING, taken, life).await,
        Put::NotNewer
    );
    assert_eq!(
        cache.look_up(&key).await,
        LookUp::Hit(stored(1_800_000_000_001, "{\"b\":2}"))
    );
    let deleted = Stored {
        version: version(1_800_000_000_002),
        item: None,
    };
    assert_eq!(put(&cache, &key, &deleted, taken, life).await, Put::Stored);
    assert_eq!(cache.look_up(&key).await, LookUp::Hit(deleted));
}

async fn a_put_after_its_window_is_refused(cache: ItemCache, key: CacheKey) {
    let taken = missed_at(&cache, &key).await;
    await_condition("the window's end", DEADLINE, async || {
        match put(&cache, &key, &stored(7, "{}"), taken, Duration::from_millis(8)).await {
            Put::TooLate => Ok(()),
            put => Err(format!("{put:?}")),
        }
    })
    .await
    .unwrap();
}

async fn the_time_of_a_miss_is_the_caches_own(cache: ItemCache, key: CacheKey) {
    let before = cache.time().await.unwrap();
    let missed = missed_at(&cache, &key).await;
    let after = cache.time().await.unwrap();
    assert!(before <= missed && missed <= after);
}

async fn a_large_item_comes_back_whole(cache: ItemCache, key: CacheKey) {
    let taken = missed_at(&cache, &key).await;
    let json = format!("{{\"a\":\"{}\"}}", "é\\n\\u0000".repeat(4000));
    let large = stored(7, &json);
    assert_eq!(
        put(&cache, &key, &large, taken, Duration::from_mins(1)).await,
        Put::Stored
    );
    assert_eq!(cache.look_up(&key).await, LookUp::Hit(large));
}

#[tokio::test]
async fn items_of_other_owners_ids_or_databases_have_other_keys() {
    use servicechain_item_service::item::{ItemKey, Owner};
    let (one, other) = (open("sqlite::memory:").await.1, open("sqlite::memory:").await.1);
    let of = |issuer: &str, subject: &str, id: &str| ItemKey {
        owner: Owner::new(issuer, subject),
        id: key(id).id,
    };
    let items = [
        of("i", "s", "1"),
        of("i", "s", "2"),
        of("i", "t", "1"),
        of("j", "s", "1"),
        of("is", "", "1"),
    ];
    let keys: std::collections::HashSet<_> = items
        .iter()
        .flat_map(|item| [CacheKey::new(&one, item), CacheKey::new(&other, item)])
        .collect();
    assert_eq!(keys.len(), 2 * items.len());
}

#[tokio::test]
async fn a_stopped_redis_is_unavailable_at_once_and_used_again_when_it_is_back() {
    let mut server = Redis::start().unwrap();
    let (cache, key) = (cache(&server.url()).await, a_key().await);
    server.stop().unwrap();
    assert_eq!(cache.look_up(&key).await, LookUp::Unavailable);
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(cache.look_up(&key).await, LookUp::Unavailable);
        assert_eq!(cache.time().await, None);
    }
    assert!(
        begun.elapsed() < Duration::from_millis(250),
        "an open circuit waits for nobody: {:?}",
        begun.elapsed()
    );
    server.start_again().unwrap();
    await_condition("Redis to be used again", DEADLINE, async || {
        match cache.look_up(&key).await {
            LookUp::Miss(_) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_silent_redis_costs_a_fraction_of_a_second_and_then_nothing() {
    let server = Redis::shared().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let (cache, key) = (
        cache(&proxy.in_front_of(&server.fresh_keyspace())).await,
        a_key().await,
    );
    proxy.stall();
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(cache.look_up(&key).await, LookUp::Unavailable);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    proxy.mend();
    await_condition("Redis to be used again", DEADLINE, async || {
        match cache.look_up(&key).await {
            LookUp::Miss(_) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_entry_that_nobody_of_us_wrote_is_no_hit() {
    let url = Redis::shared().unwrap().fresh_keyspace();
    let (cache, key) = (cache(&url).await, a_key().await);
    let taken = missed_at(&cache, &key).await;
    put(&cache, &key, &stored(7, "{}"), taken, Duration::from_mins(1)).await;
    let mut direct = ::redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let names: Vec<String> = ::redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut direct)
        .await
        .unwrap();
    assert_eq!(names.len(), 1);
    assert!(!names[0].contains("alice"), "{names:?}");
    for (field, value) in [
        ("version", "seven"),
        ("version", "-1"),
        ("item", "[]"),
        ("item", "{"),
    ] {
        let _: () = ::redis::cmd("HSET")
            .arg(&names[0])
            .arg(field)
            .arg(value)
            .query_async(&mut direct)
            .await
            .unwrap();
        assert!(
            matches!(cache.look_up(&key).await, LookUp::Miss(_)),
            "{field} {value}"
        );
    }
    assert_eq!(Version::MISSING.number(), 0);
}
