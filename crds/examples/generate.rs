//! Writes the CRDs beside the crate that defines them.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in servicechain_crds::manifests().map_err(io::Error::other)? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
