//! A gateway in a process of its own, for tests that kill it. It takes the flags of the real one and runs the same
//! library; being a target of this package, it is built with the tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use servicechain_auth::VerifierArgs;
use servicechain_gateway::{Config, Listeners, bind, run};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::listeners::{ServerArgs, listen};

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
    let address = |port| SocketAddr::new(args.server.listen_address, port);
    let listeners = Listeners {
        main: bind(address(args.server.port), config.worker_threads())?,
        admin: listen(address(args.server.admin_port))?,
        keys: listen(address(args.server.keys_port))?,
    };
    let verifier = args
        .verifier
        .into_config(config.verifier_hop(), Clock::system().as_fn())?;
    run(config, verifier, listeners, args.server.lifecycle()).await
}
