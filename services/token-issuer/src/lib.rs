//! The chain's own issuer of tokens (RFC 6749 client credentials, RFC 9068 access tokens). It signs only with a key that
//! the newest key bundle it holds calls Active, and must not know how keys come to be Active: that is the operator's.

pub mod app;
mod client_credentials;
pub mod clients;
pub mod config;
mod form;
mod issue_token;
mod keys_directory;
mod metrics;
mod publish_keys;
mod rejection;
mod run;
mod signing_keys;

pub use config::Config;
pub use keys_directory::KeysDirectoryError;
pub use run::run;
pub use signing_keys::{CannotSign, SigningKeys};
