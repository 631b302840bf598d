//! What the Secret with the trust key says, and the changes that replacing the key makes to it. All that a rotation is in
//! the middle of stands here, so whoever leads next goes on. Pure: it must not know how a Secret is read or written.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use servicechain_keys::TrustKey;
use zeroize::Zeroizing;

use super::trust_keys::Held;

/// Secret with the trust key.
pub const TRUST_KEY_SECRET: &str = "servicechain-trust-key";
/// An order: a trust key made before this RFC 3339 time is replaced.
pub const ROTATE_ANNOTATION: &str = "servicechain.dev/rotate-trust-key-before";
/// How far that has got, as a sentence.
pub const STANDING_ANNOTATION: &str = "servicechain.dev/trust-key-rotation";
/// The key that signs, PKCS #8 as PEM (RFC 5958, RFC 7468).
pub(super) const CURRENT: &str = "tls.key";
/// The key that will, in the same form, while the current one is being replaced.
const NEXT: &str = "next.key";
/// When each was made. Without it the first is as old as the Secret.
const MADE: &str = "servicechain.dev/trust-key-made";
const NEXT_MADE: &str = "servicechain.dev/next-trust-key-made";
const PEM: (&str, &str) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");

/// None where a key that is there cannot be used, or none is there.
pub(super) fn held(secret: &Secret) -> Option<Held> {
    let current = key_in(secret, CURRENT)??;
    let next = match key_in(secret, NEXT) {
        None => None,
        Some(key) => Some(Arc::new(key?)),
    };
    Some(Held {
        next,
        ..Held::of(current)
    })
}

/// When the current key was made.
pub(super) fn made(secret: &Secret) -> Timestamp {
    let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let noted = annotation(secret, MADE).and_then(|time| time.parse().ok());
    noted.or(created).unwrap_or(Timestamp::MIN)
}

/// The order to replace it, if there is one; text that is no time is an error.
pub(super) fn order(secret: &Secret) -> Result<Option<Timestamp>, String> {
    let text = annotation(secret, ROTATE_ANNOTATION);
    text.map(|text| text.parse().map_err(|_| text.to_owned()))
        .transpose()
}

/// What was said last of the rotation.
pub(super) fn standing(secret: &Secret) -> Option<&str> {
    annotation(secret, STANDING_ANNOTATION)
}

pub(super) fn saying(mut secret: Secret, standing: &str) -> Secret {
    annotate(&mut secret, STANDING_ANNOTATION, standing.to_owned());
    secret
}

/// With the key that will take the place of the current one.
pub(super) fn with_next(mut secret: Secret, next: &Zeroizing<String>, now: Timestamp) -> Secret {
    let data = secret.data.get_or_insert_default();
    data.insert(NEXT.to_owned(), ByteString(next.as_bytes().to_vec()));
    annotate(&mut secret, NEXT_MADE, now.to_string());
    secret
}

/// With the next key in the place of the current one, which is gone for ever.
pub(super) fn with_next_alone(mut secret: Secret, now: Timestamp) -> Secret {
    let data = secret.data.get_or_insert_default();
    if let Some(next) = data.remove(NEXT) {
        data.insert(CURRENT.to_owned(), next);
        let annotations = secret.metadata.annotations.get_or_insert_default();
        let made = annotations.remove(NEXT_MADE).unwrap_or_else(|| now.to_string());
        annotations.insert(MADE.to_owned(), made);
    }
    secret
}

/// A new key, in the form in which it is kept.
pub(super) fn new_key() -> Option<Zeroizing<String>> {
    let seed = Zeroizing::new(rand::random::<[u8; 32]>());
    pem(&TrustKey::from_seed(&seed).ok()?)
}

fn pem(key: &TrustKey) -> Option<Zeroizing<String>> {
    let der = key.to_pkcs8().ok()?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(&*der));
    Some(Zeroizing::new(format!("{}\n{}\n{}\n", PEM.0, *text, PEM.1)))
}

/// None where it is not there; within, none where it cannot be used.
#[expect(
    clippy::option_option,
    reason = "that a key is not there and that it is broken are two things"
)]
fn key_in(secret: &Secret, name: &str) -> Option<Option<TrustKey>> {
    let bytes = secret.data.as_ref()?.get(name)?;
    Some(std::str::from_utf8(&bytes.0).ok().and_then(trust_key_of))
}

fn trust_key_of(text: &str) -> Option<TrustKey> {
    let body = text.trim().strip_prefix(PEM.0)?.strip_suffix(PEM.1)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    let der = Zeroizing::new(BASE64_STANDARD.decode(body.as_bytes()).ok()?);
    TrustKey::from_pkcs8(&der).ok()
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<String, String> = secret.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn annotate(secret: &mut Secret, name: &str, value: String) {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> TrustKey {
        TrustKey::from_seed(&[seed; 32]).unwrap()
    }

    fn secret(current: &str) -> Secret {
        let data = BTreeMap::from([(CURRENT.to_owned(), ByteString(current.as_bytes().to_vec()))]);
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn kids(secret: &Secret) -> Vec<String> {
        held(secret).unwrap().kids().map(str::to_owned).collect()
    }

    #[test]
    fn a_trust_key_outlives_being_written() {
        let text = pem(&key(7)).unwrap();
        assert_eq!(trust_key_of(&text).unwrap().anchor(), key(7).anchor());
        // As `openssl genpkey -algorithm ed25519` writes one.
        let foreign = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
        assert!(trust_key_of(foreign).is_some());
        assert!(trust_key_of("").is_none() && trust_key_of(&text[..40]).is_none());
    }

    #[test]
    fn the_next_key_comes_beside_the_current_one_and_then_in_its_place() {
        let [one, other] = [key(1), key(2)].map(|key| key.anchor().kid().to_owned());
        let first = secret(&pem(&key(1)).unwrap());
        assert_eq!(kids(&first), [one.as_str()]);
        assert_eq!(made(&first), Timestamp::MIN);

        let then = time("2027-01-01T12:00:00Z");
        let two = with_next(first, &pem(&key(2)).unwrap(), then);
        assert_eq!(kids(&two), [one, other.clone()]);
        assert_eq!(made(&two), Timestamp::MIN, "of the one that signs");

        let last = with_next_alone(two, time("2027-01-02T12:00:00Z"));
        assert_eq!((kids(&last), made(&last)), (vec![other], then));
        let again = with_next_alone(last.clone(), time("2027-01-03T12:00:00Z"));
        assert_eq!(again, last, "nothing is left to be done");
    }

    #[test]
    fn a_broken_key_is_no_key_and_hides_no_other() {
        assert!(held(&Secret::default()).is_none());
        assert!(held(&secret("broken")).is_none());
        let mut next = secret(&pem(&key(1)).unwrap());
        let data = next.data.as_mut().unwrap();
        data.insert(NEXT.to_owned(), ByteString(b"broken".to_vec()));
        assert!(
            held(&next).is_none(),
            "else it would be taken for one that was never made"
        );
    }

    #[test]
    fn an_order_is_a_time() {
        let ordered = |text: &str| {
            let mut secret = Secret::default();
            annotate(&mut secret, ROTATE_ANNOTATION, text.to_owned());
            order(&secret)
        };
        assert_eq!(order(&Secret::default()), Ok(None));
        let text = "2027-01-01T12:00:00Z";
        assert_eq!(ordered(text), Ok(Some(time(text))));
        assert_eq!(ordered("now"), Err("now".to_owned()));
    }
}
