//! What a chain becomes on Kubernetes: tables of single decisions, and all of examples/shop.yaml as a committed file.
#![cfg(test)]

mod names;
mod network;
mod pods;
mod rendering;
mod stores;
mod workshop;
