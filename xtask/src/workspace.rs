//! The checkout: where it is, and which files lie in a part of it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Context;

/// The folder of the workspace's Cargo.toml. Cargo tells the one it was called in: where checkouts share a build folder,
/// the one this program was built in may be another, or gone.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR");
        let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        package.parent().map(Path::to_owned).unwrap_or(package)
    });
    &ROOT
}

/// Below the workspace.
pub(crate) fn path(relative: impl AsRef<Path>) -> PathBuf {
    root().join(relative)
}

/// Where cargo builds, wherever it was told to: this program is in its `debug` or `release`.
pub(crate) fn build_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the path of xtask is unknown")?;
    let folder = program.parent().and_then(Path::parent);
    folder
        .map(Path::to_owned)
        .with_context(|| format!("{} is in no build folder", program.display()))
}

/// All files of a folder, or the file itself, relative to the workspace and in order. Hidden ones, build results and
/// tests do not go into what is built, and are left out.
pub(crate) fn files(relative: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let full = path(relative);
    if !full.is_dir() {
        return Ok(vec![relative.to_owned()]);
    }
    let mut entries = std::fs::read_dir(&full)
        .with_context(|| format!("cannot list {}", full.display()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.retain(|name| {
        let name = name.to_string_lossy();
        !name.starts_with('.') && !["target", "tests", "benches"].contains(&name.as_ref())
    });
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        files.extend(self::files(&relative.join(entry))?);
    }
    Ok(files)
}
