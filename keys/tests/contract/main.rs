//! What the key protocol promises, asked from outside the crate.
#![cfg(test)]

mod bundle_is_taken;
mod compact_jws;
mod fixtures;
mod key_hygiene;
mod messages;
mod never_panics;
mod signatures;
mod vectors;
