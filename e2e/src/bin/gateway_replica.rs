//! A gateway in a process of its own, for tests that kill it. It takes the flags of the real one and runs the same
//! library; being a target of this package, it is built with the tests.

use std::path::PathBuf;

use clap::Parser;
use servicechain_auth::VerifierArgs;
use servicechain_gateway::{Config, Listeners, run};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::listeners::ServerArgs;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    config: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    verifier: VerifierArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = Config::from_yaml(&std::fs::read_to_string(args.config)?)?;
    let listeners = Listeners::bind(&args.server, config.worker_threads())?;
    let verifier = args
        .verifier
        .into_config(config.verifier_hop(), Clock::system().as_fn())?;
    run(config, verifier, listeners, args.server.lifecycle()).await
}
