//! The id that one request carries through the whole chain in `x-request-id`.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced, since each hop logs them.
const MAX_LENGTH: usize = 128;

/// 1 to 128 characters of `A-Z a-z 0-9 - . _ : / + = @`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's id if it sent exactly one that is valid, else a new one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(value), None) if is_valid(value.as_bytes()) => Self(value.clone()),
            _ => Self::new(now),
        }
    }

    /// A UUID version 7 (RFC 9562 section 5.7): it sorts by the time it was made.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let id = uuid::Builder::from_unix_timestamp_millis(
            u64::try_from(millis).unwrap_or_default(),
            &rand::random::<[u8; 10]>(),
        );
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.into_uuid().hyphenated().encode_lower(&mut text);
        Self(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown")))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only visible ASCII gets in, so this cannot fail.
        self.0.to_str().unwrap_or_default()
    }

    #[must_use]
    pub fn as_header(&self) -> &HeaderValue {
        &self.0
    }

    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.0.clone());
    }
}

fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:/+=@".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_id_is_kept_and_anything_else_is_replaced() {
        let now = UNIX_EPOCH;
        let from = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            }
            RequestId::from_headers(&headers, now)
        };
        assert_eq!(from(&[b"abc-1.2_3:4/5+6=7@8"]).as_str(), "abc-1.2_3:4/5+6=7@8");
        for odd in [b"".as_slice(), b"a b", b"a\xff", b"\"x\"", &[b'a'; 129]] {
            assert_eq!(from(&[odd]).as_str().len(), 36, "{odd:?}");
        }
        assert_eq!(from(&[b"a", b"b"]).as_str().len(), 36);
    }

    #[test]
    fn new_ids_are_version_7_of_the_given_time_and_differ() {
        let now = UNIX_EPOCH + std::time::Duration::from_millis(0x0123_4567_89ab);
        let (one, other) = (RequestId::new(now), RequestId::new(now));
        assert!(one.as_str().starts_with("01234567-89ab-7"), "{}", one.as_str());
        assert_ne!(one, other);
    }
}
