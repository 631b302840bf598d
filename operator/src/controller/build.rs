//! What a validated chain becomes, one kind of result a file. Pure and infallible.

pub mod configuration;
