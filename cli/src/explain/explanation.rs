//! What is said of a token at every hop: plain data, for people and programs alike.

use serde::Serialize;

/// What a token would meet on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub token: About,
    pub hops: Vec<HopStanding>,
}

/// What the token says of itself; nothing of it is believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    pub bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Seconds until `exp`; negative when it has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_claim: Option<Claim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A claim by its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    pub name: String,
    pub bytes: usize,
}

/// How a token stands at one hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HopStanding {
    pub hop: String,
    pub standing: Standing,
    /// Why, in a few words.
    pub because: String,
    /// The key it was verified with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Where in the chain to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_at: Option<String>,
}

/// A key by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Key {
    pub kid: String,
    pub algorithm: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    Passes,
    Refused,
    NotReached,
}

impl Explanation {
    /// Whether the token would pass the whole way.
    pub(crate) fn passes(&self) -> bool {
        self.hops.iter().all(|hop| hop.standing == Standing::Passes)
    }
}
