//! Issuers that somebody else runs, well and badly, before the real publisher and real verifiers over loopback.

#![cfg(test)]
#[expect(
    dead_code,
    reason = "shared with the test of Keycloak, which asks other things of it"
)]
mod chain;
mod hostile;
mod learn;
mod provider;
mod tls;
mod withdraw;
