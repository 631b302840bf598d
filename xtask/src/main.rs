//! The workspace's only door: what people and CI call. Each verb is a module; nothing is decided here.

mod airgap;
mod apiserver;
mod bench;
mod cache;
mod charts;
mod child;
mod cluster;
mod down;
mod e2e;
mod engine;
mod example;
mod host;
mod images;
mod interrupt;
mod online;
mod program_image;
mod status;
mod step;
mod terminal;
mod test;
mod up;
mod versions;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Builds, runs and tests `ServiceChain`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Bring up everything: a kind cluster, our images, both charts, and a chain that answers.
    Up(up::UpArgs),
    /// Remove a cluster, and what `up` started for it.
    Down(down::DownArgs),
    /// Show clusters and their chains, the Docker engine and the cache.
    Status,
    /// Build our programs' images.
    Images(images::ImagesArgs),
    /// Run an etcd and a kube-apiserver until Ctrl-C.
    Apiserver(apiserver::ApiserverArgs),
    /// Run the tests.
    Test(test::TestArgs),
    /// Measure speed, against peers.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let verb = Verb::parse();
    let outcome = interrupt::listen().and_then(|()| match &verb {
        Verb::Up(args) => up::run(args),
        Verb::Down(args) => down::run(args),
        Verb::Status => status::run(),
        Verb::Images(args) => images::run(args),
        Verb::Apiserver(args) => apiserver::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Bench(args) => bench::run(args),
    });
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    terminal::say(format_args!("error: {error:#}"));
    if error.is::<interrupt::Interrupted>() {
        ExitCode::from(130)
    } else {
        ExitCode::FAILURE
    }
}
