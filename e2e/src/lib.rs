//! A whole chain on one machine for tests across crates: real hops, real PostgreSQL and Redis, real HTTP, recorders
//! between the hops. It knows how to start and watch things; what must be true of them is in `tests/`.

pub mod balancer;
pub mod chain;
#[cfg(feature = "apiserver")]
pub mod charts;
pub mod client;
#[cfg(feature = "apiserver")]
pub mod cluster;
pub mod keys;
#[cfg(feature = "kind")]
pub mod load;
#[cfg(feature = "apiserver")]
pub mod operator;
pub mod process;
pub mod recorder;
pub mod running;
#[cfg(feature = "kind")]
pub mod shop;

pub use balancer::{Balancer, Reconnects, Replica};
pub use chain::{Chain, Plan};
pub use keys::Keys;
pub use recorder::Recorder;
pub use running::Running;
