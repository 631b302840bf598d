//! The database behind a hop: PostgreSQL, or SQLite for one machine. Both keep one contract, tested by one suite:
//! a write takes the row's lock, decides under it, and gives the row a higher version.

mod postgres;
mod queries;
mod sqlite;

use std::fmt;
use std::time::{Duration, SystemTime};

use sqlx::Connection as _;
use sqlx::migrate::MigrateError;

use crate::item::{Item, ItemKey, Stored, Version};
use crate::pause::PausePoints;

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Connections of one replica. Two replicas stay well below the 50 that a managed PostgreSQL takes.
const MAX_CONNECTIONS: u32 = 10;
/// How long a request waits for a connection before it is told that the database is not available.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one step in the database may take: a read, a write up to its commit, a commit.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a starting service waits for a database that does not answer yet: on Kubernetes both are made together, and
/// a new database needs its volume first.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a starting replica waits for another one that migrates.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);

const READ: &str = "SELECT version, item FROM items WHERE owner = $1 AND id = $2";
/// Takes the row's lock, making an empty row if there is none: the one way to lock what is not there yet.
const LOCK: &str = "INSERT INTO items (owner, id, version, issuer, subject) VALUES ($1, $2, 0, $3, $4) \
                    ON CONFLICT (owner, id) DO UPDATE SET version = items.version RETURNING version, item IS NOT NULL";
const WRITE: &str = "UPDATE items SET version = $3, item = $4 WHERE owner = $1 AND id = $2";
const IDENTITY: &str = "SELECT id FROM identity";

/// Where items are kept.
#[derive(Clone, Debug)]
pub enum ItemStore {
    Postgres(PostgresStore),
    Sqlite(SqliteStore),
}

/// Which database this is, made with it: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity([u8; 16]);

/// A row as a write finds it, under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowState {
    pub version: Version,
    /// False if there is no item: never written, or deleted.
    pub exists: bool,
}

/// Whether a row like this may be written.
pub type Condition = dyn Fn(RowState) -> bool + Send + Sync;

/// A write that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub version: Version,
    /// There was no item before.
    pub created: bool,
}

/// Why a database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is starting or stopping, or has no connection left. Nothing was written.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// A step took longer than it may. Nothing was written.
    #[error("the database did not answer in time")]
    Slow,
    /// The connection was lost while the commit was under way: it may have happened.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown,
    /// A mistake of ours, or a row that somebody else wrote.
    #[error("the database refused the operation")]
    Broken(#[source] sqlx::Error),
    /// The condition did not hold. Nothing was written.
    #[error("the item's version is {} and the condition does not hold", .0.version)]
    ConditionFailed(RowState),
}

/// Why a database cannot be used at all, as a sentence for whoever started the service.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("must begin with postgres:// or sqlite: and be a valid URL of that kind")]
    Url,
    #[error("cannot reach the database at {place}: {reason}")]
    Unreachable { place: String, reason: String },
    #[error("cannot bring the database at {place} up to date")]
    Migrate { place: String, source: MigrateError },
    #[error("the database at {place} is being migrated by another replica for more than a minute")]
    MigrationLocked { place: String },
}

impl ItemStore {
    /// Connects, brings the schema up to date and reads which database this is.
    ///
    /// Several replicas may do so at once: with PostgreSQL an advisory lock lets one migrate and the others wait.
    /// Waits up to 5 s for a database that is still starting.
    pub async fn open(url: &DatabaseUrl) -> Result<(Self, StoreIdentity), OpenError> {
        if url.is_sqlite() {
            let (store, identity) = SqliteStore::open(url).await?;
            Ok((Self::Sqlite(store), identity))
        } else {
            let (store, identity) = PostgresStore::open(url).await?;
            Ok((Self::Postgres(store), identity))
        }
    }

    /// The row as it is now.
    pub async fn get(&self, key: &ItemKey) -> Result<Stored, StoreError> {
        match self {
            Self::Postgres(store) => store.get(key).await,
            Self::Sqlite(store) => store.get(key).await,
        }
    }

    /// Writes the item under the row's lock, if the condition holds, with a version of `now` or above the row's.
    pub async fn put(
        &self,
        key: &ItemKey,
        item: &Item,
        condition: &Condition,
        now: SystemTime,
        pauses: &PausePoints,
    ) -> Result<Written, StoreError> {
        match self {
            Self::Postgres(store) => store.put(key, item, condition, now, pauses).await,
            Self::Sqlite(store) => store.put(key, item, condition, now, pauses).await,
        }
    }
}

impl StoreIdentity {
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn from_row(bytes: Vec<u8>) -> Result<Self, sqlx::Error> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| sqlx::Error::Decode("identity.id is not 16 bytes".into()))
    }
}

