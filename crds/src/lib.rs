//! The resources `ServiceChain` and `Revocation`, their CRDs, and `validated`: from what a user wrote to a
//! chain that can be built, or to everything that is wrong with it.
//! It must not know a cluster, files or time.

pub mod duration;
pub mod mistakes;
pub mod quantity;
pub mod revocation;
pub mod rules;
pub mod service_chain;
pub mod validated;

pub use mistakes::{Mistake, Mistakes};
pub use revocation::{Revocation, RevocationSpec};
pub use service_chain::{ServiceChain, ServiceChainSpec};
pub use validated::ValidatedChain;
