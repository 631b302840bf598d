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
    let given = [
        spec.key.clone().map(Revoked::Key),
        spec.subject.clone().map(|subject| Revoked::Subject {
            subject,
            issued_before: spec.issued_before.clone(),
        }),
        spec.session_id.clone().map(Revoked::Session),
        spec.client_id.clone().map(|client_id| Revoked::Client {
            client_id,
            issued_before: spec.issued_before.clone(),
        }),
        spec.token_id.clone().map(Revoked::Token),
    ];
    let mut given = given.into_iter().flatten();
    let (one, another) = (given.next(), given.next());
    match (one, another, &spec.issued_before) {
        (Some(Revoked::Key(_) | Revoked::Session(_) | Revoked::Token(_)), None, Some(_)) => None,
        (Some(one), None, _) => Some(one),
        (None, None, Some(issued_before)) => Some(Revoked::Everything {
            issued_before: issued_before.clone(),
        }),
        _ => None,
    }
}
