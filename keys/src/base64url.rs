//! Base64url without padding (RFC 7515 section 2), canonical both ways: one byte string has one spelling.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Not base64url, padded, or with stray bits in the last character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not canonical base64url without padding")]
pub struct NotBase64url;

#[must_use]
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// # Errors
/// Anything `encode` would not have written: padding, white space, the alphabet of plain base64, stray trailing bits.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, NotBase64url> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBase64url)
}

/// Decodes exactly `N` bytes.
///
/// # Errors
/// As [`decode`], and any other length.
pub fn decode_array<const N: usize>(text: impl AsRef<[u8]>) -> Result<[u8; N], NotBase64url> {
    decode(text)?.try_into().map_err(|_| NotBase64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_decodes() {
        assert_eq!(decode("_-8"), Ok(vec![0xff, 0xef]));
        for other in ["_-9", "_-8=", "/+8", "_-8\n", " _-8", "_", "_-8.", "_-\u{fc}8"] {
            assert_eq!(decode(other), Err(NotBase64url), "{other:?}");
        }
        assert_eq!(decode(""), Ok(vec![]));
        assert_eq!(decode_array::<3>("_-8"), Err(NotBase64url));
    }
}
