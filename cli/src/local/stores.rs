//! Where services keep their data: embedded, or on servers that were given. On a server every service gets a
//! database, or a keyspace, of its own, as on Kubernetes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use servicechain_crds::ValidatedChain;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

/// A server on this machine or near it answers at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Keyspaces of a Redis server, unless somebody configured more.
const REDIS_KEYSPACES: usize = 16;

/// Database and cache of each service, in the order of the chain.
pub(crate) struct Stores {
    pub services: Vec<Store>,
    kind: String,
}

/// URLs hold passwords; they are never shown.
pub(crate) struct Store {
    pub database_url: String,
    /// `None`: the chain gives the service no cache.
    pub redis_url: Option<String>,
}

impl Stores {
    /// In words, for the first line.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }
}

pub(crate) async fn open(
    chain: &ValidatedChain,
    postgres: Option<&str>,
    redis: Option<&str>,
    data: &Path,
) -> anyhow::Result<Stores> {
    let databases = match postgres {
        Some(url) => on_postgres(chain, url).await?,
        None => on_sqlite(chain, data)?,
    };
    let caches = match redis {
        Some(url) => on_redis(chain, url).await?,
        None => chain.services.iter().map(|_| "memory:".to_owned()).collect(),
    };
    let services = chain.services.iter().zip(databases.into_iter().zip(caches));
    Ok(Stores {
        services: services
            .map(|(service, (database_url, cache))| Store {
                database_url,
                redis_url: service.cache.as_ref().map(|_| cache),
            })
            .collect(),
        kind: match (postgres, redis) {
            (None, None) => "embedded stores (pass --postgres/--redis for real ones)".to_owned(),
            (Some(_), None) => "PostgreSQL, embedded caches (pass --redis for a real one)".to_owned(),
            (None, Some(_)) => "embedded databases (pass --postgres for real ones), Redis".to_owned(),
            (Some(_), Some(_)) => "PostgreSQL and Redis".to_owned(),
        },
    })
}

fn on_sqlite(chain: &ValidatedChain, data: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(data)
        .with_context(|| format!("{} cannot be made: choose another --data", data.display()))?;
    let data = data
        .canonicalize()
        .with_context(|| format!("{} cannot be found", data.display()))?;
    let folder = data
        .to_str()
        .with_context(|| format!("{} is not UTF-8: choose another --data", data.display()))?;
    let url = |name: &str| format!("sqlite://{folder}/{}-{name}.sqlite", chain.name);
    Ok(chain.services.iter().map(|service| url(&service.name)).collect())
}

/// A database for each service, created where it is not there yet.
async fn on_postgres(chain: &ValidatedChain, url: &str) -> anyhow::Result<Vec<String>> {
    let mut base: Uri = url
        .parse()
        .ok()
        .filter(is_postgres)
        .context("--postgres must be a URL such as postgres://USER:PASSWORD@HOST/")?;
    let place = place_of(&base, 5432);
    // sqlx's own parser also reads what stands behind `?`, such as sslmode.
    let options: PgConnectOptions = url
        .parse()
        .map_err(|_| anyhow!("--postgres must be a URL such as postgres://USER:PASSWORD@HOST/"))?;
    let options = if options.get_database().is_none_or(str::is_empty) {
        options.database("postgres")
    } else {
        options
    };
    let connect = tokio::time::timeout(CONNECT_WITHIN, options.connect());
    let cannot = || format!("the PostgreSQL server at {place} cannot be used (--postgres)");
    let mut connection = connect
        .await
        .map_err(|_| anyhow!("it does not answer within {CONNECT_WITHIN:?}"))
        .and_then(|connected| connected.map_err(|error| anyhow!(error)))
        .with_context(cannot)?;
    let mut urls = Vec::new();
    for service in &chain.services {
        let name = format!("{}-{}", chain.name, service.name);
        let there = sqlx::query("SELECT count(*) FROM pg_database WHERE datname = $1").bind(&name);
        if there
            .fetch_one(&mut connection)
            .await
            .with_context(cannot)?
            .get::<i64, _>(0)
            == 0
        {
            // Both names are DNS labels, so quoting them is all they need.
            let create = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
            connection
                .execute(create)
                .await
                .with_context(|| format!("the database {name} cannot be created at {place} (--postgres)"))?;
        }
        base = with_path(&base, &name)?;
        urls.push(base.to_string());
    }
    connection.close().await.with_context(cannot)?;
    Ok(urls)
}

fn is_postgres(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("postgres" | "postgresql")) && url.host().is_some()
}

async fn on_redis(chain: &ValidatedChain, url: &str) -> anyhow::Result<Vec<String>> {
    let says = "--redis must be a URL such as redis://:PASSWORD@HOST";
    let base: Uri = url.parse().ok().context(says)?;
    if !matches!(base.scheme_str(), Some("redis" | "rediss")) || base.host().is_none() {
        bail!(says);
    }
    if chain.services.len() > REDIS_KEYSPACES {
        bail!(
            "a Redis server has {REDIS_KEYSPACES} keyspaces, and the chain has {} services",
            chain.services.len()
        );
    }
    let place = place_of(&base, 6379);
    // Its own parser also reads who logs in, and refuses what the services would refuse.
    let client = redis::Client::open(url).map_err(|_| anyhow!(says))?;
    let ping = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING")
            .query_async::<redis::Value>(&mut connection)
            .await
    };
    tokio::time::timeout(CONNECT_WITHIN, ping)
        .await
        .map_err(|_| anyhow!("it does not answer PING within {CONNECT_WITHIN:?}; is it a Redis server?"))
        .and_then(|answered| answered.map_err(|error| no_redis(&error)))
        .with_context(|| format!("the Redis server at {place} cannot be used (--redis)"))?;
    (0..chain.services.len())
        .map(|number| Ok(with_path(&base, &number.to_string())?.to_string()))
        .collect()
}

/// What a server says no with, in its own words only if they are words of Redis.
fn no_redis(error: &redis::RedisError) -> anyhow::Error {
    let is_said = error.code().is_some() || error.is_io_error();
    match error.to_string().lines().next() {
        Some(words) if is_said => anyhow!("{words}"),
        _ => anyhow!("what answers there is no Redis server"),
    }
}

/// Where a server is, without who logs in.
fn place_of(url: &Uri, default_port: u16) -> String {
    format!(
        "{}:{}",
        url.host().unwrap_or_default(),
        url.port_u16().unwrap_or(default_port)
    )
}

fn with_path(url: &Uri, path: &str) -> anyhow::Result<Uri> {
    let mut parts = url.clone().into_parts();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    parts.path_and_query = Some(format!("/{path}{query}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_its_password() {
        let url: Uri = "postgres://me:secret@db.example.com/x?sslmode=disable"
            .parse()
            .unwrap();
        assert_eq!(place_of(&url, 5432), "db.example.com:5432");
        assert_eq!(
            with_path(&url, "shop-a").unwrap(),
            "postgres://me:secret@db.example.com/shop-a?sslmode=disable"
        );
    }
}
