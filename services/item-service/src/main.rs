//! The item service's process: flags, the configuration file, ports, then the library. It decides nothing by itself.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use servicechain_auth::VerifierArgs;
use servicechain_item_service::config::{Config, ConfigErrors, Places};
use servicechain_item_service::run;
use servicechain_runtime::clock::Clock;
use servicechain_runtime::crypto_provider;
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::telemetry::{self, TelemetryArgs};

/// A service of a chain: verifies every token itself, keeps its caller's items, calls the next hop
///
/// Items are in PostgreSQL or SQLite, with Redis or memory in front. The keys that tokens are verified with come
/// from the operator (or a file), on the keys port. Every setting below can also be an environment variable.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLE, max_term_width = 100)]
struct Args {
    /// The service's configuration
    #[arg(
        long,
        env = "SERVICE_CONFIG",
        default_value = "/etc/servicechain/service.yaml"
    )]
    config: PathBuf,
    /// Where items are kept: `postgres://USER:PASSWORD@HOST/DATABASE`, `sqlite:///PATH` or `sqlite::memory:`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Secret,
    /// The cache: `redis://:PASSWORD@HOST/N`, `rediss://…` or `memory:` (this process alone); absent: no cache
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<Secret>,
    /// The next hop, such as `http://shop-b.shop.svc:8080`; absent: this is the last
    #[arg(long, env = "NEXT_HOP_URL")]
    next_hop_url: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// A URL that may hold a password.
#[derive(Clone)]
struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

const EXAMPLE: &str = r#"A configuration:

  hop: {name: a}                         # audiences: [..] and issuers: [..] narrow what the chain accepts
  authorization:                         # the first match decides, no match is 403; absent: any verified caller
  - {methods: [GET, HEAD], pathPrefix: /, scopes: ["items:read"]}
  - {methods: [PUT], pathPrefix: /, scopes: ["items:write"]}
  cacheTTL: 60s                          # how far behind the database a cached item may be
  nextHop: b                             # the name of the hop at --next-hop-url; absent at the last
  timeout: 5s                            # of a request that comes with no less; 0s = none

Requests, with an access token as Bearer:
  GET /items/ID    200 with this hop's item and those behind it, or 404; If-None-Match: 304
  PUT /items/ID    any JSON object up to 64 KiB: 201 or 200; If-Match, If-None-Match: 412

Ports: requests (--port), health and metrics (--admin-port: /livez /readyz /metrics), key bundles (--keys-port).
The database's schema is brought up to date at the start; several replicas may start at once.
SIGTERM drains: not ready, still accepting for --drain-delay, then what is in flight ends."#;

#[tokio::main]
async fn main() -> ExitCode {
    crypto_provider::install();
    let args = Args::parse();
    match start(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As clap's: what was asked for is wrong.
            if error.is::<ConfigErrors>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn start(args: Args) -> anyhow::Result<()> {
    let config = read_config(&args)?;
    let _telemetry = telemetry::init(&args.telemetry, &config.hop.name)?;
    let listeners = args.server.listen()?;
    let lifecycle = args.server.lifecycle();
    lifecycle
        .drain_on_signals()
        .context("signals cannot be received")?;
    let verifier = args
        .verifier
        .into_config(config.hop.clone(), Clock::system().as_fn())?;
    run(config, verifier, listeners, lifecycle).await
}

fn read_config(args: &Args) -> anyhow::Result<Config> {
    let path = args.config.display();
    let text = fs::read_to_string(&args.config)
        .with_context(|| format!("{path} cannot be read; name the configuration with --config"))?;
    let places = Places {
        database_url: args.database_url.0.clone(),
        redis_url: args.redis_url.as_ref().map(|url| url.0.clone()),
        next_hop_url: args.next_hop_url.clone(),
    };
    Ok(Config::from_yaml(&text, &places)?)
}
