//! `servicechain`: the whole chain on one machine, tokens for it, and why a token passes or not.
//! It reads flags and files and decides how a command ends; the modules do the work.

mod explain;
mod local;
mod outcome;
mod paint;
mod running;
mod token;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use http::Method;
use servicechain_keys::{ChainId, HeldBundle, NumericDate, Trust};
use servicechain_runtime::{clock::Clock, crypto_provider};

use crate::explain::{Request, explain, render};
use crate::outcome::Failure;
use crate::paint::Paint;
use crate::running::{Running, StateArgs, Which};

/// Longest token that is looked at: the highest `maxTokenBytes` a chain can have, and white space.
const LONGEST_TOKEN: u64 = 65_536 + 64;

/// A gateway and a chain of services, each of which verifies the caller's token again, by itself
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

const EXIT_CODES: &str = "Exit codes:
  0  done; `explain`: the token passes every hop
  1  it did not work; `explain`: the token is refused somewhere
  2  bad input: flags, a chain.yaml with mistakes, no token where one is needed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole chain in this process, from the YAML that Kubernetes gets
    #[command(after_help = "Example:\n  servicechain local -f examples/shop.yaml")]
    Local(local::Args),
    /// Print a token for a running local chain
    #[command(
        after_help = "Example:\n  curl -H \"Authorization: Bearer $(servicechain token)\" http://127.0.0.1:8080/items/1"
    )]
    Token(TokenArgs),
    /// Say whether a token would pass each hop of a running local chain, and why
    ///
    /// The token is read from standard input or a file, never from the command line, and is never printed.
    #[command(after_help = "Example:\n  servicechain token | servicechain explain")]
    Explain(ExplainArgs),
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    #[command(flatten)]
    wanted: token::Wanted,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// Name of a running local chain; default: the one that runs
    chain: Option<String>,
    #[command(flatten)]
    which: Which,
    /// File that holds the token; default: standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Method of the request the token would come with
    #[arg(long, default_value = "GET")]
    method: Method,
    /// Path of that request
    #[arg(long, default_value = "/items/1", value_parser = absolute_path)]
    path: String,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    crypto_provider::install();
    let args = Args::parse();
    let no_color = args.no_color.as_ref().is_some_and(|value| !value.is_empty());
    let done = match args.command {
        Command::Local(local) => in_runtime(|| local::run(local, &args.state, no_color)),
        Command::Token(token) => in_runtime(|| print_token(token, &args.state)),
        Command::Explain(explain) => print_explanation(&explain, &args.state, no_color),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                let error = Paint::of(&io::stderr(), no_color).red("error:");
                // Nobody reads standard error: the exit code has to do.
                let _ = writeln!(io::stderr(), "{error} {message}");
            }
            failure.code()
        }
    }
}

fn in_runtime<F: Future<Output = Result<(), Failure>>>(command: impl FnOnce() -> F) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot be started")?;
    let done = runtime.block_on(command());
    // Name resolution and file reads that still block are not worth waiting for.
    runtime.shutdown_background();
    done
}

async fn print_token(args: TokenArgs, state: &StateArgs) -> Result<(), Failure> {
    let running = find(state, None, &args.which)?;
    let token = token::get(&running, &args.wanted).await?;
    print(&format!("{token}\n"))
}

fn print_explanation(args: &ExplainArgs, state: &StateArgs, no_color: bool) -> Result<(), Failure> {
    let token = read_token(args.token_file.as_deref())?;
    let running = find(state, args.chain.as_deref(), &args.which)?;
    let chain = servicechain_crds::read(&running.document).map_err(|mistakes| anyhow!("{mistakes}"))?;
    let chain = local::as_run(chain, &running);
    let bundle = held_bundle(&running)?;
    let request = Request {
        method: args.method.clone(),
        path: args.path.clone(),
    };
    let explanation = explain(
        &token,
        &bundle,
        &chain,
        &request,
        NumericDate::from(Clock::system().now()),
    );
    match args.output {
        Output::Text => print(&render(&explanation, Paint::of(&io::stdout(), no_color)))?,
        Output::Json => {
            print(&format!(
                "{}\n",
                serde_json::to_string(&explanation).context("cannot be written as JSON")?
            ))?;
        }
    }
    if explanation.passes() {
        Ok(())
    } else {
        Err(Failure::Refused)
    }
}

fn find(state: &StateArgs, name: Option<&str>, which: &Which) -> Result<Running, Failure> {
    let directory = state.directory().context("running chains cannot be looked up")?;
    let running = running::all(&directory);
    Ok(running::choose(running, name, which).map_err(anyhow::Error::from)?)
}

fn held_bundle(running: &Running) -> anyhow::Result<HeldBundle> {
    let bytes = fs::read(&running.bundle_file)
        .with_context(|| format!("the key bundle of chain {} cannot be read", running.chain))?;
    let trust = Trust::new(
        ChainId::new(running.chain_id.clone())?,
        vec![running.trust_anchor.parse()?],
    );
    HeldBundle::open(&bytes, &trust).map_err(|refusal| {
        anyhow!(
            "the key bundle of chain {} is not authentic: {refusal}",
            running.chain
        )
    })
}

fn read_token(file: Option<&Path>) -> Result<String, Failure> {
    let bad = |message: String| Failure::BadInput(message);
    let mut text = String::new();
    match file {
        Some(path) => {
            let file = fs::File::open(path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
            file.take(LONGEST_TOKEN)
                .read_to_string(&mut text)
                .map_err(|_| bad(format!("{} holds no token", path.display())))?;
        }
        None => {
            io::stdin()
                .take(LONGEST_TOKEN)
                .read_to_string(&mut text)
                .map_err(|_| bad("standard input holds no token".to_owned()))?;
        }
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(bad(
            "there is no token; pipe one in, as in `servicechain token | servicechain explain`".to_owned(),
        ));
    }
    Ok(token.to_owned())
}

fn absolute_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("must start with /, as in /items/1".to_owned())
    }
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
