//! The cache's contract in Redis. An entry is a hash of `version` and `item`; its end is the key's own expiry.
//!
//! Nothing here fails a request: what does not answer within a fraction of a second is `Unavailable`, and counted.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Script};

use super::circuit::{Circuit, Failure, Leave};
use super::{CacheKey, CacheTime, LookUp, Put, Validity};
use crate::item::{Item, Stored, Version};

/// A cache that takes longer is slower than the database it should spare.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

static PUT_IF_NEWER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("put_if_newer.lua")));

/// One multiplexed connection, replaced when it fails.
pub struct RedisCache {
    client: Client,
    circuit: Arc<Mutex<Circuit<MultiplexedConnection>>>,
}

impl RedisCache {
    /// Nothing is connected before [`RedisCache::connect`] or the first operation.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            circuit: Arc::new(Mutex::new(Circuit::new())),
        }
    }

    /// Connects now, so that the first request finds a connection; false if Redis is not there.
    pub async fn connect(&self) -> bool {
        if !matches!(lock(&self.circuit).enter(), Leave::Connect) {
            return true;
        }
        attempt(self.client.clone(), Arc::clone(&self.circuit)).await
    }

    pub(super) async fn look_up(&self, key: &CacheKey) -> LookUp {
        let name = key.name();
        let found = self.run(async |mut connection| {
            let mut pipeline = redis::pipe();
            pipeline.hmget(&name, &["version", "item"]).cmd("TIME");
            let answer: ((Option<String>, Option<String>), (u64, u64)) =
                pipeline.query_async(&mut connection).await?;
            Ok(answer)
        });
        match found.await {
            None => LookUp::Unavailable,
            Some((entry, time)) => read(entry).map_or(LookUp::Miss(cache_time(time)), LookUp::Hit),
        }
    }

    pub(super) async fn time(&self) -> Option<CacheTime> {
        let time = self.run(async |mut connection| redis::cmd("TIME").query_async(&mut connection).await);
        time.await.map(cache_time)
    }

    pub(super) async fn put_if_newer(&self, key: &CacheKey, stored: &Stored, validity: Validity) -> Put {
        let item = stored.item.as_ref().map_or("", Item::as_json);
        let mut put = PUT_IF_NEWER.key(key.name());
        put.arg(stored.version.number())
            .arg(item)
            .arg(validity.put_before.0)
            .arg(validity.expires_at.0);
        let answer: Option<String> = self
            .run(async |mut connection| put.invoke_async(&mut connection).await)
            .await;
        match answer.as_deref() {
            Some("stored") => Put::Stored,
            Some("not newer") => Put::NotNewer,
            Some("too late") => Put::TooLate,
            _ => Put::Unavailable,
        }
    }

    /// `None` if the circuit is open or the operation failed.
    async fn run<T>(
        &self,
        operation: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let entered = lock(&self.circuit).enter();
        let (connection, generation) = match entered {
            Leave::Use(connection, generation) => (connection, generation),
            Leave::Skip => return None,
            Leave::Connect => {
                // Beside the request, which goes on without the cache.
                tokio::spawn(attempt(self.client.clone(), Arc::clone(&self.circuit)));
                return None;
            }
        };
        let result = tokio::time::timeout(OPERATION_TIMEOUT, operation(connection)).await;
        let mut circuit = lock(&self.circuit);
        let failure = match result {
            Ok(Ok(value)) => {
                circuit.succeeded(generation);
                return Some(value);
            }
            Ok(Err(error)) => {
                let failure = judge(&error);
                tracing::debug!(kind = ?error.kind(), ?failure, "the cache refused an operation");
                failure
            }
            Err(_) => Failure::Refused,
        };
        circuit.failed(generation, failure);
        None
    }
}

async fn attempt(client: Client, circuit: Arc<Mutex<Circuit<MultiplexedConnection>>>) -> bool {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    // The library's own timeout is for the socket; a server that accepts and stays silent is bounded here.
    let (connection, failure) = match tokio::time::timeout(CONNECT_TIMEOUT, connection).await {
        Ok(Ok(connection)) => (Some(connection), None),
        // Its text may name the server and no password, yet the kind says enough.
        Ok(Err(error)) => (None, Some(format!("{:?}", error.kind()))),
        Err(_) => (None, Some("no answer in time".to_owned())),
    };
    let is_connected = connection.is_some();
    let is_news = lock(&circuit).connected(connection);
    match failure {
        Some(failure) if is_news => {
            tracing::warn!(failure, "the cache cannot be reached; the database answers alone");
        }
        None if is_news => tracing::info!("the cache is there"),
        _ => {}
    }
    is_connected
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn judge(error: &RedisError) -> Failure {
    if error.is_io_error() || error.is_unrecoverable_error() {
        Failure::Broken
    } else {
        Failure::Refused
    }
}

/// `None` if there is no entry, or one that nobody of us wrote: then the database answers.
fn read((version, item): (Option<String>, Option<String>)) -> Option<Stored> {
    let version = Version::new(version?.parse().ok()?)?;
    let item = match item? {
        none if none.is_empty() => None,
        json => Some(Item::from_stored(json)?),
    };
    Some(Stored { version, item })
}

/// Redis' `TIME`: seconds and microseconds, rounded down.
fn cache_time((seconds, micros): (u64, u64)) -> CacheTime {
    CacheTime(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client would show its address and password.
        formatter.debug_struct("RedisCache").finish_non_exhaustive()
    }
}
