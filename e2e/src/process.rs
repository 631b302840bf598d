//! Real processes under test: our own and what Debian ships. Each is the child of a small shell that ends
//! it when the test process ends, however that ends.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// Tells the child's process id, then waits for the end of its own input.
const SHELL: &str =
    r#"log=$1; shift; "$@" >"$log" 2>&1 </dev/null & echo $!; cat >/dev/null; kill -KILL $! 2>/dev/null"#;

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    shell: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program that writes to a log in `folder`.
    pub fn start(program: &Path, args: &[impl AsRef<OsStr>], folder: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().and_then(OsStr::to_str).unwrap_or("process");
        let log = unused(folder, name);
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SHELL, "sh"])
            .arg(&log)
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run /bin/sh")?;
        let answers = shell
            .stdout
            .take()
            .context("a piped child has a standard output")?;
        let mut pid = String::new();
        BufReader::new(answers).read_line(&mut pid)?;
        let pid = pid
            .trim()
            .parse()
            .with_context(|| format!("{name} did not start"))?;
        Ok(Self { shell, pid, log })
    }

    /// Sends a signal, for example `KILL` or `TERM`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.pid.to_string()])
            .status()?;
        if !status.success() {
            bail!("process {} does not take {signal}", self.pid);
        }
        Ok(())
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A program from Debian, or a sentence that says how to get it.
pub fn from_debian(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists());
    found.with_context(|| format!("{program} is not installed; install it with `apt-get install {package}`"))
}

fn unused(folder: &Path, name: &str) -> PathBuf {
    let mut number = 1;
    loop {
        let path = folder.join(format!("{name}-{number}.log"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}
