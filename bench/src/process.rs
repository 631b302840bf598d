//! A program under measurement: started on one core, its processor time read to the nanosecond, ended with its owner.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the programs under measurement run.
pub(crate) const MEASURED_CORE: usize = 0;
/// Where everything else runs: clients and upstreams.
pub(crate) const OTHER_CORE: usize = 1;

/// A running program. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    output: File,
}

/// Processor time of every thread of a process, in nanoseconds by thread.
#[derive(Debug, Default)]
pub(crate) struct ProcessorTime(HashMap<u32, u64>);

impl Process {
    /// Starts `command` on the measured core, with all it says in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        on_core(MEASURED_CORE, || Self::start_anywhere(command, log))?
    }

    /// Starts `command` where this thread may run, with all it says in `log`.
    pub(crate) fn start_anywhere(command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            output,
        })
    }

    /// # Errors
    /// When it has ended by itself; the error has the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            let end: Vec<&str> = said.lines().rev().take(8).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("{} ended ({status}):\n{}", self.log.display(), end.join("\n"));
        }
        Ok(())
    }

    /// Throws away what it has logged: a log of millions of lines is none of the measurement's business.
    pub(crate) fn forget_log(&self) -> Result<()> {
        self.output.set_len(0).context("cannot truncate a log")
    }

    pub(crate) fn processor_time(&self) -> Result<ProcessorTime> {
        ProcessorTime::of(self.child.id())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> Result<f64> {
        resident(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ProcessorTime {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{process}/task")).context("the process is gone")? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let thread = entry.file_name().to_string_lossy().parse()?;
            let nanos = text
                .split(' ')
                .next()
                .and_then(|nanos| nanos.parse().ok())
                .context(
                    "this kernel does not tell threads' processor time in /proc/PID/task/TID/schedstat",
                )?;
            threads.insert(thread, nanos);
        }
        Ok(Self(threads))
    }

    /// Of this process and all that descend from it and are called so.
    pub(crate) fn of_descendants(called: &str) -> Result<Self> {
        let mut parents = HashMap::new();
        let mut named = Vec::new();
        for entry in fs::read_dir("/proc").context("there is no /proc")?.flatten() {
            let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            // It may have ended meanwhile.
            let Ok(text) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            // `PID (NAME) STATE PARENT …`, and a name may hold anything.
            let (Some((_, rest)), Some((before, fields))) = (text.split_once('('), text.rsplit_once(") "))
            else {
                continue;
            };
            let name = rest
                .get(..before.len() - (text.len() - rest.len()))
                .unwrap_or_default();
            let parent = fields.split(' ').nth(1).and_then(|parent| parent.parse().ok());
            parents.insert(process, parent.unwrap_or(0_u32));
            if name == called {
                named.push(process);
            }
        }
        let own = std::process::id();
        let is_ours = |process: &u32| {
            let mut ancestors = std::iter::successors(parents.get(process), |parent| parents.get(*parent));
            // No family is deeper.
            ancestors.by_ref().take(64).any(|ancestor| *ancestor == own)
        };
        let mut all = Self::default();
        for process in named.iter().filter(|process| is_ours(process)) {
            if let Ok(of_one) = Self::of(*process) {
                all.add(of_one);
            }
        }
        Ok(all)
    }

    /// Of both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What all threads that are still there have used since `before`.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let nanos = self
            .0
            .iter()
            .map(|(thread, now)| now - before.0.get(thread).copied().unwrap_or_default().min(*now))
            .sum();
        Duration::from_nanos(nanos)
    }
}

/// Bytes of memory that a process has now; `self` is this one.
pub(crate) fn resident(process: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("the process is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    Ok(kib.context("this kernel does not tell a process' memory")? * 1024.0)
}

/// As many files as this user may open: thousands of connections are as many files, here and in what is started.
pub(crate) fn open_many_files() -> Result<u64> {
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.or(limits.current).unwrap_or(u64::MAX);
    let all = Rlimit {
        current: Some(most),
        maximum: limits.maximum,
    };
    setrlimit(Resource::Nofile, all).context("this process may not raise its own limit of files")?;
    Ok(most)
}

/// Runs `work` on one core; what it starts stays there.
pub(crate) fn on_core<T>(core: usize, work: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None).context("this thread's cores cannot be read")?;
    pin(core)?;
    let done = work();
    sched_setaffinity(None, &before).context("this thread's cores cannot be restored")?;
    Ok(done)
}

/// Keeps this thread on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)
        .with_context(|| format!("core {core} cannot be had; measuring needs two cores"))
}
