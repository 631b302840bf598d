//! `servicechain keys`: which keys a chain trusts, and which pod holds which generation of them. What follows from
//! the status and the pods is decided in `holders`.

mod holders;
mod table;

use std::io;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use servicechain_operator::object_names::CHAIN_LABEL;

use crate::cluster::{Cluster, Place, Question};
use crate::outcome::Failure;
use crate::paint::Paint;
use crate::status::Output;
use crate::{now, print};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the chain
    chain: String,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(args: Args, no_color: bool) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.place).await?;
    let chain = cluster.chain_or_others(&args.chain).await?;
    let question = Question {
        verb: "list",
        resource: "pods",
    };
    let parameters = ListParams::default().labels(&format!("{CHAIN_LABEL}={}", args.chain));
    let pods = cluster
        .ask(question, cluster.api::<Pod>().list(&parameters))
        .await?;
    let held = holders::held(&chain, &pods.items);
    match args.output {
        Output::Text => print(&table::render(&held, now(), Paint::of(&io::stdout(), no_color))),
        Output::Json => {
            let line = serde_json::to_string(&held).map_err(anyhow::Error::from)?;
            print(&format!("{line}\n"))
        }
    }
}
