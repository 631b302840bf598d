//! `servicechain status`: a chain and its parts as the operator says they are, once or redrawn until it is
//! interrupted. What is shown is decided in `tree`.

mod tree;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;
use servicechain_crds::ServiceChain;

use crate::cluster::{Cluster, Place, Unanswered};
use crate::outcome::Failure;
use crate::paint::Paint;
use crate::standing::{self, Standing};
use crate::{now, print};

/// How often a chain that is watched is asked for. Asking again needs no right but `get` and outlives any lost
/// connection.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(1);
/// To the first line and column, and nothing below.
pub(crate) const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the chain
    chain: String,
    /// Go on until Ctrl-C: redraw the terminal, or with `-o json` print a line whenever something changed
    #[arg(short, long)]
    watch: bool,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

pub(crate) async fn run(args: Args, no_color: bool) -> Result<(), Failure> {
    check_watch(args.watch, args.output)?;
    let cluster = Cluster::find(&args.place).await?;
    let paint = Paint::of(&io::stdout(), no_color);
    let chain = cluster.chain_or_others(&args.chain).await?;
    match (args.watch, args.output) {
        (false, Output::Text) => print(&tree::tree(&chain, now(), paint)),
        (false, Output::Json) => print(&json_line(&chain)),
        (true, output) => {
            tokio::select! {
                ended = watch(&cluster, &args.chain, chain, output, paint) => ended,
                interrupted = tokio::signal::ctrl_c() => Ok(interrupted.context("Ctrl-C cannot be received")?),
            }
        }
    }
}

/// # Errors
/// Where a table would be redrawn that nobody looks at.
pub(crate) fn check_watch(is_watched: bool, output: Output) -> Result<(), Failure> {
    if is_watched && output == Output::Text && !io::stdout().is_terminal() {
        return Err(Failure::BadInput(
            "--watch redraws a terminal, and standard output is none: leave it out, add `-o json`, or use \
             `servicechain wait`"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Goes on while there is such a chain.
async fn watch(
    cluster: &Cluster,
    name: &str,
    mut chain: ServiceChain,
    output: Output,
    paint: Paint,
) -> Result<(), Failure> {
    let mut said = String::new();
    let mut trouble = String::new();
    loop {
        let text = match output {
            Output::Text => {
                let note = if trouble.is_empty() {
                    String::new()
                } else {
                    format!("{}\n", paint.yellow(&format!("as it was: {trouble}")))
                };
                format!("{CLEAR}{}{note}", tree::tree(&chain, now(), paint))
            }
            Output::Json => json_line(&chain),
        };
        if text != said {
            print(&text)?;
            said = text;
        }
        tokio::time::sleep(ASK_EVERY).await;
        trouble = match cluster.chain(name).await {
            Ok(newer) => {
                chain = newer;
                String::new()
            }
            Err(Unanswered::Unreachable(why)) => why,
            Err(Unanswered::NotFound(_)) => {
                return Err(Failure::NoSuchChain(format!(
                    "chain {name} of namespace {} was deleted",
                    cluster.namespace
                )));
            }
            Err(other) => return Err(other.into()),
        };
    }
}

/// The status as it is in the object, and what a script asks first.
fn json_line(chain: &ServiceChain) -> String {
    let line = json!({
        "chain": chain.metadata.name,
        "namespace": chain.metadata.namespace,
        "generation": chain.metadata.generation,
        "ready": standing::of(chain, "Ready") == Standing::Holds,
        "status": chain.status,
    });
    format!("{line}\n")
}
