//! Writes the CRDs beside the crate that defines them, and into the chart that installs them.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in servicechain_crds::manifests().map_err(io::Error::other)? {
        let file = repository.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, text)?;
    }
    Ok(())
}
