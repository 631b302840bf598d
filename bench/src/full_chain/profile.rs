//! Where the time of a request goes, function by function, as `perf` samples it. Where that is not there or may not
//! sample, nothing is kept, and the page says so.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use super::links::{HOPS, Links};
use crate::contest::{Contender, take_turns};
use crate::load::Load;
use crate::settings::Settings;

const SAMPLES_A_SECOND: u32 = 1999;
/// Of slices, and more than they take.
const ROUNDS: usize = 4;
/// Functions that are shown of a process.
const SHOWN: usize = 25;
const LINE: usize = 120;
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn of(
    settings: &Settings,
    load: &mut Load,
    deployed: &Links,
    contenders: &mut [Contender<'_>],
    notes: &mut Vec<String>,
) -> Result<Option<String>> {
    if settings.smoke {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("perf.data");
    let gateway = deployed.gateway.process.id();
    let mut processes = vec![("gateway", gateway)];
    let services = deployed.services.iter().map(|service| service.process.id());
    processes.extend(HOPS.into_iter().zip(services));
    let Some(mut perf) = record(&processes, &file) else {
        notes.push("profile: left out, since there is no `perf`".to_owned());
        return Ok(None);
    };
    let short = Settings {
        rounds: ROUNDS,
        ..settings.clone()
    };
    // The first contender is what is deployed, with items in caches.
    let asked = take_turns(&short, load, &mut contenders[..1], short.budget(), &|| {
        deployed.forget_logs()
    });
    // It writes its file when it is interrupted.
    let _ = kill_process(Pid::from_child(&perf), Signal::INT);
    let is_written = ended_within(&mut perf, PATIENCE);
    asked?;
    let mut page = String::from(
        "A request for an item that is in the cache of each hop, of what is deployed: shares of each process' samples\n\
         (`perf record -e cpu-clock`), the kernel's included. What is `[k]` is the kernel's.\n",
    );
    for (name, process) in &processes {
        let Some(lines) = report(*process, &file).filter(|lines| is_written && !lines.is_empty()) else {
            notes.push("profile: left out, since `perf` may not sample here".to_owned());
            return Ok(None);
        };
        let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n"));
    }
    Ok(Some(page))
}

fn record(processes: &[(&str, u32)], file: &Path) -> Option<Child> {
    let all: Vec<String> = processes.iter().map(|(_, process)| process.to_string()).collect();
    Command::new("perf")
        .args(["record", "--quiet", "--event=cpu-clock"])
        .arg(format!("--freq={SAMPLES_A_SECOND}"))
        .arg(format!("--pid={}", all.join(",")))
        .arg("--output")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// Its most expensive functions, one a line, with what each object file has as a whole before them.
fn report(process: u32, file: &Path) -> Option<Vec<String>> {
    let sorted_by = |keys: &str, shown: usize| {
        let said = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "--no-inline", "--quiet"])
            .arg("--percentage=relative")
            .arg(format!("--sort={keys}"))
            .arg(format!("--pid={process}"))
            .arg("--input")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let lines = text
            .lines()
            .filter(|line| line.contains('%') && !line.starts_with('#'));
        Some(lines.take(shown).map(tidy).collect::<Vec<_>>())
    };
    let mut lines = sorted_by("dso", 6)?;
    lines.push(String::new());
    lines.extend(sorted_by("symbol", SHOWN)?);
    Some(lines)
}

/// Without the empty columns behind it, and no longer than a line of a page.
fn tidy(line: &str) -> String {
    let text = line.trim_end_matches(|end: char| end == '-' || end.is_whitespace());
    text.chars().take(LINE).collect()
}

fn ended_within(child: &mut Child, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
