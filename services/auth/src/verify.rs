//! Whether a token is good here and now: every rule, as a pure function of token, bundle, hop and time. It reads no
//! clock, keeps nothing and asks nobody; what it cannot know (a key this bundle does not have) it says.

use std::sync::Arc;

use servicechain_keys::{
    Algorithm, CompactJws, Found, HeldBundle, IssuerKind, KeySet, NumericDate, RevocationKind, TrustedIssuer,
    VerificationKey,
};

use crate::bearer::{BearerToken, is_b64token};
use crate::caller::{Caller, Statement, Verdict, Window};
use crate::claims::Claims;
use crate::hop::Hop;
use crate::rejected::{Rejected, TokenFault, Unavailable};

/// Largest token [`verify_jws`] reads: the highest `maxTokenBytes` a policy can have.
const LARGEST_TOKEN: usize = 65_536;

/// Verifies one token at one hop at one moment.
///
/// All rules that need no key come first, so that a token which could never pass raises no question about keys:
/// size, RFC 7515 syntax, claims (RFC 7519; RFC 9068 for a managed issuer), issuer, type, audience, time,
/// required claims, revocations. Then the key is looked up among those of the token's own issuer, its pinned
/// algorithm compared, and the signature checked.
///
/// ```
/// # use servicechain_auth::specimen::Specimen;
/// # let chain = Specimen::new();
/// # let (bundle, token, now) = (chain.sign(&chain.bundle()), chain.token(), chain.now());
/// use servicechain_auth::{Hop, verify};
///
/// let caller = verify(&token, &bundle, &Hop::new("orders"), now).unwrap();
/// assert_eq!(caller.subject(), "alice");
/// assert!(caller.has_scope("items:read"));
///
/// let rejected = verify("not.a.token", &bundle, &Hop::new("orders"), now).unwrap_err();
/// assert_eq!(rejected.status(), 401);
/// ```
///
/// # Errors
/// [`Rejected::Token`] where the token is wrong. [`Rejected::Unavailable`] where nobody can tell from this bundle:
/// the issuer is trusted and its key is not there, which only an authority's later word makes a refusal.
pub fn verify(token: &str, bundle: &HeldBundle, hop: &Hop, now: NumericDate) -> Result<Caller, Rejected> {
    let verdict = reach_verdict(token.as_bytes(), bundle, hop, now)?;
    Ok(Caller::new(Arc::new(verdict), bundle.generation()))
}

/// Verifies a compact JWS against a key set and returns its payload. No claim is looked at: this is for
/// conformance suites and for documents that are no access tokens.
///
/// # Errors
/// [`Rejected::Token`] where syntax, algorithm, key or signature is wrong; [`Rejected::Unavailable`] where the set
/// has no such key.
pub fn verify_jws(token: &str, keys: &KeySet) -> Result<Vec<u8>, Rejected> {
    let jws = parse(token.as_bytes(), LARGEST_TOKEN)?;
    let key = find_key(keys, jws.header.kid.as_deref(), jws.header.algorithm)?;
    key.verify(jws.signing_input, &jws.signature)
        .map_err(|_| TokenFault::Signature)?;
    Ok(jws.payload)
}

/// `maxTokenBytes`.
pub(crate) fn largest_token(bundle: &HeldBundle) -> usize {
    usize::try_from(bundle.bundle().policy.max_token_bytes).unwrap_or(LARGEST_TOKEN)
}

/// The issuer whose key a token names, for whoever wants to ask that issuer's authority about it.
pub(crate) fn issuer_of<'b>(token: &[u8], bundle: &'b HeldBundle) -> Option<&'b TrustedIssuer> {
    let jws = parse(token, LARGEST_TOKEN).ok()?;
    bundle.issuer(&Claims::parse(jws.payload).ok()?.iss)
}

