//! The project's folder in the user's cache: what was made, logs, locks, and one folder for each cluster.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;

use crate::interrupt;
use crate::terminal::Ticker;

/// Only ever read from the environment: where caches are is not a choice of one run.
#[derive(Parser)]
struct Environment {
    #[arg(long, env = "XDG_CACHE_HOME")]
    xdg_cache_home: Option<PathBuf>,
    #[arg(long, env = "HOME")]
    home: Option<PathBuf>,
}

/// Where everything lies that can be made again.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Held until dropped; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The cache's folder.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    Ok(Cache::open()?.root)
}

impl Cache {
    /// `$XDG_CACHE_HOME/servicechain`, else `~/.cache/servicechain`. Made if it is missing.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let environment = Environment::try_parse_from(["cache"])?;
        // An empty or relative one counts as unset (XDG base directory specification).
        let xdg = environment.xdg_cache_home.filter(|path| path.is_absolute());
        let Some(base) = xdg.or_else(|| environment.home.map(|home| home.join(".cache"))) else {
            bail!(
                "neither XDG_CACHE_HOME nor HOME is set, so there is no place for a cache; set one of them"
            );
        };
        Self::at(base.join("servicechain"))
    }

    /// With `root` as its folder.
    pub(crate) fn at(root: PathBuf) -> anyhow::Result<Self> {
        for folder in [&root, &root.join("logs"), &root.join("locks")] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn cluster(&self, name: &str) -> PathBuf {
        self.root.join("clusters").join(name)
    }

    /// Waits for whoever holds the lock, and says so.
    pub(crate) fn lock(&self, name: &str) -> anyhow::Result<Lock> {
        let path = self.root.join("locks").join(name);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut ticker = Ticker::new(name);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            interrupt::check()?;
            ticker.tick(|| "another run is at it; waiting for it".to_owned());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
