//! The gateway over real loopback sockets, before an upstream that writes down every byte it is sent. Raw sockets on
//! both sides: what is tested is what travels, not what a library makes of it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod client;
mod harness;
mod upstream;

mod drain;
mod forwarding;
mod open_requests;
mod refusals;
mod smuggling;
mod streaming;
mod tokens;
