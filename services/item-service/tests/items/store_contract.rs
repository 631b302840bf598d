//! One suite over both stores.

use std::time::{Duration, SystemTime};

use servicechain_item_service::item::{ItemId, ItemKey, MAX_ITEM_BYTES, Owner, Stored, Version};
use servicechain_item_service::pause::{Moment, PausePoints};
use servicechain_item_service::store::{DatabaseUrl, ItemStore, RowState, StoreError, Written};

use crate::support::{Hold, item, key, open};

/// Runs each test on a fresh PostgreSQL database, a fresh SQLite file and an SQLite database in memory.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let url = servicechain_fixtures::Postgres::shared().unwrap().fresh_database().unwrap();
                super::$name(super::open(&url).await.0).await;
            })*
        }
        mod sqlite_file {
            $(#[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("items.db").display());
                super::$name(super::open(&url).await.0).await;
            })*
        }
        mod sqlite_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::open("sqlite::memory:").await.0).await;
            })*
        }
    };
}

on_every_store! {
    what_was_put_is_there_byte_for_byte_and_nothing_else_is,
    another_owners_item_is_not_there,
    a_long_subject_or_one_with_odd_characters_has_its_own_items,
    versions_grow_whatever_the_clock_says,
    a_write_whose_condition_fails_changes_nothing,
    a_failed_condition_leaves_no_row_behind,
    concurrent_writers_each_get_their_own_version,
    of_concurrent_creators_exactly_one_finds_nothing,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

async fn put(store: &ItemStore, key: &ItemKey, json: &str) -> Written {
    store
        .put(key, &item(json), &|_| true, now(), &PausePoints::default())
        .await
        .unwrap()
}

async fn what_was_put_is_there_byte_for_byte_and_nothing_else_is(store: ItemStore) {
    assert_eq!(store.get(&key("1")).await.unwrap(), Stored::MISSING);
    let large = format!("{{\"a\":\"{}\"}}", "ä".repeat((MAX_ITEM_BYTES - 8) / 2));
    for json in [
        "{ \"b\":1,  \"a\":1.0, \"a\":\"\\u0000\", \"c\":\"\\ud83d\\ude00 € \"}",
        "{}",
        &large,
    ] {
        let written = put(&store, &key("1"), json).await;
        let stored = store.get(&key("1")).await.unwrap();
        assert_eq!(stored.item.unwrap().as_json(), json);
        assert_eq!(stored.version, written.version);
    }
    assert_eq!(store.get(&key("2")).await.unwrap(), Stored::MISSING);
}

async fn another_owners_item_is_not_there(store: ItemStore) {
    put(&store, &key("1"), "{}").await;
    for (issuer, subject) in [
        ("https://issuer.example", "bob"),
        ("https://other.example", "alice"),
        ("https://issuer.exampl", "ealice"),
        ("https://issuer.example", "ALICE"),
    ] {
        let other = ItemKey {
            owner: Owner::new(issuer, subject),
            id: key("1").id,
        };
        assert_eq!(
            store.get(&other).await.unwrap(),
            Stored::MISSING,
            "{issuer} {subject}"
        );
    }
    let other_case = ItemKey {
        owner: key("1").owner,
        id: ItemId::new("A").unwrap(),
    };
    put(&store, &other_case, "{}").await;
    assert_eq!(store.get(&key("a")).await.unwrap(), Stored::MISSING);
}

async fn a_long_subject_or_one_with_odd_characters_has_its_own_items(store: ItemStore) {
    let long = "x".repeat(50_000);
    for (number, subject) in [
        long.as_str(),
        "a\0b",
        "a\u{fffd}b",
        "'; drop table items; --",
        "é",
    ]
    .iter()
    .enumerate()
    {
        let key = ItemKey {
            owner: Owner::new("https://issuer.example", subject),
            id: key("1").id,
        };
        assert_eq!(store.get(&key).await.unwrap(), Stored::MISSING);
        put(&store, &key, &format!("{{\"number\":{number}}}")).await;
        assert_eq!(
            store.get(&key).await.unwrap().item.unwrap().as_json(),
            format!("{{\"number\":{number}}}")
        );
    }
}

async fn versions_grow_whatever_the_clock_says(store: ItemStore) {
    let at = async |now| {
        store
            .put(&key("1"), &item("{}"), &|_| true, now, &PausePoints::default())
            .await
            .unwrap()
            .version
            .number()
    };
    assert_eq!(at(now()).await, 1_800_000_000_000);
    assert_eq!(at(now()).await, 1_800_000_000_001);
    assert_eq!(at(SystemTime::UNIX_EPOCH).await, 1_800_000_000_002);
    assert_eq!(at(now() + Duration::from_secs(1)).await, 1_800_000_001_000);
}

async fn a_write_whose_condition_fails_changes_nothing(store: ItemStore) {
    let written = put(&store, &key("1"), "{\"n\":1}").await;
    assert!(written.created);
    let refused = store
        .put(
            &key("1"),
            &item("{\"n\":2}"),
            &|row| row.version == Version::MISSING,
            now(),
            &PausePoints::default(),
        )
        .await;
    let Err(StoreError::ConditionFailed(row)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        row,
        RowState {
            version: written.version,
            exists: true
        }
    );
    assert_eq!(
        store.get(&key("1")).await.unwrap().item.unwrap().as_json(),
        "{\"n\":1}"
    );
    assert!(!put(&store, &key("1"), "{\"n\":3}").await.created);
}

async fn a_failed_condition_leaves_no_row_behind(store: ItemStore) {
    let refused = store
        .put(
            &key("1"),
            &item("{}"),
            &|row| row.exists,
            now(),
            &PausePoints::default(),
        )
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::ConditionFailed(RowState { exists: false, .. }))
    ));
    assert_eq!(store.get(&key("1")).await.unwrap(), Stored::MISSING);
    assert!(put(&store, &key("1"), "{}").await.created);
}

