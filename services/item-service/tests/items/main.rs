//! The item service against real stores: PostgreSQL, SQLite, Redis and memory, each suite once over all of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod cache_contract;
mod faults;
mod hop;
mod interleavings;
mod races;
mod service;
mod store_contract;
mod support;
