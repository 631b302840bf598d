//! Measures `ServiceChain` against its peers and itself. `cargo xtask bench` builds what is measured, installs the peers
//! and calls this, once for each section.

mod calls;
mod chain;
mod contest;
mod full_chain;
mod gateway;
mod growth;
mod hop;
mod http;
mod key_push;
mod load;
mod machine;
mod memory;
mod ours;
mod peers;
mod plot;
mod process;
mod report;
mod rounds;
mod settings;
mod upstream;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use servicechain_runtime::crypto_provider;

use report::{Findings, Report};
use settings::{Budget, Section, Settings};

/// Measures `ServiceChain`
#[derive(Debug, Parser)]
enum Command {
    /// One section
    Measure(Box<MeasureArgs>),
    /// The service of the section `hop`
    #[command(hide = true)]
    ServeHop(Box<hop::service::HopArgs>),
    /// A service of the section `chain`
    #[command(hide = true)]
    ServeItems(Box<full_chain::service::ItemsArgs>),
    /// Verifiers of the section `keys`
    #[command(hide = true)]
    ServePods(key_push::pods::PodsArgs),
}

#[derive(Debug, clap::Args)]
struct MeasureArgs {
    #[arg(value_enum)]
    section: Section,
    #[command(flatten)]
    settings: Settings,
    /// Where the result goes as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the page, the plot and the JSON of the section
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    crypto_provider::install();
    let done = match Command::parse() {
        Command::Measure(args) => measure(&args),
        Command::ServeHop(args) => hop::service::run(*args),
        Command::ServeItems(args) => full_chain::service::run(*args),
        Command::ServePods(args) => process::open_many_files().and_then(|_| key_push::pods::run(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Run = fn(&Settings, Budget) -> Result<Findings>;

impl Section {
    /// Its name, what its page says of it, and itself.
    fn parts(self) -> (&'static str, &'static str, Run) {
        match self {
            Self::Gateway => ("gateway", gateway::ABOUT, gateway::run),
            Self::Hop => ("hop", hop::ABOUT, hop::run),
            Self::Verify => ("verify", verify::ABOUT, verify::run),
            Self::Chain => ("chain", full_chain::ABOUT, full_chain::run),
            Self::Memory => ("memory", memory::ABOUT, memory::run),
            Self::Growth => ("growth", growth::ABOUT, growth::run),
            Self::Keys => ("keys", key_push::ABOUT, key_push::run),
        }
    }
}

fn measure(args: &MeasureArgs) -> Result<()> {
    // Before anything keeps this thread on one core.
    let machine = machine::describe();
    let load_before = machine::load();
    let (name, about, run) = args.section.parts();
    let mut findings = run(&args.settings, args.settings.budget())?;
    let profile = findings.profile.take();
    let mut report = Report {
        machine,
        date: machine::today(),
        versions: machine::versions(args.section, &args.settings),
        load: [load_before, machine::load()],
        notes: Vec::new(),
        rows: Vec::new(),
    };
    report.take(findings);
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    if let Some(folder) = &args.docs {
        report.write_docs(folder, name, about, profile.as_deref())?;
    }
    let mut out = std::io::stdout();
    for line in report.lines() {
        writeln!(out, "{line}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    for line in report.verdicts() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