/// A database's URL, password included; it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Takes `postgres://…`, `postgresql://…`, `sqlite://PATH` and `sqlite::memory:`.
    pub fn new(url: impl Into<String>) -> Result<Self, OpenError> {
        let this = Self(url.into());
        let is_valid = if this.is_sqlite() {
            sqlite::options(&this).is_some()
        } else {
            this.0.starts_with("postgres") && postgres::options(&this).is_some()
        };
        if is_valid { Ok(this) } else { Err(OpenError::Url) }
    }

    fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = OpenError;

    fn from_str(url: &str) -> Result<Self, OpenError> {
        Self::new(url)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(…)")
    }
}

fn row_to_stored((version, item): (i64, Option<String>)) -> Result<Stored, StoreError> {
    let item = item.map(|json| Item::from_stored(json).ok_or_else(|| broken("items.item is no JSON object")));
    Ok(Stored {
        version: row_to_version(version)?,
        item: item.transpose()?,
    })
}

fn row_to_version(version: i64) -> Result<Version, StoreError> {
    u64::try_from(version)
        .ok()
        .and_then(Version::new)
        .ok_or_else(|| broken("items.version is out of range"))
}

fn broken(what: &'static str) -> StoreError {
    StoreError::Broken(sqlx::Error::Decode(what.into()))
}

fn version_to_row(version: Version) -> i64 {
    // Versions end far below.
    i64::try_from(version.number()).unwrap_or(i64::MAX)
}

/// A text column takes everything but NUL; these columns are for people, and the digest identifies the owner.
fn readable(claim: &str) -> String {
    claim.replace('\0', "\u{fffd}")
}

fn failed(error: sqlx::Error) -> StoreError {
    use sqlx::Error as E;
    let is_passing = match &error {
        E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => true,
        // SQLSTATE classes: connection, transaction rolled back, resources, operator intervention (PostgreSQL,
        // appendix A), and a standby that takes no writes. SQLite: busy and locked.
        E::Database(error) => error.code().is_some_and(|code| {
            ["08", "40", "53", "57"]
                .iter()
                .any(|class| code.len() == 5 && code.starts_with(class))
                || ["25006", "5", "6", "517"].contains(&code.as_ref())
        }),
        _ => false,
    };
    if is_passing {
        StoreError::Unavailable(error)
    } else {
        StoreError::Broken(error)
    }
}

/// Bounds everything before a commit: when it is late, dropping it rolls back.
async fn bounded<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(STEP_TIMEOUT, step)
        .await
        .unwrap_or(Err(StoreError::Slow))
}

/// Bounds a commit, after which a lost connection leaves the outcome open.
async fn bounded_commit(commit: impl Future<Output = Result<(), sqlx::Error>>) -> Result<(), StoreError> {
    match tokio::time::timeout(STEP_TIMEOUT, commit).await {
        Ok(Ok(())) => Ok(()),
        // The server itself said that it did not commit.
        Ok(Err(error @ sqlx::Error::Database(_))) => Err(failed(error)),
        Ok(Err(_)) | Err(_) => Err(StoreError::OutcomeUnknown),
    }
}

/// Waits while the server refuses connections or says that it is starting. It connects by itself, since a pool
/// would say only that time is over.
async fn reach<O: sqlx::ConnectOptions<Connection: Sized>>(
    options: &O,
    place: &str,
) -> Result<(), OpenError> {
    let until = tokio::time::Instant::now() + START_TIMEOUT;
    let mut is_said = false;
    loop {
        let error = match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                // Whether it says goodbye does not matter.
                let _ = connection.close().await;
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        };
        let is_starting = match &error {
            sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => error.code().as_deref() == Some("57P03"),
            _ => false,
        };
        if !is_starting || tokio::time::Instant::now() >= until {
            return Err(OpenError::Unreachable {
                place: place.to_owned(),
                reason: error.to_string(),
            });
        }
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!(place, %error, "the database does not answer yet; waiting for it");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs what the schema lacks. An older replica may start beside a newer schema: migrations only ever add.
async fn migrate<DB: sqlx::Database>(
    mut migrator: sqlx::migrate::Migrator,
    pool: &sqlx::Pool<DB>,
    place: &str,
) -> Result<(), OpenError>
where
    DB::Connection: sqlx::migrate::Migrate,
{
    migrator.set_ignore_missing(true);
    match tokio::time::timeout(MIGRATION_TIMEOUT, migrator.run(pool)).await {
        Ok(result) => result.map_err(|source| OpenError::Migrate {
            place: place.to_owned(),
            source,
        }),
        Err(_) => Err(OpenError::MigrationLocked {
            place: place.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_is_checked_and_never_shown() {
        for good in [
            "postgres://u:secret@h/db",
            "postgresql://h:1/db",
            "sqlite:///tmp/x.db",
            "sqlite::memory:",
        ] {
            let url = DatabaseUrl::new(good).unwrap();
            assert_eq!(format!("{url:?}"), "DatabaseUrl(…)");
        }
        for bad in [
            "",
            "mysql://u:secret@h/db",
            "postgres:// h",
            "/tmp/x.db",
            "postgres://u:secret@h:port/db",
        ] {
            let error = DatabaseUrl::new(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{bad}");
        }
    }
}
