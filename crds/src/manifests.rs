//! The CRDs as files: what `crds/*.yaml` must hold.

use crate::schema;

const HEADER: &str =
    "# Written by `cargo run -p servicechain-crds --example generate`; change the Rust types instead.\n";

/// The manifests, each with its file name.
pub fn manifests() -> Result<Vec<(&'static str, String)>, serde_saphyr::SerializeError> {
    [
        ("servicechains.yaml", schema::service_chain_crd()),
        ("revocations.yaml", schema::revocation_crd()),
    ]
    .into_iter()
    .map(|(name, crd)| Ok((name, format!("{HEADER}{}", serde_saphyr::to_string(crd)?))))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_committed_manifests_are_what_the_types_say() {
        for (name, text) in super::manifests().unwrap() {
            let committed =
                fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default();
            assert!(
                committed == text,
                "crds/{name} is stale: run `cargo run -p servicechain-crds --example generate`"
            );
        }
    }

    #[test]
    fn a_manifest_reads_back_as_the_crd() {
        for ((_, text), crd) in super::manifests().unwrap().iter().zip([
            crate::schema::service_chain_crd(),
            crate::schema::revocation_crd(),
        ]) {
            assert_eq!(&serde_saphyr::from_str::<serde_json::Value>(text).unwrap(), crd);
        }
    }
}
