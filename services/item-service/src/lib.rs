//! The item service: a hop that keeps its caller's items in a database behind a cache, and calls the next hop.
//!
//! A, B and C of the example chain are this one program. It verifies every token itself; another's item is not there.

mod app;
pub mod cache;
pub mod config;
pub mod item;
mod items;
pub mod lookup;
pub mod metrics;
mod next_hop;
pub mod pause;
mod precondition;
mod rejection;
mod reply;
mod run;
pub mod store;

pub use config::{Config, ConfigErrors, Places};
pub use run::{run, run_with};
