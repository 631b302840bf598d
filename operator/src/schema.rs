//! Whether the cluster's CRDs know every field that this operator writes. Older ones would drop some of them silently, and
//! each pass would write the same status again. It must not know what the fields are.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::schema::{SCHEMA, SCHEMA_ANNOTATION};

use crate::api_client::{ApiError, READ_TIMEOUT, within};

const CRDS: [&str; 2] = ["servicechains.servicechain.dev", "revocations.servicechain.dev"];

/// Why nothing may be written yet. Each is a sentence for whoever installs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the CRD {0} is not installed; install the chart servicechain-crds")]
    Missing(&'static str),
    #[error(
        "the CRD {name} has schema {found} and this operator needs {SCHEMA}; upgrade the chart servicechain-crds, Helm does not do that with this one"
    )]
    Older { name: &'static str, found: u32 },
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// # Errors
/// The CRDs are missing, older than this operator, or cannot be read.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for name in CRDS {
        let what = format!("cannot read the CRD {name}");
        let found = within(READ_TIMEOUT, what, api.get_metadata_opt(name)).await?;
        let found = found.ok_or(SchemaError::Missing(name))?;
        judge(
            name,
            found.annotations().get(SCHEMA_ANNOTATION).map(String::as_str),
        )?;
    }
    Ok(())
}

/// One without the annotation is older than all that have it.
fn judge(name: &'static str, annotation: Option<&str>) -> Result<(), SchemaError> {
    let found = annotation.and_then(|text| text.parse().ok()).unwrap_or(0);
    if found < SCHEMA {
        return Err(SchemaError::Older { name, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_crds_are_refused_and_newer_ones_are_not() {
        assert!(judge(CRDS[0], Some(&SCHEMA.to_string())).is_ok());
        assert!(judge(CRDS[0], Some(&(SCHEMA + 1).to_string())).is_ok());
        for older in [None, Some("0"), Some("new")] {
            let error = judge(CRDS[0], older).unwrap_err().to_string();
            assert!(error.contains("upgrade the chart servicechain-crds"), "{error}");
        }
    }
}
