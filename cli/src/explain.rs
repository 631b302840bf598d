//! `servicechain explain`: whether a token would pass each hop of a chain, and why not. The chain's verifiers are
//! asked nothing; the very functions they use judge here, over the very bundle they hold.
//! It must never print the token or its signature.

mod explanation;
mod in_cluster;
mod judge;
mod peek;
mod render;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use http::Method;
use servicechain_crds::ValidatedChain;
use servicechain_keys::{ChainId, HeldBundle, NumericDate, Trust};
use servicechain_runtime::clock::Clock;

use crate::cluster::Place;
use crate::outcome::Failure;
use crate::paint::Paint;
use crate::running::{self, Running, StateArgs, Which};
use crate::status::Output;
use crate::{local, print};
use judge::{Request, explain};
use render::render;

/// Longest token that is looked at: the highest `maxTokenBytes` a chain can have, and white space.
const LONGEST_TOKEN: u64 = 65_536 + 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of a chain in the cluster; without it the running local chain is meant
    chain: Option<String>,
    #[command(flatten)]
    which: Which,
    /// File that holds the token; default: standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Method of the request the token would come with
    #[arg(long, default_value = "GET")]
    method: Method,
    /// Host of that request; default: none, so that only routes for every host answer
    #[arg(long, default_value = "", hide_default_value = true)]
    host: String,
    /// Path of that request
    #[arg(long, default_value = "/items/1", value_parser = absolute_path)]
    path: String,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: Place,
}

/// A chain and the keys that its verifiers hold.
struct Verifiers {
    chain: ValidatedChain,
    bundle: HeldBundle,
}

pub(crate) async fn run(args: Args, state: &StateArgs, no_color: bool) -> Result<(), Failure> {
    let token = read_token(args.token_file.as_deref())?;
    let verifiers = match &args.chain {
        Some(chain) => in_cluster::verifiers(&args.place, chain).await?,
        None => on_this_machine(&running::find(state, &args.which)?)?,
    };
    let request = Request {
        method: args.method,
        host: args.host,
        path: args.path,
    };
    let now = NumericDate::from(Clock::system().now());
    let explanation = explain(&token, &verifiers.bundle, &verifiers.chain, &request, now);
    match args.output {
        Output::Text => print(&render(&explanation, Paint::of(&io::stdout(), no_color)))?,
        Output::Json => {
            let line = serde_json::to_string(&explanation).context("cannot be written as JSON")?;
            print(&format!("{line}\n"))?;
        }
    }
    if explanation.passes() {
        Ok(())
    } else {
        Err(Failure::Refused)
    }
}

fn on_this_machine(running: &Running) -> anyhow::Result<Verifiers> {
    let chain = servicechain_crds::read(&running.document).map_err(|mistakes| anyhow!("{mistakes}"))?;
    let bytes = fs::read(&running.bundle_file)
        .with_context(|| format!("the key bundle of chain {} cannot be read", running.chain))?;
    let trust = Trust::new(
        ChainId::new(running.chain_id.clone())?,
        vec![running.trust_anchor.parse()?],
    );
    Ok(Verifiers {
        chain: local::as_run(chain, running),
        bundle: open(&bytes, &trust, &running.chain)?,
    })
}

fn open(bytes: &[u8], trust: &Trust, chain: &str) -> anyhow::Result<HeldBundle> {
    HeldBundle::open(bytes, trust)
        .map_err(|refusal| anyhow!("the key bundle of chain {chain} is not authentic: {refusal}"))
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

#[cfg(test)]
mod tests;
