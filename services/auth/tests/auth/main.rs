//! The auth crate from outside, as its users see it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod attacks;
mod authority;
mod authorization;
mod cache;
mod follow;
mod keys_endpoint;
mod layers;
mod loopback;
mod start;
mod unknown_key;
mod verify;
