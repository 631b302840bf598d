//! Who is calling: verifies JSON Web Tokens locally, at every hop, against keys that are pushed to it. It owns the
//! rules of verification, the cache of verdicts, the tower layers and the pod's side of the key protocol. It must not
//! know how a process is run (ports, telemetry, configuration files) nor what a service does with its caller.
//!
//! - [`verify()`]: one token, one bundle, one moment; pure.
//! - [`Verifier`]: the same for a process, with a cache and keys that change underneath.
//! - [`RequireTokenLayer`], [`PropagateTokenLayer`]: tower layers for the way in and the way out.

#[cfg(feature = "attacks")]
pub mod attacks;
pub mod authorization;
pub mod bearer;
pub mod caller;
mod claims;
pub mod hop;
pub mod keys_endpoint;
pub mod propagate_token;
pub mod rejected;
pub mod require_token;
pub mod second_opinion;
#[cfg(feature = "attacks")]
pub mod specimen;
mod verified_cache;
pub mod verifier;
pub mod verify;

pub use authorization::AuthorizationRules;
pub use bearer::BearerToken;
pub use caller::Caller;
pub use hop::Hop;
pub use propagate_token::PropagateTokenLayer;
pub use rejected::Rejected;
pub use require_token::RequireTokenLayer;
pub use second_opinion::SecondOpinion;
pub use verified_cache::CacheLimits;
pub use verifier::{Authentication, Follower, Judged, Verifier, VerifierArgs, VerifierConfig};
pub use verify::{verify, verify_jws};