pub(crate) fn reach_verdict(
    token: &[u8],
    bundle: &HeldBundle,
    hop: &Hop,
    now: NumericDate,
) -> Result<Verdict, Rejected> {
    let CompactJws {
        header,
        signing_input,
        payload,
        signature,
    } = parse(token, largest_token(bundle))?;
    let statement = Statement {
        algorithm: header.algorithm,
        key_id: header.kid,
        token_type: header.typ,
        claims: Claims::parse(payload)?,
    };
    let judgement = judge(&statement, bundle, hop, now)?;
    judgement
        .key
        .verify(signing_input, &signature)
        .map_err(|_| TokenFault::Signature)?;
    let token = BearerToken::from_alphabet(token)?;
    let Judgement { issuer, key, window } = judgement;
    let scopes = statement.claims.scopes(&issuer.scopes_claim);
    let name = issuer.name.clone();
    Ok(Verdict::new(
        token,
        statement,
        name,
        scopes,
        key.thumbprint(),
        window,
        bundle.generation(),
    ))
}

/// Whether verifying the token again, under this bundle and at this moment, would give the very same verdict. The
/// signature is not checked again: the same bytes, the same key. Where this says no, verify afresh. The token's size is
/// the caller's to check.
pub(crate) fn still_holds(verdict: &Verdict, bundle: &HeldBundle, hop: &Hop, now: NumericDate) -> bool {
    let statement = &verdict.statement;
    judge(statement, bundle, hop, now).is_ok_and(|judgement| {
        judgement.key.thumbprint() == verdict.thumbprint
            && judgement.window == verdict.window
            && judgement.issuer.name == verdict.issuer_name
            && statement.claims.scopes(&judgement.issuer.scopes_claim) == verdict.scopes
    })
}

/// What remains to be done for a statement that breaks no rule: check its signature with this key.
struct Judgement<'b> {
    issuer: &'b TrustedIssuer,
    key: &'b VerificationKey,
    window: Window,
}

/// Every rule but the signature.
fn judge<'b>(
    statement: &Statement,
    bundle: &'b HeldBundle,
    hop: &Hop,
    now: NumericDate,
) -> Result<Judgement<'b>, Rejected> {
    let claims = &statement.claims;
    let issuer = bundle.issuer(&claims.iss).ok_or(TokenFault::UnknownIssuer)?;
    if !hop.accepts_issuer(&issuer.name) {
        return Err(TokenFault::IssuerNotAccepted.into());
    }
    check_type(statement.token_type.as_deref(), issuer)?;
    if issuer.kind == IssuerKind::Managed {
        claims
            .client_id
            .as_ref()
            .ok_or(TokenFault::ClaimMissing("client_id"))?;
        claims.token_id.as_ref().ok_or(TokenFault::ClaimMissing("jti"))?;
    }
    let is_accepted =
        |audience: &&String| issuer.audiences.contains(audience) && hop.accepts_audience(audience);
    claims
        .audiences
        .iter()
        .find(is_accepted)
        .ok_or(TokenFault::Audience)?;
    check_time(claims, bundle, issuer, hop, now)?;
    let required = &bundle.bundle().policy.required_claims;
    if !required.is_empty() {
        let all = claims.all();
        if !required.iter().all(|claim| all.has(&claim.name, &claim.values)) {
            return Err(TokenFault::RequiredClaim.into());
        }
    }
    let has_revocations = !bundle.bundle().revocations.is_empty();
    if has_revocations && is_revoked(claims, issuer) {
        return Err(TokenFault::Revoked.into());
    }

    let key = find_key(&issuer.keys, statement.key_id.as_deref(), statement.algorithm)?;
    if !key.is_accepted_at(now) {
        return Err(Unavailable::UnknownKey.into());
    }
    if key
        .max_lifetime()
        .is_some_and(|longest| claims.expires_at.since(claims.issued_at) > longest)
    {
        return Err(TokenFault::LivesTooLong.into());
    }
    if has_revocations && is_key_revoked(key, issuer) {
        return Err(TokenFault::Revoked.into());
    }
    Ok(Judgement {
        issuer,
        key,
        window: window(claims, bundle, hop, key),
    })
}

/// `typ` must be one of the issuer's; `application/` before it means the same (RFC 7515 section 4.1.9).
fn check_type(token_type: Option<&str>, issuer: &TrustedIssuer) -> Result<(), TokenFault> {
    let token_type = token_type.unwrap_or_default();
    let short = match token_type.strip_prefix("application/") {
        Some(short) if !short.is_empty() && !short.contains('/') => short,
        _ => token_type,
    };
    let is_accepted = issuer
        .token_types
        .iter()
        .any(|accepted| accepted == token_type || accepted == short);
    if is_accepted {
        Ok(())
    } else {
        Err(TokenFault::TokenType)
    }
}

