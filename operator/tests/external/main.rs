//! Issuers that somebody else runs, well and badly, before the real publisher and real verifiers over loopback.

#![cfg(test)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare functions marked as tests, not what they are made of"
)]

mod chain;
mod hostile;
mod learn;
mod provider;
mod withdraw;
