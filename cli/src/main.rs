//! `servicechain`: a whole chain on one machine, and chains in a cluster: how they stand, tokens for them, and why a
//! token passes or not. It reads flags and decides how a command ends; the modules do the work.

mod accepted;
mod cluster;
mod explain;
mod keys;
mod local;
mod outcome;
mod paint;
mod program;
mod revoke;
mod rotate;
mod running;
mod standing;
mod status;
mod token;
mod wait;
mod wording;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use jiff::Timestamp;
use servicechain_runtime::{clock::Clock, crypto_provider};

use crate::outcome::{EXIT_CODES, Failure};
use crate::paint::Paint;
use crate::program::Program;
use crate::running::StateArgs;

/// A gateway and a chain of services, each of which verifies the caller's token again, by itself
///
/// `servicechain VERB CHAIN` is about a chain in a Kubernetes cluster. `local` runs one on this machine, and `token`
/// and `explain` without a CHAIN are about that one.
#[derive(Debug, Parser)]
#[command(name = "servicechain", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    state: StateArgs,
    /// No colours, whatever the value (no-color.org)
    #[arg(long, env = "NO_COLOR", hide = true, global = true)]
    no_color: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole chain in this process, from the YAML that Kubernetes gets
    #[command(after_help = "Example:\n  servicechain local -f examples/shop.yaml")]
    Local(local::Args),
    /// Show a chain in the cluster, part by part, and what is in its way
    #[command(after_help = "Examples:
  servicechain status -n shop shop
  servicechain status -n shop shop --watch
  servicechain status -n shop shop -o json | jq .ready")]
    Status(status::Args),
    /// Wait until a chain in the cluster is ready, or another of its conditions holds
    ///
    /// What is in the way is printed, a line whenever it changes. A condition holds when it is True for the newest
    /// generation of the chain, so that an edit the operator has not seen yet is waited for too.
    #[command(after_help = "Examples:
  kubectl apply -n shop -f examples/shop.yaml && servicechain wait -n shop shop --timeout 300s
  servicechain wait -n shop shop --for KeysInSync

Exit codes:
  0  the condition holds
  3  it did not in time; what is in the way is said
  4  there is no such chain, or it was deleted meanwhile")]
    Wait(wait::Args),
    /// Print a token, alone on standard output: of a chain in the cluster, or of the running local chain
    ///
    /// In a cluster the client's credentials are read from its Secret, and a pod of the issuer is asked through the
    /// API server, as `kubectl port-forward` does it.
    #[command(after_help = "Examples:
  TOKEN=$(servicechain token -n shop shop)
  servicechain token -n shop shop --client demo --scope items:read
  curl -H \"Authorization: Bearer $(servicechain token)\" http://127.0.0.1:8080/items/1    (a local chain's)")]
    Token(token::Args),
    /// Say whether a token would pass each hop of a chain, and why
    ///
    /// The token is read from standard input or a file, never from the command line, and is never printed.
    #[command(after_help = "Examples:
  servicechain token -n shop shop | servicechain explain -n shop shop
  servicechain explain -n shop shop --method PUT --path /items/1 < token.txt
  servicechain token | servicechain explain    (a local chain's)")]
    Explain(explain::Args),
    /// Show which keys a chain in the cluster trusts, and which pod holds which generation of them
    #[command(after_help = "Examples:
  servicechain keys -n shop shop
  servicechain keys -n shop shop -o json | jq .keys.generation")]
    Keys(keys::Args),
    /// Replace the keys that a chain's own issuers sign with, now, and wait until the new ones sign
    ///
    /// Tokens of the old keys stay good until they expire: the old keys retire, and sign no more.
    #[command(after_help = "Examples:
  servicechain rotate -n shop shop
  servicechain rotate -n shop shop --timeout 5m -o json

Exit codes:
  0  new keys sign, and every verifier holds them
  3  not in time; what is in the way is said, and the rotation goes on
  4  there is no such chain")]
    Rotate(rotate::Args),
    /// Refuse tokens that are otherwise good, and wait until every verifier of the chain does
    ///
    /// Makes an object `Revocation`; `kubectl delete revocation` takes it back.
    #[command(after_help = "Examples:
  servicechain revoke -n shop shop --issuer platform --subject mallory
  servicechain revoke -n shop shop --issuer platform --key k7f2KPdZ0sT3
  servicechain revoke -n shop shop --issuer platform --client demo --issued-before 2027-01-31T00:00:00Z
  servicechain revoke -n shop shop --issuer corp --session 4f1a --timeout 2m
  servicechain revoke -n shop shop --issuer platform --subject mallory --timeout 10s --isolate

Exit codes:
  0  every verifier refuses it
  3  not in time; the verifiers that may still accept it are named, and the revocation stays
  4  there is no such chain")]
    Revoke(revoke::Args),
}

