//! The issuer as its clients, its verifiers and the operator see it.
#![cfg(test)]

mod discovery;
mod fixtures;
mod keys_port;
mod process;
mod revoked;
mod signing;
mod token_endpoint;
