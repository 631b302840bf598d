//! Hops that disagree about a token (key protocol, "Choices made here"): what a hop makes of its next hop's 401 for a
//! token that it found good itself. It must not know how a request is sent elsewhere.
//!
//! Only a verifier of ours can disagree. Any other server answers 401 for reasons of its own, and so does an application
//! behind a verifier; that is for the client. So a verifier marks its verdict with the generation it judged by, which
//! nobody sets by chance. A mark that lies costs whoever sends it one more request, and shows it as the hop at fault.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use servicechain_keys::Generation;

use crate::caller::Caller;
use crate::rejected::{Rejected, TokenFault};
use crate::verifier::{Judged, Verifier};

/// Beside a 401 of [`crate::RequireTokenLayer`]: the generation of keys by which the token was refused.
pub const VERDICT: HeaderName = HeaderName::from_static("servicechain-verdict");

/// What becomes of a next hop's 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondOpinion {
    /// It is the client's: no verifier's verdict, one by rules of that hop alone, or one by newer keys than are held here.
    Theirs,
    /// The token has ended here too, meanwhile.
    Agrees(Rejected),
    /// The token is still good here: one of the two has wrong keys or a wrong clock.
    Disagrees,
}

impl Verifier {
    /// Judges `caller` again, whose request a next hop answered with 401 and these headers.
    #[must_use]
    pub fn second_opinion(&self, caller: &Caller, answer: &HeaderMap) -> SecondOpinion {
        let Some(theirs) = judged_by(answer) else {
            return SecondOpinion::Theirs;
        };
        // A revocation is pushed to every hop by itself. Who has it already is right, and the next request is refused
        // here as well. This is read before the token is judged, which then goes by these keys or newer ones.
        if theirs > self.generation() {
            return SecondOpinion::Theirs;
        }
        match self.judge_again(caller) {
            Judged::Verified(_) => SecondOpinion::Disagrees,
            Judged::Rejected(rejected) => SecondOpinion::Agrees(rejected),
            Judged::Absent | Judged::UnknownKey(_) => SecondOpinion::Theirs,
        }
    }
}

/// The mark of a refusal, where every hop of the chain should come to the same one.
pub(crate) fn mark(rejected: &Rejected, generation: Generation) -> Option<HeaderValue> {
    match rejected {
        // What this hop asks of tokens beside what the chain asks. A client learns from it that its token is for others.
        Rejected::Token(
            TokenFault::Audience | TokenFault::IssuerNotAccepted | TokenFault::ExpiresTooSoon,
        ) => None,
        Rejected::Token(_) => Some(HeaderValue::from(generation.number())),
        _ => None,
    }
}

fn judged_by(answer: &HeaderMap) -> Option<Generation> {
    let number = answer.get(VERDICT)?.to_str().ok()?.parse().ok()?;
    Some(Generation::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejected::{RequestFault, Unavailable};

    #[test]
    fn only_what_every_hop_should_say_is_marked() {
        let seventh = Generation::new(7);
        for fault in [
            TokenFault::Expired,
            TokenFault::Signature,
            TokenFault::Revoked,
            TokenFault::UnknownKey,
        ] {
            let mark = mark(&fault.into(), seventh);
            assert_eq!(mark, Some(HeaderValue::from_static("7")), "{fault:?}");
        }
        for rejected in [
            TokenFault::Audience.into(),
            TokenFault::IssuerNotAccepted.into(),
            TokenFault::ExpiresTooSoon.into(),
            Rejected::NoToken,
            RequestFault::SeveralAuthorizationHeaders.into(),
            Unavailable::NoKeys.into(),
        ] {
            assert_eq!(mark(&rejected, seventh), None, "{rejected:?}");
        }
    }
}
