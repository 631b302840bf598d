//! The only way a bundle comes to be (key protocol, line 12): sign, which opens it again with the verifiers' code, and
//! REPLACE what was read. It must not know what is in the bundle.

use std::sync::Arc;

use servicechain_keys::{Bundle, HeldBundle, SignError};

use super::place::{Place, PlaceError};
use super::roots::Roots;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the next bundle cannot be signed")]
    Sign(#[from] SignError),
}

/// Returns the new version and what is now to be pushed.
pub(super) async fn publish(
    place: &Place,
    roots: &Roots,
    read: Option<&str>,
    next: &Bundle,
) -> Result<(String, Arc<HeldBundle>), RoundError> {
    let signed = Arc::new(next.sign(&roots.trust)?);
    let version = place.replace(read, signed.bytes()).await?;
    Ok((version, signed))
}
