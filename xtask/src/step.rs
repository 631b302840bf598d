//! A step: a script, what goes into it, and what comes out. A step whose result is there is skipped; a result that
//! changed on the disk is noticed and made again; a run that is cut off leaves nothing behind.

pub(crate) mod stamp;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::engine::Engine;
use crate::terminal::{duration, say};
use crate::{child, workspace};
use stamp::{Found, Stamp};

/// Enough of a digest to tell results apart.
const KEY_LENGTH: usize = 12;
/// Names a folder that is being filled; whoever finds one under the lock may remove it.
const PARTIAL: &str = ".partial";

/// What is to be made. Its key is a digest of all of this: other inputs, another key, another result beside the old one.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Below the workspace, run with `OUT` (an empty folder to fill), and `IMAGE` if it makes one.
    pub(crate) script: &'static str,
    /// Files and folders below the workspace that the script reads.
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) values: Vec<(&'static str, String)>,
    /// Results of other steps.
    pub(crate) results: Vec<(&'static str, PathBuf)>,
    /// Where inputs lie whose contents are in `values`: not part of the key.
    pub(crate) places: Vec<(&'static str, PathBuf)>,
    /// Files that are in `OUT` afterwards.
    pub(crate) files: Vec<String>,
    /// `NAME:TAG` of the Docker image that is there afterwards; the key is appended.
    pub(crate) image: Option<String>,
    /// Space it takes while it runs, with what it leaves.
    pub(crate) gibibytes: u64,
}

/// A result.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) folder: PathBuf,
    pub(crate) image: Option<String>,
}

/// For the summary.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) ran: bool,
    pub(crate) seconds: f64,
}

/// Makes steps, one after another, and remembers how that went.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) cache: Cache,
    reports: Vec<Report>,
    started: Instant,
}

impl Workshop {
    pub(crate) fn new(cache: Cache) -> Self {
        Self {
            cache,
            reports: Vec::new(),
            started: Instant::now(),
        }
    }

    /// `NAME: N steps, N run, in …`, and the steps.
    pub(crate) fn finish(self, name: &str) -> (String, Vec<Report>) {
        let run = self.reports.iter().filter(|report| report.ran).count();
        let summary = format!(
            "{name}: {} steps, {run} run, in {}",
            self.reports.len(),
            duration(self.started.elapsed())
        );
        (summary, self.reports)
    }

    /// A step that is no script: `act` says whether it had anything to do.
    pub(crate) fn act<T>(
        &mut self,
        name: &str,
        act: impl FnOnce(&Cache) -> anyhow::Result<(T, bool)>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let (value, ran) = act(&self.cache)?;
        self.report(name, ran, started.elapsed());
        Ok(value)
    }

    /// Makes `step`, unless it is there. `engine` is needed by steps that make images.
    pub(crate) fn make(&mut self, step: &Step, engine: Option<&Engine>) -> anyhow::Result<Made> {
        let key = step.key(&self.cache)?;
        let made = Made {
            folder: self.cache.root().join(&step.name).join(&key),
            image: step.image.as_ref().map(|image| format!("{image}-{key}")),
        };
        let _lock = self.cache.lock(&step.name)?;
        match Stamp::check(&made, engine)? {
            Found::Whole => {
                self.report(&step.name, false, Duration::ZERO);
                return Ok(made);
            }
            Found::Broken(reason) => say(format_args!("{}: {reason}; making it again", step.name)),
            Found::Nothing => say(format_args!("{}: making it", step.name)),
        }
        let started = Instant::now();
        self.run(step, &made, engine)?;
        self.report(&step.name, true, started.elapsed());
        Ok(made)
    }

    fn run(&self, step: &Step, made: &Made, engine: Option<&Engine>) -> anyhow::Result<()> {
        let home = self.cache.root().join(&step.name);
        remove_partial(&home)?;
        let partial = Partial(home.join(format!("{PARTIAL}-{}", std::process::id())));
        std::fs::create_dir_all(&partial.0)
            .with_context(|| format!("cannot make {}", partial.0.display()))?;
        require_space(&home, step)?;

        let script = workspace::path(step.script);
        let mut command = Command::new(&script);
        command
            .current_dir(workspace::root())
            .env("OUT", &partial.0)
            .envs(step.values.iter().map(|(name, value)| (name, value)))
            .envs(step.results.iter().map(|(name, path)| (name, path)))
            .envs(step.places.iter().map(|(name, path)| (name, path)));
        if let Some(engine) = engine {
            command.envs(engine.environment());
        }
        if let Some(image) = &made.image {
            command.env("IMAGE", image);
        }
        let started = Instant::now();
        child::run(&mut command, &step.name, &self.cache.log(&step.name))?;
        Stamp::write(&partial.0, step, made, engine, started.elapsed())?;
        if made.folder.exists() {
            std::fs::remove_dir_all(&made.folder)
                .with_context(|| format!("cannot remove {}", made.folder.display()))?;
        }
        std::fs::rename(&partial.0, &made.folder)
            .with_context(|| format!("cannot put {} in its place", made.folder.display()))
    }

    fn report(&mut self, name: &str, ran: bool, took: Duration) {
        if ran {
            say(format_args!("{name}: done in {}", duration(took)));
        } else {
            say(format_args!("{name}: there"));
        }
        self.reports.push(Report {
            name: name.to_owned(),
            ran,
            seconds: took.as_secs_f64(),
        });
    }
}

impl Step {
    fn key(&self, cache: &Cache) -> anyhow::Result<String> {
        let mut hasher = Sha256::new();
        let mut add = |part: &[u8]| {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        };
        add(self.name.as_bytes());
        add(self.image.as_deref().unwrap_or_default().as_bytes());
        for (name, value) in &self.values {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for (name, path) in &self.results {
            add(name.as_bytes());
            // Its own key is part of its path; where the cache lies is not part of what it is.
            let path = path.strip_prefix(cache.root()).unwrap_or(path);
            add(path.as_os_str().as_encoded_bytes());
        }
        let script = PathBuf::from(self.script);
        for source in std::iter::once(&script).chain(&self.sources) {
            for file in workspace::files(source)? {
                add(file.as_os_str().as_encoded_bytes());
                let path = workspace::path(&file);
                let contents =
                    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                add(&contents);
            }
        }
        let digest = hasher.finalize();
        Ok(stamp::hexadecimal(&digest)[..KEY_LENGTH].to_owned())
    }
}

/// Removed unless it was moved to its place.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // The next run of this step tries again, and says what is in the way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn remove_partial(home: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(home) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let is_partial = |name: OsString| name.as_encoded_bytes().starts_with(PARTIAL.as_bytes());
        if is_partial(entry.file_name()) {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove what an earlier run left in {}", home.display()))?;
        }
    }
    Ok(())
}

fn require_space(folder: &Path, step: &Step) -> anyhow::Result<()> {
    const GIBIBYTE: u64 = 1 << 30;
    let system = rustix::fs::statvfs(folder)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize) / GIBIBYTE;
    if free < step.gibibytes {
        bail!(
            "{} needs {} GiB in {}, where {free} GiB are free; make room there, or let XDG_CACHE_HOME name a folder on \
             a larger disk",
            step.name,
            step.gibibytes,
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
