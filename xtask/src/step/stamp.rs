//! The note beside a step's result: what was made, so that a later run can tell whether it is still that.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Made, Step};
use crate::engine::Engine;

const NAME: &str = "stamp.json";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    seconds: f64,
    files: Vec<MadeFile>,
    image_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MadeFile {
    name: String,
    bytes: u64,
    /// Nanoseconds since 1970. A file that was not written since need not be read again.
    modified: u128,
    sha256: String,
}

pub(super) enum Found {
    Whole,
    Nothing,
    /// Why what is there is not what was made.
    Broken(String),
}

impl Stamp {
    pub(super) fn check(made: &Made, engine: Option<&Engine>) -> anyhow::Result<Found> {
        let Ok(text) = std::fs::read(made.folder.join(NAME)) else {
            return Ok(Found::Nothing);
        };
        let Ok(stamp) = serde_json::from_slice::<Self>(&text) else {
            return Ok(Found::Broken(format!("its {NAME} cannot be read")));
        };
        for file in &stamp.files {
            if let Some(reason) = file.difference(&made.folder) {
                return Ok(Found::Broken(reason));
            }
        }
        let (Some(image), Some(id)) = (&made.image, &stamp.image_id) else {
            return Ok(Found::Whole);
        };
        let Some(engine) = engine else {
            bail!("{image} cannot be looked for without a Docker engine");
        };
        Ok(match engine.image_id(image) {
            Some(found) if found == *id => Found::Whole,
            Some(_) => Found::Broken(format!("{image} is not the image that was made")),
            None => Found::Broken(format!("the Docker engine no longer has {image}")),
        })
    }

    pub(super) fn write(
        folder: &Path,
        step: &Step,
        made: &Made,
        engine: Option<&Engine>,
        took: Duration,
    ) -> anyhow::Result<()> {
        let files = step
            .files
            .iter()
            .map(|name| MadeFile::of(folder, name))
            .collect::<anyhow::Result<_>>()?;
        let image_id = match &made.image {
            Some(image) => Some(
                engine
                    .and_then(|engine| engine.image_id(image))
                    .with_context(|| format!("{} ended well, but there is no image {image}", step.script))?,
            ),
            None => None,
        };
        let stamp = Self {
            seconds: took.as_secs_f64(),
            files,
            image_id,
        };
        std::fs::write(folder.join(NAME), serde_json::to_vec_pretty(&stamp)?)
            .with_context(|| format!("cannot write {NAME} in {}", folder.display()))
    }
}

impl MadeFile {
    fn of(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let metadata = path
            .metadata()
            .with_context(|| format!("the step ended well, but did not make {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            bytes: metadata.len(),
            modified: modified(&metadata)?,
            sha256: sha256(&path)?,
        })
    }

    fn difference(&self, folder: &Path) -> Option<String> {
        let path = folder.join(&self.name);
        let Ok(metadata) = path.metadata() else {
            return Some(format!("{} is missing", path.display()));
        };
        if metadata.len() != self.bytes {
            let (found, made) = (metadata.len(), self.bytes);
            return Some(format!("{} has {found} bytes instead of {made}", path.display()));
        }
        if modified(&metadata).ok() == Some(self.modified) {
            return None;
        }
        match sha256(&path) {
            Ok(digest) if digest == self.sha256 => None,
            _ => Some(format!("{} has other contents than were made", path.display())),
        }
    }
}

fn modified(metadata: &Metadata) -> anyhow::Result<u128> {
    Ok(metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos())
}

pub(crate) fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
