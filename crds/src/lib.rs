//! The resources `ServiceChain` and `Revocation`, their CRDs, and `validated`: from what a user wrote to a
//! chain that can be built, or to everything that is wrong with it.
//! It must not know a cluster, files or time.

mod check;
pub mod duration;
pub mod manifests;
pub mod mistakes;
pub mod quantity;
mod read;
pub mod revocation;
pub mod rules;
pub mod schema;
pub mod service_chain;
mod validate;
pub mod validated;

pub use manifests::manifests;
pub use mistakes::{Mistake, Mistakes};
pub use read::{read, validated};
pub use revocation::{Revocation, RevocationSpec};
pub use service_chain::{ServiceChain, ServiceChainSpec};
pub use validate::revocation::validated_revocation;
pub use validated::{ValidatedChain, ValidatedRevocation};