async fn concurrent_writers_each_get_their_own_version(store: ItemStore) {
    let writers = (0..8).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            put(&store, &key("1"), &format!("{{\"n\":{number}}}"))
                .await
                .version
        })
    });
    let mut versions = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        versions.push(writer.await.unwrap());
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 8);
    assert_eq!(
        store.get(&key("1")).await.unwrap().version,
        *versions.last().unwrap()
    );
}

async fn of_concurrent_creators_exactly_one_finds_nothing(store: ItemStore) {
    let creators = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .put(
                    &key("1"),
                    &item("{}"),
                    &|row| !row.exists,
                    now(),
                    &PausePoints::default(),
                )
                .await
        })
    });
    let mut created = 0;
    for creator in creators.collect::<Vec<_>>() {
        match creator.await.unwrap() {
            Ok(written) => created += usize::from(written.created),
            Err(StoreError::ConditionFailed(row)) => assert!(row.exists),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn a_writer_that_dies_before_its_commit_leaves_the_row_unlocked_and_unchanged() {
    let url = servicechain_fixtures::Postgres::shared()
        .unwrap()
        .fresh_database()
        .unwrap();
    let (store, _) = open(&url).await;
    let before = put(&store, &key("1"), "{}").await;
    let (pauses, mut held) = Hold::first_at(Moment::BeforeCommit);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .put(&key("1"), &item("{\"n\":2}"), &|_| true, now(), &pauses)
                .await
        })
    };
    held.arrived().await;
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    assert_eq!(store.get(&key("1")).await.unwrap().version, before.version);
    assert!(put(&store, &key("1"), "{}").await.version > before.version);
}

#[tokio::test]
async fn replicas_that_start_at_once_on_an_empty_database_all_start_and_agree_which_it_is() {
    let url = servicechain_fixtures::Postgres::shared()
        .unwrap()
        .fresh_database()
        .unwrap();
    let replicas: Vec<_> = (0..6)
        .map(|_| {
            let url = DatabaseUrl::new(url.as_str()).unwrap();
            tokio::spawn(async move { ItemStore::open(&url).await.unwrap().1 })
        })
        .collect();
    let mut identities = Vec::new();
    for replica in replicas {
        identities.push(replica.await.unwrap());
    }
    assert!(identities.windows(2).all(|pair| pair[0] == pair[1]));
    let other = servicechain_fixtures::Postgres::shared()
        .unwrap()
        .fresh_database()
        .unwrap();
    assert_ne!(open(&other).await.1, identities[0]);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_in_one_sentence_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = DatabaseUrl::new(format!("postgres://app:secret@{free}/items")).unwrap();
    // It is waited for in vain.
    tokio::time::pause();
    let error = format!(
        "{:#}",
        anyhow::Error::from(ItemStore::open(&url).await.unwrap_err())
    );
    tokio::time::resume();
    assert!(
        error.contains(&format!("cannot reach the database at {free}: ")),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");

    let url = servicechain_fixtures::Postgres::shared()
        .unwrap()
        .fresh_database()
        .unwrap();
    let absent = DatabaseUrl::new(url.replace("/test_", "/absent_")).unwrap();
    let error = format!(
        "{:#}",
        anyhow::Error::from(ItemStore::open(&absent).await.unwrap_err())
    );
    assert!(error.contains("does not exist"), "{error}");
}

#[tokio::test]
async fn a_stopped_database_is_unavailable_and_comes_back_with_what_it_had() {
    let mut postgres = servicechain_fixtures::Postgres::start().unwrap();
    let (store, _) = open(&postgres.fresh_database().unwrap()).await;
    put(&store, &key("1"), "{\"n\":1}").await;
    postgres.stop().unwrap();
    assert!(matches!(
        store.get(&key("1")).await,
        Err(StoreError::Unavailable(_))
    ));
    let refused = store
        .put(&key("1"), &item("{}"), &|_| true, now(), &PausePoints::default())
        .await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    postgres.start_again().unwrap();
    let back = servicechain_fixtures::await_condition("the database", crate::support::DEADLINE, async || {
        store.get(&key("1")).await
    });
    assert_eq!(back.await.unwrap().item.unwrap().as_json(), "{\"n\":1}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_has_an_unknown_outcome() {
    let postgres = servicechain_fixtures::Postgres::shared().unwrap();
    let proxy = servicechain_fixtures::Proxy::start(postgres.address()).unwrap();
    let (store, _) = open(&proxy.in_front_of(&postgres.fresh_database().unwrap())).await;
    let (pauses, mut held) = Hold::first_at(Moment::BeforeCommit);
    let writer =
        tokio::spawn(async move { store.put(&key("1"), &item("{}"), &|_| true, now(), &pauses).await });
    held.arrived().await;
    proxy.cut();
    held.let_go();
    let outcome = writer.await.unwrap();
    assert!(matches!(outcome, Err(StoreError::OutcomeUnknown)), "{outcome:?}");
}
