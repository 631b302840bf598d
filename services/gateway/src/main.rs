//! The gateway's process: flags, the configuration file, ports, then the library. It decides nothing by itself.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use servicechain_auth::VerifierArgs;
use servicechain_gateway::{Config, Listeners, run};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::crypto_provider;
use servicechain_runtime::listeners::ServerArgs;
use servicechain_runtime::telemetry::{self, TelemetryArgs};

/// The entrance of a service chain: verifies the token of every request and passes it on, unchanged
///
/// Routes, limits and who is trusted stand in one YAML file. The keys that tokens are verified with come from the
/// operator (or a file), on the keys port. Every setting below can also be an environment variable.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLE, max_term_width = 100)]
struct Args {
    /// The gateway's configuration
    #[arg(
        long,
        env = "GATEWAY_CONFIG",
        default_value = "/etc/servicechain/gateway.yaml"
    )]
    config: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

const EXAMPLE: &str = r#"A configuration:

  hop: {name: gateway}
  trustedProxies: [10.0.0.0/8]           # whose X-Forwarded-* is believed; none by default
  limits: {requestBytes: 10485760, headerBytes: 32768, headerTimeout: 10s}
  timeout: 5s                            # of routes that name none; 0s = no limit
  routes:                                # longest host, then longest prefix; order means nothing
  - name: items
    pathPrefix: /
    upstream: http://shop-a.shop.svc:8080
    service: a                           # the hop, as problems name it
    scopes: ["items:read"]               # a token needs all of them
    timeout: 2s
  - name: issuer-token
    pathPrefix: /oauth2
    upstream: http://shop-issuer-platform.shop.svc
    service: platform
    authentication: None                 # Required (default) | Optional | None

Ports: requests (--port), health and metrics (--admin-port: /livez /readyz /metrics), key bundles (--keys-port).
SIGTERM drains: not ready, still accepting for --drain-delay, then what is in flight ends."#;

fn main() -> ExitCode {
    match run_process() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A sentence and its causes; a backtrace would help nobody who mends a configuration.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_process() -> anyhow::Result<()> {
    crypto_provider::install();
    let args = Args::parse();
    let config = read_config(&args)?;
    // The cores' threads serve; this runtime carries health, keys, resolvers and timers.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(serve(args, config))
}

async fn serve(args: Args, config: Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.telemetry, &config.hop.name)?;
    let listeners = Listeners::bind(&args.server, config.worker_threads())?;
    let verifier = args
        .verifier
        .into_config(config.verifier_hop(), Clock::system().as_fn())?;
    let lifecycle = args.server.lifecycle();
    lifecycle
        .drain_on_signals()
        .context("signals cannot be received")?;
    run(config, verifier, listeners, lifecycle).await
}

fn read_config(args: &Args) -> anyhow::Result<Config> {
    let path = args.config.display();
    let text = fs::read_to_string(&args.config)
        .with_context(|| format!("{path} cannot be read; name the configuration with --config"))?;
    Config::from_yaml(&text).with_context(|| format!("{path} is not valid"))
}
