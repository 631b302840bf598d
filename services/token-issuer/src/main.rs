//! The issuer's process: flags, the configuration file, ports, then the library. It decides nothing by itself.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use servicechain_auth::{Hop, VerifierArgs};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::crypto_provider;
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::telemetry::{self, TelemetryArgs};
use servicechain_token_issuer::{Config, run};

/// Issues the access tokens of a service chain, to clients that are known to it by a secret
///
/// It makes its signing keys itself and signs only with one that the newest key bundle calls Active. Bundles come from
/// the operator (or a file), on the keys port. Every setting below can also be an environment variable.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLE, max_term_width = 100)]
struct Args {
    /// The issuer's configuration
    #[arg(long, env = "ISSUER_CONFIG", default_value = "/etc/servicechain/issuer.yaml")]
    config: PathBuf,
    /// Memory-backed directory where private keys outlive a restart of the container; absent: in memory only
    #[arg(long, env = "KEYS_DIR")]
    keys_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

const EXAMPLE: &str = r#"A configuration:

  issuer:
    name: platform                       # what the chain calls it
    url: http://shop-issuer-platform.shop.svc  # the `iss` of its tokens, without a path
    algorithm: ES256                     # ES256 | RS256 | EdDSA
    tokenLifetime: 15m                   # 1m to 24h
    audiences: [shop]
  clients:
  - id: demo
    secretSha256: 0000000000000000000000000000000000000000000000000000000000000000
    grants: [ClientCredentials]
    scopes: ["items:read"]               # what it may ask for, and gets when it asks for nothing
    audiences: [shop]                    # absent: all of the issuer's

A token:
  curl -u demo:SECRET -d grant_type=client_credentials -d scope=items:read URL/oauth2/token

Ports: requests (--port: /oauth2/token /jwks.json /.well-known/*), health and metrics (--admin-port: /livez /readyz
/metrics), key bundles (--keys-port).
SIGTERM drains: not ready, still accepting for --drain-delay, then what is in flight ends."#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    crypto_provider::install();
    let args = Args::parse();
    let config = read_config(&args)?;
    let _telemetry = telemetry::init(&args.telemetry, &config.issuer.name)?;
    let listeners = args.server.listen()?;
    let lifecycle = args.server.lifecycle();
    lifecycle
        .drain_on_signals()
        .context("signals cannot be received")?;
    let hop = Hop::new(config.issuer.name.clone());
    let verifier = args.verifier.into_config(hop, Clock::system().as_fn())?;
    run(config, verifier, listeners, lifecycle).await
}

fn read_config(args: &Args) -> anyhow::Result<Config> {
    let path = args.config.display();
    let text = fs::read_to_string(&args.config)
        .with_context(|| format!("{path} cannot be read; name the configuration with --config"))?;
    let config = Config::from_yaml(&text).with_context(|| format!("{path} is not valid"))?;
    Ok(Config {
        keys_directory: args.keys_dir.clone(),
        ..config
    })
}
