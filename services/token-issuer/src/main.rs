//! Flags, environment and the configuration file of the issuer; everything else is the library's.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use servicechain_auth::{Hop, VerifierArgs};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::crypto_provider;
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::telemetry::{self, TelemetryArgs};
use servicechain_token_issuer::{Config, run};

/// Issues access tokens for the clients of a `ServiceChain`.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The issuer's YAML file
    #[arg(long, env = "CONFIG_FILE")]
    config: PathBuf,
    /// Memory-backed directory where private keys outlive a restart of the container; absent = in memory only
    #[arg(long, env = "KEYS_DIR")]
    keys_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

fn main() -> ExitCode {
    crypto_provider::install();
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.telemetry, "token-issuer")?;
    let path = &args.config;
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let config = Config::from_yaml(&text).with_context(|| format!("{} is not usable", path.display()))?;
    let config = Config {
        keys_directory: args.keys_dir,
        ..config
    };
    let hop = Hop::new(config.issuer.name.clone());
    let verifier = args.verifier.into_config(hop, Clock::system().as_fn())?;
    let lifecycle = args.server.lifecycle();
    let listeners = args.server.listen()?;
    lifecycle.drain_on_signals()?;
    run(config, verifier, listeners, lifecycle).await
}
