//! What an issuer's documents say: where its keys are, and which of them may enter a bundle. Pure. What it says about a
//! document are its own words: a tenant chooses what is fetched, and must not read by it what only the operator reaches.

use serde_json::Value;
use servicechain_keys::{Algorithm, Jwk, RefusedKey, accept_jwks, strict_json};

/// A good key set: at least one key may enter a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedKeys {
    pub keys: Vec<Jwk>,
    /// Why others do not, a sentence each.
    pub refused: Vec<String>,
}

/// Why a document is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotGood {
    #[error("its discovery document is no JSON object")]
    NoDiscovery,
    #[error("its discovery document names another issuer; url must be exactly what that says")]
    AnotherIssuer,
    #[error("its discovery document names no jwks_uri")]
    NoKeySetUri,
    #[error("its key set is no JWKS document")]
    NoKeySet,
    #[error("its key set is empty")]
    Empty,
    /// With a sentence for each key.
    #[error("none of the keys in its key set may be used")]
    NoUsableKey(Vec<String>),
}

/// The `jwks_uri` of a discovery document (`OpenID` Connect Discovery section 3) which must be that of `issuer`, exactly.
pub(super) fn key_set_uri(document: &[u8], issuer: &str) -> Result<String, NotGood> {
    let document = strict_json::object(document).map_err(|_| NotGood::NoDiscovery)?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(NotGood::AnotherIssuer);
    }
    let uri = document.get("jwks_uri").and_then(Value::as_str);
    uri.map(str::to_owned).ok_or(NotGood::NoKeySetUri)
}

/// The keys of a JWKS. Odd ones are left out one by one.
pub(crate) fn published_keys(document: &[u8], allowed: &[Algorithm]) -> Result<PublishedKeys, NotGood> {
    let (keys, refused) = accept_jwks(document, allowed).map_err(|_| NotGood::NoKeySet)?;
    let refused: Vec<String> = refused.iter().map(sentence).collect();
    match (keys.is_empty(), refused.is_empty()) {
        (true, true) => Err(NotGood::Empty),
        (true, false) => Err(NotGood::NoUsableKey(refused)),
        (false, _) => Ok(PublishedKeys { keys, refused }),
    }
}

/// By its place in the set: its kid is what somebody else wrote.
fn sentence(refused: &RefusedKey) -> String {
    format!("key {} is left out: {}", refused.index + 1, refused.reason)
}

#[cfg(test)]
mod tests {
    use servicechain_keys::SigningKey;

    use super::*;

    const ISSUER: &str = "https://idp.example.com/realms/corp";

    fn jwks(keys: &[Value]) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({ "keys": keys })).unwrap()
    }

    fn key(algorithm: Algorithm) -> Value {
        serde_json::to_value(SigningKey::generate(algorithm).unwrap().public_jwk()).unwrap()
    }

    #[test]
    fn a_discovery_document_is_its_own_issuers() {
        let uri = |document: Value| key_set_uri(&serde_json::to_vec(&document).unwrap(), ISSUER);
        let keys = "https://idp.example.com/keys";
        assert_eq!(
            uri(serde_json::json!({"issuer": ISSUER, "jwks_uri": keys})),
            Ok(keys.to_owned())
        );
        for other in [
            format!("{ISSUER}/"),
            "https://IDP.example.com/realms/corp".to_owned(),
        ] {
            let document = serde_json::json!({"issuer": other, "jwks_uri": keys});
            assert_eq!(uri(document), Err(NotGood::AnotherIssuer), "{other}");
        }
        assert_eq!(
            uri(serde_json::json!({"jwks_uri": keys})),
            Err(NotGood::AnotherIssuer)
        );
        assert_eq!(
            uri(serde_json::json!({"issuer": ISSUER, "jwks_uri": [keys]})),
            Err(NotGood::NoKeySetUri)
        );
        assert_eq!(uri(serde_json::json!([ISSUER])), Err(NotGood::NoDiscovery));
        let twice = format!(r#"{{"issuer": "x", "issuer": "{ISSUER}", "jwks_uri": "{keys}"}}"#);
        assert_eq!(key_set_uri(twice.as_bytes(), ISSUER), Err(NotGood::NoDiscovery));
    }

    #[test]
    fn odd_keys_are_left_out_one_by_one_and_named_by_their_place() {
        let mut encryption = key(Algorithm::ES256);
        encryption["use"] = "enc".into();
        let mut twin = key(Algorithm::ES256);
        let mut other_twin = key(Algorithm::ES256);
        twin["kid"] = "secret words".into();
        other_twin["kid"] = "secret words".into();
        let octets = serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "secret words"});
        let good = key(Algorithm::ES256);
        let set = jwks(&[
            encryption,
            twin,
            other_twin,
            octets,
            key(Algorithm::EdDSA),
            good.clone(),
        ]);
        let published = published_keys(&set, &[Algorithm::ES256]).unwrap();
        let kids: Vec<_> = published.keys.iter().map(Jwk::kid).collect();
        assert_eq!(kids, [good["kid"].as_str()]);
        let mut refused = published.refused.clone();
        refused.sort();
        assert_eq!(
            refused,
            [
                "key 1 is left out: not for verifying signatures (use or key_ops)",
                "key 2 is left out: another key has the same kid",
                "key 3 is left out: another key has the same kid",
                "key 4 is left out: a symmetric key in a public key set",
                "key 5 is left out: its alg is not allowed for this issuer",
            ]
        );
    }

    #[test]
    fn a_set_without_a_usable_key_is_no_good_answer() {
        let judge = |set: &[u8]| published_keys(set, &Algorithm::ALL);
        assert_eq!(judge(b"<html>"), Err(NotGood::NoKeySet));
        assert_eq!(judge(br#"{"keys": {}}"#), Err(NotGood::NoKeySet));
        assert_eq!(judge(br#"{"keys": []}"#), Err(NotGood::Empty));
        let unusable = judge(&jwks(&[Value::from(1)]));
        assert!(matches!(unusable, Err(NotGood::NoUsableKey(why)) if why.len() == 1));
    }
}
