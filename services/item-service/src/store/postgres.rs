//! The store over PostgreSQL.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::queries::item_queries;
use super::{
    ACQUIRE_TIMEOUT, Condition, DatabaseUrl, IDENTITY, LOCK, MAX_CONNECTIONS, OpenError, READ, RowState,
    StoreError, StoreIdentity, WRITE, Written, bounded, bounded_commit, failed, migrate, reach, readable,
    row_to_stored, row_to_version, version_to_row,
};
use crate::item::{Item, ItemKey, Stored};
use crate::pause::{Moment, PausePoints};

/// A connection idle for longer is asked whether it lives before it is used. A younger one is not: that would
/// double the round trips of every read.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Items in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pool: PgPool,
}

pub(super) fn options(url: &DatabaseUrl) -> Option<PgConnectOptions> {
    let options = PgConnectOptions::from_str(&url.0).ok()?;
    Some(
        options
            .application_name("servicechain-item-service")
            .disable_statement_logging(),
    )
}

impl PostgresStore {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<(Self, StoreIdentity), OpenError> {
        let options = options(url).ok_or(OpenError::Url)?;
        let place = format!("{}:{}", options.get_host(), options.get_port());
        reach(&options, &place).await?;
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        migrate(sqlx::migrate!("migrations/postgres"), &pool, &place).await?;
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

item_queries!(PostgresStore, "BEGIN");
