//! Running other programs: in a process group of their own, with what they say in a log, with a sign of life while they
//! run, and ended as a group when the run is interrupted.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

use crate::interrupt;
use crate::terminal::{Ticker, duration, say};

const POLL: Duration = Duration::from_millis(20);
/// What an interrupted program gets to put its things in order.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of a failed program's log that are shown.
const SHOWN_LINES: usize = 12;

/// Runs `command` to its end with its output in `log`, and ticks. An error names `label` and shows the log's end.
pub(crate) fn run(command: &mut Command, label: &str, log: &Path) -> anyhow::Result<()> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Group::spawn(
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output),
    )?;
    let status = child.wait(label, || last_line(log))?;
    if status.success() {
        return Ok(());
    }
    for line in tail(log, SHOWN_LINES) {
        say(format_args!("  | {line}"));
    }
    bail!("{label} failed ({status}); its whole log is {}", log.display())
}

/// Runs `command` to its end with its output on this terminal.
pub(crate) fn run_in_the_open(command: &mut Command) -> anyhow::Result<ExitStatus> {
    Group::spawn(command.stdin(Stdio::null()))?.wait("", String::new)
}

/// As [`run_in_the_open`]. What outlives `limit` is ended with all it started, and is an error.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> anyhow::Result<ExitStatus> {
    let mut child = Group::spawn(command.stdin(Stdio::null()))?;
    child.limit = Some(limit);
    child.wait("", String::new)
}

/// What `command` says, or `None` if it cannot be run or fails. For questions that take an instant.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Like [`ask`], for questions that must be answered.
pub(crate) fn answer(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} failed ({}): {}",
            output.status,
            said.trim().lines().last().unwrap_or("it said nothing")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A program and all it starts.
struct Group {
    child: Child,
    started: Instant,
    limit: Option<Duration>,
    ended: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        interrupt::check()?;
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self {
            child,
            started: Instant::now(),
            limit: None,
            ended: false,
        })
    }

    fn wait(&mut self, label: &str, detail: impl Fn() -> String) -> anyhow::Result<ExitStatus> {
        let mut ticker = (!label.is_empty()).then(|| Ticker::new(label));
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                interrupt::check()?;
                return Ok(status);
            }
            interrupt::check()?;
            if let Some(limit) = self.limit.filter(|limit| self.started.elapsed() > *limit) {
                bail!("it took longer than {}, and was ended", duration(limit));
            }
            if let Some(ticker) = &mut ticker {
                ticker.tick(&detail);
            }
            std::thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Already gone, then.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

fn last_line(log: &Path) -> String {
    tail(log, 1).pop().unwrap_or_default()
}

/// The last lines that say something.
fn tail(log: &Path, lines: usize) -> Vec<String> {
    const BYTES: u64 = 8 * 1024;
    let mut end = Vec::new();
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    let text = read().unwrap_or_default();
    let mut last: Vec<String> = String::from_utf8_lossy(&text)
        .lines()
        .rev()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .take(lines)
        .collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_dropped_ends_with_everything_it_started() {
        // Whoever still runs holds the pipe open.
        const LIFETIME: Duration = Duration::from_secs(20);
        let script = format!("sleep {0} & sleep {0}", LIFETIME.as_secs());
        let started = Instant::now();
        let mut group =
            Group::spawn(Command::new("sh").args(["-c", &script]).stdout(Stdio::piped())).unwrap();
        let mut pipe = group.child.stdout.take().unwrap();
        drop(group);
        pipe.read_to_end(&mut Vec::new()).unwrap();
        assert!(started.elapsed() < LIFETIME);
    }

    #[test]
    fn a_program_that_outlives_its_limit_is_ended() {
        let error = run_within(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "it took longer than 0.1 s, and was ended");
    }

    #[test]
    fn a_failure_names_the_step_and_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-child-{}.log", std::process::id()));
        let error = run(Command::new("sh").args(["-c", "exit 3"]), "etcd", &log).unwrap_err();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(
            error.to_string(),
            format!("etcd failed (exit status: 3); its whole log is {}", log.display())
        );
    }
}