fn main() -> ExitCode {
    crypto_provider::install();
    let program = Program::of(std::env::args_os().next().as_deref());
    let matches = program.speaking(Args::command()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let no_color = args.no_color.as_ref().is_some_and(|value| !value.is_empty());
    match in_runtime(run(args, no_color)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                let error = Paint::of(&io::stderr(), no_color).red("error:");
                // Nobody reads standard error: the exit code has to do.
                let _ = writeln!(io::stderr(), "{error} {}", program.in_its_name(&message));
            }
            failure.code()
        }
    }
}

async fn run(args: Args, no_color: bool) -> Result<(), Failure> {
    match args.command {
        Command::Local(local) => local::run(local, &args.state, no_color).await,
        Command::Status(status) => status::run(status, no_color).await,
        Command::Wait(wait) => wait::run(wait).await,
        Command::Token(token) => token::run(token, &args.state).await,
        Command::Explain(explain) => explain::run(explain, &args.state, no_color).await,
        Command::Keys(keys) => keys::run(keys, no_color).await,
        Command::Rotate(rotate) => rotate::run(rotate).await,
        Command::Revoke(revoke) => revoke::run(revoke).await,
    }
}

fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot be started")?;
    let done = runtime.block_on(command);
    // Name resolution and file reads that still block are not worth waiting for.
    runtime.shutdown_background();
    done
}

fn now() -> Timestamp {
    Timestamp::try_from(Clock::system().now()).unwrap_or_default()
}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(error)
            .context("standard output cannot be written")
            .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
        let words = std::iter::once("servicechain").chain(line.split_whitespace());
        Args::try_parse_from(words)
            .map(|args| args.command)
            .map_err(|error| error.kind())
    }

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn verbs_take_the_chain_before_or_behind_the_namespace() {
        for line in [
            "status -n shop shop",
            "status shop -n shop --watch",
            "status shop --context kind --kubeconfig x -o json",
            "wait -n shop shop --timeout 300s",
            "wait shop --for keysinsync --timeout 0s",
            "keys shop",
            "rotate shop -n shop --timeout 5m",
            "revoke -n shop shop --issuer platform --subject mallory",
            "token",
            "token --port 8080",
            "token -n shop shop --client demo --issuer platform --scope a --scope b",
            "explain",
            "explain shop --host x --path /a --method PUT",
            "explain --port 8080 --token-file x",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use clap::error::ErrorKind::{
            ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation,
        };
        for (line, kind) in [
            ("status", MissingRequiredArgument),
            ("wait -n shop", MissingRequiredArgument),
            ("token -n shop", MissingRequiredArgument),
            ("explain --context kind", MissingRequiredArgument),
            ("token shop --port 1", ArgumentConflict),
            ("wait shop --for Redy", InvalidValue),
            ("wait shop --timeout 5", ValueValidation),
            ("explain --path items", ValueValidation),
        ] {
            assert_eq!(parse(line).err(), Some(kind), "{line}");
        }
    }
}
