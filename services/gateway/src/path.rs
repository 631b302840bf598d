//! Request paths in one spelling: normalised once, so that the path a route was chosen for is the path the
//! upstream receives. What servers are known to read in different ways is refused, not guessed.
//!
//! It knows nothing of routes or of HTTP.

use std::borrow::Cow;

/// Why a path has no agreed meaning: a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPath(&'static str);

impl BadPath {
    pub(crate) fn sentence(self) -> &'static str {
        self.0
    }
}

/// The one spelling of an absolute path (RFC 3986 section 6.2.2): unreserved characters decoded, other escapes
/// in upper-case hex, dot segments and empty segments removed. Borrows a path that already has it.
///
/// # Errors
/// [`BadPath`] for what RFC 3986 does not allow or servers disagree about: broken escapes, encoded slashes,
/// backslashes, control characters, NUL, path parameters, bytes that are no UTF-8 (overlong forms among them)
/// and paths that climb above the root.
pub(crate) fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if is_normal(path.as_bytes()) {
        Ok(Cow::Borrowed(path))
    } else {
        rewrite(path).map(Cow::Owned)
    }
}

/// True for most paths there are: plain characters, and no segment that is empty or begins with a dot.
fn is_normal(path: &[u8]) -> bool {
    let mut at_border = false;
    for (index, byte) in path.iter().enumerate() {
        match byte {
            b'/' if at_border => return false,
            b'/' => at_border = true,
            _ if index == 0 => return false,
            b'.' if at_border => return false,
            byte if is_plain(*byte) => at_border = false,
            _ => return false,
        }
    }
    !path.is_empty()
}

fn rewrite(path: &str) -> Result<String, BadPath> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(BadPath("the path does not begin with a slash"));
    };
    let mut normal = String::with_capacity(path.len());
    let mut ends_in_slash = false;
    for segment in relative.split('/') {
        let segment = rewrite_segment(segment)?;
        ends_in_slash = matches!(segment.as_str(), "" | "." | "..");
        match segment.as_str() {
            "" | "." => (),
            ".." => {
                let parent = normal
                    .rfind('/')
                    .ok_or(BadPath("the path climbs above the root"))?;
                normal.truncate(parent);
            }
            _ => {
                normal.push('/');
                normal.push_str(&segment);
            }
        }
    }
    if ends_in_slash {
        normal.push('/');
    }
    Ok(normal)
}

fn rewrite_segment(segment: &str) -> Result<String, BadPath> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut normal = String::with_capacity(segment.len());
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'%';
        let byte = if escaped {
            unescape(bytes.next(), bytes.next())?
        } else {
            byte
        };
        match byte {
            b'/' => return Err(BadPath("the path has an encoded slash")),
            b'\\' => return Err(BadPath("the path has a backslash")),
            b';' => return Err(BadPath("the path has parameters, which begin with a semicolon")),
            0..=0x1f | 0x7f => return Err(BadPath("the path has a control character")),
            0x80.. if !escaped => {
                return Err(BadPath("the path has a character that must be percent-encoded"));
            }
            _ => (),
        }
        decoded.push(byte);
        if is_unreserved(byte) || !escaped && is_plain(byte) {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push(char::from(HEX[usize::from(byte >> 4)]));
            normal.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
    }
    // No character's encoding crosses a slash, so that each segment can be judged alone.
    match std::str::from_utf8(&decoded) {
        Ok(_) => Ok(normal),
        Err(_) => Err(BadPath("the path is not UTF-8")),
    }
}

fn unescape(high: Option<u8>, low: Option<u8>) -> Result<u8, BadPath> {
    let digit = |byte: Option<u8>| {
        let digit = char::from(byte?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err(BadPath("the path has a percent sign without two hex digits")),
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What stands for itself in a segment: RFC 3986's `pchar` without escapes and without the semicolon.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> String {
        normalise(path).unwrap().into_owned()
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/items/1", "/a/b.c/", "/@me/a:b", "/a..b/c.", "/x=1,2+3"] {
            assert!(
                matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path),
                "{path}"
            );
        }
    }

    #[test]
    fn every_spelling_becomes_the_one() {
        for (odd, one) in [
            ("/%61dmin", "/admin"),
            ("/%7Euser/%7euser", "/~user/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a b".replace(' ', "%20").as_str(), "/a%20b"),
            ("//admin//", "/admin/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/admin", "/admin"),
            ("/.%2e/".replace("/.", "/x/.").as_str(), "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/.well-known/jwks", "/.well-known/jwks"),
            ("/a/...", "/a/..."),
            ("/%252e%252e", "/%252e%252e"),
            ("/{id}|\"", "/%7Bid%7D%7C%22"),
            ("/%40", "/%40"),
        ] {
            assert_eq!(normal(odd), one, "{odd}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused() {
        for odd in [
            "",
            "a",
            "*",
            "/a%2Fb",
            "/a%2fb",
            "/a\\b",
            "/a%5Cb",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/a;x",
            "/a%3Bx",
            "/..;/",
            "/..",
            "/a/../..",
            "/%2e%2e/a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/%c0%af",
            "/%c0%ae",
            "/%ff",
            "/%e0%80%af",
            "/%ed%a0%80",
            "/%f8%80%80%80%af",
            "/é",
        ] {
            assert!(normalise(odd).is_err(), "{odd}");
        }
    }

    /// Paths made of what matters, so that odd neighbours meet often.
    fn tricky_path() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("/"),
            Just("."),
            Just(".."),
            Just("%2e"),
            Just("%2F"),
            Just("%41"),
            Just("%25"),
            Just("%c3%a9"),
            Just("%c0"),
            Just(";"),
            Just("\\"),
            Just("a"),
            Just("B~"),
            Just("%"),
            Just("é"),
            Just(" "),
            Just("%zz"),
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_accepted_is_stable_and_has_no_second_reading(path in prop_oneof![tricky_path(), any::<String>()]) {
            let Ok(normal) = normalise(&path) else { return Ok(()) };
            let again = normalise(&normal);
            prop_assert_eq!(again.as_deref(), Ok(&*normal));
            prop_assert!(normal.starts_with('/'));
            prop_assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && !b";\\#?\"<>".contains(&byte)));
            prop_assert!(!normal.contains("//"));
            prop_assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")));
            for unsafe_escape in ["%2F", "%5C", "%3B", "%00", "%2E"] {
                prop_assert!(!normal.to_ascii_uppercase().contains(unsafe_escape), "{}", normal);
            }
        }

        #[test]
        fn escaping_an_unreserved_character_changes_nothing(path in "(/[a-zA-Z0-9._~-]{1,6}){1,5}/?", at in any::<prop::sample::Index>()) {
            let at = at.index(path.len());
            let byte = path.as_bytes()[at];
            if byte == b'/' {
                return Ok(());
            }
            let escaped = format!("{}%{byte:02x}{}", &path[..at], &path[at + 1..]);
            prop_assert_eq!(normalise(&escaped), normalise(&path));
        }
    }
}
