//! Private keys where they outlive a restart of the container and nothing else: files in a memory-backed directory of
//! the pod. It must not know what keys are for.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use servicechain_keys::{Algorithm, SigningKey};
use zeroize::Zeroizing;

const SUFFIX: &str = "pkcs8";
/// An RSA key of 8192 bits takes less than 5 KiB.
const MAX_KEY_BYTES: u64 = 16 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("keys directory {} cannot be used; mount a writable, memory-backed directory there", path.display())]
pub struct KeysDirectoryError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
pub(crate) struct KeysDirectory {
    path: PathBuf,
}

impl KeysDirectory {
    /// Also checks that it can be written to, before a key depends on that.
    pub(crate) fn open(path: PathBuf) -> Result<Self, KeysDirectoryError> {
        let check = || {
            fs::create_dir_all(&path)?;
            tempfile::NamedTempFile::new_in(&path).map(drop)
        };
        match check() {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(KeysDirectoryError { path, source }),
        }
    }

    /// The keys of this algorithm. Any other key file is of no use to anyone and is removed.
    pub(crate) fn load(&self, algorithm: Algorithm) -> Result<Vec<SigningKey>, KeysDirectoryError> {
        let in_directory = |source| KeysDirectoryError {
            path: self.path.clone(),
            source,
        };
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(in_directory)? {
            let file = entry.map_err(in_directory)?.path();
            if file.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            match read_key(&file, algorithm) {
                Some(key) => keys.push(key),
                None => fs::remove_file(&file).map_err(in_directory)?,
            }
        }
        Ok(keys)
    }

    /// The file appears whole, readable by its owner only.
    pub(crate) fn save(&self, key: &SigningKey) -> io::Result<()> {
        let pkcs8 = key.to_pkcs8().map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        file.write_all(&pkcs8)?;
        file.persist(self.file_of(key.kid()))
            .map_err(|error| error.error)?;
        Ok(())
    }

    pub(crate) fn remove(&self, kid: &str) -> io::Result<()> {
        match fs::remove_file(self.file_of(kid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// A kid is a thumbprint in base64url, which no file system reads as anything but a name.
    fn file_of(&self, kid: &str) -> PathBuf {
        self.path.join(format!("{kid}.{SUFFIX}"))
    }
}

fn read_key(file: &Path, algorithm: Algorithm) -> Option<SigningKey> {
    if fs::metadata(file).ok()?.len() > MAX_KEY_BYTES {
        return None;
    }
    let pkcs8 = Zeroizing::new(fs::read(file).ok()?);
    let key = SigningKey::from_pkcs8(algorithm, &pkcs8).ok()?;
    (file.file_stem()?.to_str()? == key.kid()).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn key_survives_in_a_file_of_its_owner_and_others_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeysDirectory::open(directory.path().join("keys")).unwrap();
        let key = SigningKey::generate(Algorithm::ES256).unwrap();
        keys.save(&key).unwrap();
        keys.save(&SigningKey::generate(Algorithm::EdDSA).unwrap())
            .unwrap();
        fs::write(keys.file_of("broken"), "half a key").unwrap();
        fs::copy(keys.file_of(key.kid()), keys.file_of("renamed")).unwrap();
        let mode = fs::metadata(keys.file_of(key.kid()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let loaded = keys.load(Algorithm::ES256).unwrap();
        assert_eq!(
            loaded.iter().map(SigningKey::kid).collect::<Vec<_>>(),
            [key.kid()]
        );
        assert_eq!(fs::read_dir(directory.path().join("keys")).unwrap().count(), 1);
        keys.remove(key.kid()).unwrap();
        keys.remove(key.kid()).unwrap();
        assert!(keys.load(Algorithm::ES256).unwrap().is_empty());
    }

    #[test]
    fn directory_that_cannot_be_written_is_said_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = KeysDirectory::open(file.path().to_owned()).unwrap_err();
        assert!(error.to_string().contains("mount a writable"), "{error}");
    }
}
