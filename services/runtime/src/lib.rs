//! Running a service process: serving, draining, health, telemetry, outbound calls and finding upstreams.
//!
//! It knows nothing of tokens, keys or items. A service gives it routers and reads the request's context from it.

pub mod access;
pub mod admin;
pub mod clock;
pub mod config_errors;
pub mod crypto_provider;
pub mod deadline;
pub mod dns_label;
pub mod duration;
pub mod http_client;
pub mod lifecycle;
pub mod listeners;
pub mod metrics;
pub mod problem;
pub mod request_context;
pub mod request_id;
pub mod serve;
pub mod spans;
pub mod telemetry;
pub mod trace_context;
pub mod upstream;
