//! The store over SQLite: one file, or memory, and one process.

use std::str::FromStr;
use std::time::SystemTime;

use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::queries::item_queries;
use super::{
    ACQUIRE_TIMEOUT, Condition, DatabaseUrl, IDENTITY, LOCK, OpenError, READ, RowState, STEP_TIMEOUT,
    StoreError, StoreIdentity, WRITE, Written, bounded, bounded_commit, failed, migrate, reach, readable,
    row_to_stored, row_to_version, version_to_row,
};
use crate::item::{Item, ItemKey, Stored};
use crate::pause::{Moment, PausePoints};

/// Readers go on beside the one writer that SQLite has.
const MAX_CONNECTIONS: u32 = 4;
/// A write takes the database's lock at once: taking it at the first write could deadlock with another reader.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Items in SQLite.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
}

pub(super) fn options(url: &DatabaseUrl) -> Option<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(&url.0).ok()?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(STEP_TIMEOUT)
        .disable_statement_logging();
    Some(options)
}

impl SqliteStore {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<(Self, StoreIdentity), OpenError> {
        let options = options(url).ok_or(OpenError::Url)?;
        let is_memory = url.0.contains(":memory:") || url.0.contains("mode=memory");
        let place = if is_memory {
            "memory".to_owned()
        } else {
            options.get_filename().display().to_string()
        };
        reach(&options, &place).await?;
        // A database in memory lives in its one connection, which therefore never ends.
        let pool = SqlitePoolOptions::new()
            .max_connections(if is_memory { 1 } else { MAX_CONNECTIONS })
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        migrate(sqlx::migrate!("migrations/sqlite"), &pool, &place).await?;
        let identity = sqlx::query_scalar(IDENTITY)
            .fetch_one(&pool)
            .await
            .and_then(StoreIdentity::from_row);
        let identity = identity.map_err(|error| OpenError::Unreachable {
            place,
            reason: error.to_string(),
        })?;
        Ok((Self { pool }, identity))
    }
}

item_queries!(SqliteStore, BEGIN);
