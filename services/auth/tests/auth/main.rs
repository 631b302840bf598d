//! The auth crate from outside, as its users see it.

mod attacks;
mod authorization;
mod cache;
mod keys_endpoint;
mod layers;
mod loopback;
mod start;
mod unknown_key;
mod verify;
