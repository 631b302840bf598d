//! A whole chain on one machine for tests across crates: real hops, real PostgreSQL and Redis, real HTTP, recorders
//! between the hops. It knows how to start and watch things; what must be true of them is in `tests/`.

pub mod balancer;
#[cfg(feature = "kind")]
pub mod bundles;
pub mod chain;
#[cfg(feature = "apiserver")]
pub mod charts;
pub mod client;
#[cfg(feature = "apiserver")]
pub mod cluster;
#[cfg(feature = "kind")]
pub mod control_plane;
#[cfg(feature = "kind")]
pub mod installed;
pub mod keys;
#[cfg(feature = "kind")]
pub mod load;
#[cfg(feature = "apiserver")]
pub mod operator;
#[cfg(feature = "kind")]
pub mod pod;
pub mod process;
#[cfg(feature = "kind")]
pub mod progress;
pub mod recorder;
pub mod running;
#[cfg(feature = "kind")]
pub mod shop;
#[cfg(feature = "kind")]
pub mod token_load;

pub use balancer::{Balancer, Reconnects, Replica};
pub use chain::{Chain, Plan};
pub use keys::Keys;
pub use recorder::Recorder;
pub use running::Running;
