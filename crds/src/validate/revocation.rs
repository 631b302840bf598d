//! The rules of a revocation.

use crate::{
    Revocation, RevocationSpec, check,
    mistakes::Mistakes,
    rules, schema,
    validated::{Revoked, ValidatedRevocation},
};

/// Resolves what a revocation is about, and refuses what can never be right.
pub fn validated_revocation(revocation: &Revocation) -> Result<ValidatedRevocation, Mistakes> {
    let document =
        serde_json::to_value(revocation).map_err(|error| Mistakes::of_document(error.to_string()))?;
    let mut mistakes = check::shape(&document, schema::revocation_document(), "").mistakes;
    let spec = &revocation.spec;
    let Some(revoked) = revoked(spec) else {
        mistakes.add("spec", rules::ONE_REVOCATION_KIND_SAYS);
        return Err(mistakes);
    };
    mistakes.or(ValidatedRevocation {
        chain: spec.chain_ref.name.clone(),
        issuer: spec.issuer.clone(),
        revoked,
        expires_after: spec.expires_after.as_ref().map(super::parsed),
    })
}

fn revoked(spec: &RevocationSpec) -> Option<Revoked> {
    let given = (&spec.key, &spec.subject, &spec.session_id, &spec.token_id);
    match (given, &spec.issued_before) {
        ((Some(key), None, None, None), None) => Some(Revoked::Key(key.clone())),
        ((None, Some(subject), None, None), issued_before) => Some(Revoked::Subject {
            subject: subject.clone(),
            issued_before: issued_before.clone(),
        }),
        ((None, None, Some(session), None), None) => Some(Revoked::Session(session.clone())),
        ((None, None, None, Some(token)), None) => Some(Revoked::Token(token.clone())),
        ((None, None, None, None), Some(issued_before)) => Some(Revoked::Everything {
            issued_before: issued_before.clone(),
        }),
        _ => None,
    }
}
