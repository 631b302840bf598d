//! The process's one TLS crypto provider, aws-lc-rs, which every main installs before anything else.

/// Makes aws-lc-rs the provider of every TLS client in this process. Doing it twice is harmless.
pub fn install() {
    // The error only says that a provider is already there, and there is only one to choose from.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
