//! `cargo xtask test --long`: what the short form has no time for, and a record of what it took, where and when.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::terminal::{duration, say};
use crate::{child, workspace};

/// Twenty times the short form: some minutes on one core.
pub(super) const ROTATION_CASES: usize = 200_000;
const FILE: &str = "docs/long-run.md";

/// Writes the record of a run that passed.
pub(super) fn write(tiers: &[(&str, Duration)]) -> Result<()> {
    let date = child::answer(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut text = format!(
        "# The last long run\n\nWritten by `cargo xtask test --long`.\n\n- {date}, {}\n",
        machine()
    );
    if tiers.iter().any(|(name, _)| *name == "fast") {
        let _ = writeln!(
            text,
            "- {ROTATION_CASES} random interleavings of the key protocol, none of which violates an invariant"
        );
    }
    text.push_str("\n| tier | took |\n| --- | --- |\n");
    for (name, elapsed) in tiers {
        let _ = writeln!(text, "| {name} | {} |", duration(*elapsed));
    }
    std::fs::write(workspace::path(FILE), text).with_context(|| format!("cannot write {FILE}"))?;
    say(format_args!("{FILE} is written"));
    Ok(())
}

/// Processor, cores and memory, as far as the system tells.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned());
    format!("{cores} cores of {processor}, memory {memory}")
}
