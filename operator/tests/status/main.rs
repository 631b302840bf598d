//! What is said about a chain, and in which order its pods get a new template, from objects as the API server shows them.
#![cfg(test)]

mod chain;
mod clocks;
mod documented;
mod keys;
mod pods;
mod rollout;
mod stands_still;
mod stores;
mod world;
mod writes;
