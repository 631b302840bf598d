//! The CRDs as files: beside this crate, and in the chart that installs them.

use serde_json::{Value, json};

use crate::schema;

const HEADER: &str =
    "# Written by `cargo run -p servicechain-crds --example generate`; change the Rust types instead.\n";

/// The manifests, each with its path in the repository.
pub fn manifests() -> Result<Vec<(String, String)>, serde_saphyr::SerializeError> {
    let mut manifests = Vec::new();
    for (name, crd) in [
        ("servicechains.yaml", schema::service_chain_crd()),
        ("revocations.yaml", schema::revocation_crd()),
    ] {
        manifests.push((format!("crds/{name}"), written(crd)?));
        let path = format!("charts/servicechain-crds/templates/{name}");
        manifests.push((path, written(&kept_by_helm(crd))?));
    }
    Ok(manifests)
}

/// With the CRDs every chain of the cluster would go.
fn kept_by_helm(crd: &Value) -> Value {
    let mut crd = crd.clone();
    crd["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
    crd
}

fn written(crd: &Value) -> Result<String, serde_saphyr::SerializeError> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(crd)?))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_committed_manifests_are_what_the_types_say() {
        for (path, text) in manifests().unwrap() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&path);
            assert!(
                fs::read_to_string(file).unwrap_or_default() == text,
                "{path} is stale: run `cargo run -p servicechain-crds --example generate`"
            );
        }
    }

    #[test]
    fn a_manifest_reads_back_as_the_crd_and_names_its_schema() {
        for (path, text) in manifests().unwrap() {
            let crd = if path.ends_with("servicechains.yaml") {
                schema::service_chain_crd()
            } else {
                schema::revocation_crd()
            };
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(read["spec"], crd["spec"], "{path}");
            assert_eq!(
                read["metadata"]["annotations"][schema::SCHEMA_ANNOTATION],
                schema::SCHEMA.to_string(),
                "{path}"
            );
        }
    }

    #[test]
    fn helm_finds_nothing_to_expand_in_a_crd() {
        for (path, text) in manifests().unwrap() {
            assert!(!text.contains("{{"), "{path}");
        }
    }
}
