//! The chain's entrance: a reverse proxy that verifies tokens and passes them on unchanged.
//!
//! [`Config::from_yaml`] reads what it is told, [`bind`] takes its port and [`run`] serves until the process has
//! drained. How a request travels is shown by the module `app`; the other modules are one idea each.

mod admit;
mod answer_chunks;
mod answer_head;
mod app;
mod body;
mod chunks;
mod client_headers;
pub mod config;
mod connection;
mod conversation;
mod exchange;
mod forward;
mod head_guard;
mod headers;
mod metrics;
mod open_requests;
mod path;
mod pool;
mod rejection;
mod request_head;
mod request_line;
mod route_table;
mod second_opinion;
mod server;
mod small_writes;
mod worker;

pub use config::{Config, ConfigErrors};
pub use path::BadPath;
pub use server::{Listeners, bind, run, run_with};
