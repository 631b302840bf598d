//! The item service against real stores: PostgreSQL, SQLite, Redis and memory, each suite once over all of them.

mod cache_contract;
mod interleavings;
mod races;
mod service;
mod store_contract;
mod support;
