//! The objects of a chain: what they must be, as pure functions of the validated chain.

pub mod accepted;
pub mod build;
pub mod observed;
pub mod resources;
