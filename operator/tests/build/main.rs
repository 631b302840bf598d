//! What a chain becomes on Kubernetes: tables of single decisions, and all of examples/shop.yaml as a committed file.
#![cfg(test)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

mod names;
mod network;
mod pods;
mod rendering;
mod stores;
mod workshop;