/// Both ends are stretched by the clock skew; `minimumRemaining` is not.
fn check_time(
    claims: &Claims,
    bundle: &HeldBundle,
    issuer: &TrustedIssuer,
    hop: &Hop,
    now: NumericDate,
) -> Result<(), TokenFault> {
    let policy = &bundle.bundle().policy;
    let latest_begin = now.plus(policy.clock_skew);
    if now >= claims.expires_at.plus(policy.clock_skew) {
        return Err(TokenFault::Expired);
    }
    if claims
        .not_before
        .is_some_and(|not_before| not_before > latest_begin)
    {
        return Err(TokenFault::NotYetValid);
    }
    if claims.issued_at > latest_begin {
        return Err(TokenFault::IssuedInFuture);
    }
    if claims.expires_at.since(claims.issued_at) > issuer.max_token_lifetime {
        return Err(TokenFault::LivesTooLong);
    }
    if claims.expires_at.since(now) < hop.minimum_remaining {
        return Err(TokenFault::ExpiresTooSoon);
    }
    Ok(())
}

/// The moments at which `check_time` and the key's own end let the token pass.
fn window(claims: &Claims, bundle: &HeldBundle, hop: &Hop, key: &VerificationKey) -> Window {
    let skew = bundle.bundle().policy.clock_skew;
    let from = claims
        .not_before
        .unwrap_or(claims.issued_at)
        .max(claims.issued_at)
        .minus(skew);
    let mut until = claims.expires_at.plus(skew);
    if !hop.minimum_remaining.is_zero() {
        let whole_seconds =
            hop.minimum_remaining.as_secs() + u64::from(hop.minimum_remaining.subsec_nanos() > 0);
        let last = claims.expires_at.as_seconds().saturating_sub(whole_seconds);
        until = until.min(NumericDate::from_seconds(last.saturating_add(1)));
    }
    Window {
        from,
        until: key.accepted_until().map_or(until, |end| until.min(end)),
    }
}

fn is_revoked(claims: &Claims, issuer: &TrustedIssuer) -> bool {
    let handles = [
        (RevocationKind::Issuer, Some("")),
        (RevocationKind::Sub, Some(claims.subject.as_str())),
        (RevocationKind::Sid, claims.session_id.as_deref()),
        (RevocationKind::Jti, claims.token_id.as_deref()),
        (RevocationKind::ClientId, claims.client_id.as_deref()),
    ];
    handles
        .into_iter()
        .any(|(kind, value)| value.is_some_and(|value| issuer.revokes(kind, value, Some(claims.issued_at))))
}

/// A key is revoked by its name and by its thumbprint, so that it cannot come back under another name; and whatever
/// `iat` says, since a thief of the key writes there what he likes.
fn is_key_revoked(key: &VerificationKey, issuer: &TrustedIssuer) -> bool {
    let revokes = |value: &str| issuer.revokes(RevocationKind::Key, value, None);
    key.kid().is_some_and(revokes) || revokes(&key.thumbprint().to_string())
}

fn find_key<'k>(
    keys: &'k KeySet,
    key_id: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'k VerificationKey, Rejected> {
    match keys.find(key_id, algorithm) {
        Found::Key(key) => Ok(key),
        Found::Empty => Err(Unavailable::NoKeys.into()),
        Found::UnknownKid => Err(Unavailable::UnknownKey.into()),
        Found::Ambiguous => Err(TokenFault::AmbiguousKey.into()),
        Found::AlgorithmMismatch => Err(TokenFault::AlgorithmMismatch.into()),
    }
}

fn parse(token: &[u8], largest: usize) -> Result<CompactJws<'_>, Rejected> {
    if token.len() > largest {
        return Err(TokenFault::TooLarge.into());
    }
    let text = std::str::from_utf8(token).map_err(|_| TokenFault::NotB64Token)?;
    // The alphabet of a compact JWS is a part of a bearer token's, so that only what fails is looked at again.
    let fault = |malformed| {
        if is_b64token(token) {
            TokenFault::Jws(malformed)
        } else {
            TokenFault::NotB64Token
        }
    };
    Ok(CompactJws::parse(text, largest).map_err(fault)?)
}
