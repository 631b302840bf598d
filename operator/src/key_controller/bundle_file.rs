//! The newest bundle in a file: what the `ConfigMap` is on Kubernetes. Replaced whole and only if it still holds what was
//! read. It must not know what is in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use servicechain_keys::Digest;
use servicechain_keys::bundle::MAX_BUNDLE_BYTES;

use super::place::{Claim, PlaceError, Stored};

#[derive(Clone, Debug)]
pub struct BundleFile {
    path: PathBuf,
}

impl BundleFile {
    /// The folder must exist; the file comes with the first bundle.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// # Errors
    /// The file is there and cannot be read, or is larger than a bundle may be.
    pub fn read(&self) -> io::Result<Option<Stored>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "larger than a bundle may be",
            ));
        }
        Ok(Some(Stored {
            version: Digest::of(&bytes).to_string(),
            bytes,
            claim: Claim::Intact,
        }))
    }

    /// Writes `bytes` if the file still has the version that was read, or is still absent, and returns the new version:
    /// the digest of the bytes.
    ///
    /// # Errors
    /// [`PlaceError::Conflict`] where it changed since, or the file cannot be written; nothing is written then.
    pub fn replace(&self, read: Option<&str>, bytes: &[u8]) -> Result<String, PlaceError> {
        // Held until the end of the function, against another process on the same file.
        let lock = File::create(self.beside("lock"))?;
        lock.lock()?;
        let current = self.read()?.map(|stored| stored.version);
        if current.as_deref() != read {
            return Err(PlaceError::Conflict);
        }
        let next = self.beside("next");
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Digest::of(bytes).to_string())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(suffix);
        self.path.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_read_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = BundleFile::new(folder.path().join("bundle.jws"));
        assert!(file.read().unwrap().is_none());
        let first = file.replace(None, b"one").unwrap();
        assert!(matches!(file.replace(None, b"other"), Err(PlaceError::Conflict)));
        let second = file.replace(Some(&first), b"two").unwrap();
        assert!(matches!(
            file.replace(Some(&first), b"late"),
            Err(PlaceError::Conflict)
        ));
        let stored = file.read().unwrap().unwrap();
        assert_eq!(
            (stored.bytes.as_slice(), stored.version),
            (b"two".as_slice(), second)
        );
    }
}
