//! The only way a bundle comes to be (key protocol, line 12): sign, which opens it again with the verifiers' code, and
//! REPLACE what was read. It must not know what is in the bundle.

use std::io;

use servicechain_keys::{Bundle, HeldBundle, SignError};
use tokio::task::JoinError;

use super::Roots;
use super::bundle_file::{BundleFile, ReplaceError, Stored};

#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("the bundle cannot be read")]
    Read(#[source] io::Error),
    #[error("the next bundle cannot be signed")]
    Sign(#[from] SignError),
    #[error("the next bundle cannot be written")]
    Replace(#[from] ReplaceError),
    #[error("the thread for files failed")]
    Thread(#[from] JoinError),
}

pub(super) async fn read(store: &BundleFile) -> Result<Option<Stored>, PublishError> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.read())
        .await?
        .map_err(PublishError::Read)
}

/// Returns the new version and what is now to be pushed.
pub(super) async fn publish(
    store: &BundleFile,
    roots: &Roots,
    read: Option<String>,
    next: &Bundle,
) -> Result<(String, HeldBundle), PublishError> {
    let signed = next.sign(&roots.trust)?;
    let version = replace(store, read, &signed).await?;
    Ok((version, signed))
}

/// Writes the very bytes of an authentic bundle.
pub(super) async fn replace(
    store: &BundleFile,
    read: Option<String>,
    bundle: &HeldBundle,
) -> Result<String, PublishError> {
    let (store, bytes) = (store.clone(), std::sync::Arc::clone(bundle.bytes()));
    Ok(tokio::task::spawn_blocking(move || store.replace(read.as_deref(), &bytes)).await??)
}
