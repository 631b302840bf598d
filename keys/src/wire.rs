//! Where the key protocol's messages go and which headers they carry (key protocol, lines 13 to 15): what both ends
//! must spell alike. Header names are lower case, as HTTP/2 and the `http` crate want them.

/// PUSH and POLL, on a pod's keys port.
pub const KEYS_PATH: &str = "/keys/v1/keys";
/// READ, on a pod's keys port and at an issuer.
pub const BUNDLE_PATH: &str = "/v1/bundle";
/// KNOCK, at the operator.
pub const KNOCK_PATH: &str = "/v1/knock";

/// The pod that a message is meant for.
pub const POD_UID: &str = "pod-uid";
/// What the answer's code must cover.
pub const NONCE: &str = "nonce";
/// The code by the acknowledgement key over label, nonce, pod and body.
pub const MAC: &str = "mac";
