//! `servicechain keys`: which keys a chain trusts, and which pod holds which generation of them, once or redrawn until it
//! is interrupted. What follows from the status and the pods is decided in `holders`.

mod holders;
mod table;

use std::io;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use servicechain_crds::ServiceChain;
use servicechain_operator::object_names::CHAIN_LABEL;

use self::holders::Held;
use crate::cluster::{Cluster, Place, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::Paint;
use crate::status::{ASK_EVERY, CLEAR, Output, check_watch};
use crate::{now, print};

/// Pods of one answer: the API server sends a large chain in pieces.
const PAGE: u32 = 500;

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

pub(crate) async fn run(args: Args, no_color: bool) -> Result<(), Failure> {
    check_watch(args.watch, args.output)?;
    let cluster = Cluster::find(&args.place).await?;
    let chain = cluster.chain_or_others(&args.chain).await?;
    let held = held(&cluster, &args.chain, &chain).await?;
    let paint = Paint::of(&io::stdout(), no_color);
    if !args.watch {
        return print(&text(&held, args.output, paint)?);
    }
    tokio::select! {
        ended = watch(&cluster, &args.chain, held, args.output, paint) => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.context("Ctrl-C cannot be received")?),
    }
}

/// Goes on while there is such a chain.
async fn watch(
    cluster: &Cluster,
    name: &str,
    mut known: Held,
    output: Output,
    paint: Paint,
) -> Result<(), Failure> {
    let mut said = String::new();
    let mut note = String::new();
    loop {
        let text = text(&known, output, paint)?;
        let text = match output {
            Output::Text => format!("{CLEAR}{text}{note}"),
            Output::Json => text,
        };
        if text != said {
            print(&text)?;
            said = text;
        }
        tokio::time::sleep(ASK_EVERY).await;
        let newer = async {
            let chain = cluster.chain(name).await?;
            held(cluster, name, &chain).await
        };
        note = match newer.await {
            Ok(newer) => {
                known = newer;
                String::new()
            }
            Err(Unanswered::Unreachable(why)) => {
                format!("{}\n", paint.yellow(&format!("as it was: {why}")))
            }
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

async fn held(cluster: &Cluster, name: &str, chain: &ServiceChain) -> Result<Held, Unanswered> {
    let question = Question {
        verb: "list",
        resource: "pods",
    };
    let api = cluster.api::<Pod>();
    let mut pods = Vec::new();
    let mut next = None;
    loop {
        let mut parameters = ListParams::default()
            .labels(&format!("{CHAIN_LABEL}={name}"))
            .limit(PAGE);
        parameters.continue_token = next;
        let page = cluster.ask(question, api.list(&parameters)).await?;
        pods.extend(page.items);
        next = page.metadata.continue_.filter(|next| !next.is_empty());
        if next.is_none() {
            return Ok(holders::held(chain, &pods));
        }
    }
}

fn text(held: &Held, output: Output, paint: Paint) -> Result<String, Failure> {
    match output {
        Output::Text => Ok(table::render(held, now(), paint)),
        Output::Json => {
            let line = serde_json::to_string(held).map_err(anyhow::Error::from)?;
            Ok(format!("{line}\n"))
        }
    }
}
