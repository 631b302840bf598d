//! The item service: a hop that keeps its caller's items in a database behind a cache, and calls the next hop.
//!
//! A, B and C of the example chain are this one program. It verifies every token itself; another's item is not there.

pub mod cache;
pub mod item;
pub mod lookup;
pub mod metrics;
pub mod pause;
pub mod store;
