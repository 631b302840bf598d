//! Measures `ServiceChain` against its peers and itself. `cargo xtask bench` builds what is measured, installs the peers
//! and calls this.

mod chain;
mod gateway;
mod http;
mod load;
mod machine;
mod peers;
mod plot;
mod process;
mod report;
mod rounds;
mod settings;
mod upstream;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use servicechain_runtime::crypto_provider;

use report::Report;
use settings::{Section, Settings};

/// Measures `ServiceChain`
#[derive(Debug, Parser)]
struct Args {
    #[arg(value_enum)]
    section: Section,
    #[command(flatten)]
    settings: Settings,
    /// Where the result goes as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the page, the plot and the JSON of each section
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    crypto_provider::install();
    let load_before = machine::load();
    let (name, about, rows) = match args.section {
        Section::Gateway => ("gateway", gateway::ABOUT, gateway::run(&args.settings)?),
    };
    let report = Report {
        machine: machine::describe(),
        date: machine::today(),
        versions: machine::versions(&args.settings),
        load: [load_before, machine::load()],
        rows,
    };
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    if let Some(folder) = &args.docs {
        report.write_docs(folder, name, about)?;
    }
    let mut out = std::io::stdout();
    for row in &report.rows {
        let ratio = match (row.ratio, &row.ratio_to) {
            (Some(ratio), Some(to)) => format!(
                "{ratio:.3} of {to} ({:.2} to {:.2})",
                row.spread[0], row.spread[1]
            ),
            _ => String::new(),
        };
        writeln!(
            out,
            "{:<28} {:<20} {:>7.2} us  {ratio}{}",
            row.case,
            row.proxy,
            row.cpu_micros_per_request,
            if row.errors > 0 {
                format!("  {} ERRORS", row.errors)
            } else {
                String::new()
            }
        )?;
    }
    for line in report.verdicts() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
