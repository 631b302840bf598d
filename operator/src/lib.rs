//! The operator: it turns chains into Kubernetes objects (`controller`) and brings every verifier the same keys
//! (`key_controller`). It knows images and ports, never the crate of a service.

pub mod api_client;
pub mod clock;
pub mod config;
pub mod controller;
pub mod events;
pub mod health;
pub mod key_controller;
pub mod lease;
pub mod metrics;
pub mod object_names;
pub mod pages;
pub mod process;
pub mod schema;
pub mod streams;
pub mod trace;
