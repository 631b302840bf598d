//! Form bodies (WHATWG URL, application/x-www-form-urlencoded), strictly: a name twice or a broken escape is refused.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// Values are secrets as often as not, so all of them are wiped.
pub(crate) type Parameters = BTreeMap<String, Zeroizing<String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormFault {
    /// A broken escape, or not UTF-8.
    Encoding,
    /// RFC 6749 section 3.2: parameters are sent once.
    Duplicate,
}

/// A parameter without a value counts as absent (RFC 6749 section 3.2).
pub(crate) fn parse(body: &[u8]) -> Result<Parameters, FormFault> {
    let mut all = Parameters::new();
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = decode(halves.next().unwrap_or_default()).ok_or(FormFault::Encoding)?;
        let value = decode(halves.next().unwrap_or_default()).ok_or(FormFault::Encoding)?;
        if all.insert(name.to_string(), value).is_some() {
            return Err(FormFault::Duplicate);
        }
    }
    all.retain(|_, value| !value.is_empty());
    Ok(all)
}

/// `+` is a space, `%` starts two hexadecimal digits.
pub(crate) fn decode(encoded: &[u8]) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                hexadecimal(digits[0])? << 4 | hexadecimal(digits[1])?
            }
            plain => *plain,
        });
    }
    std::str::from_utf8(&bytes)
        .ok()
        .map(|text| Zeroizing::new(text.to_owned()))
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_decoded() {
        let form = parse(b"scope=items%3Aread+a&x=&y&client%5fid=%C3%A4&a=b=c&").unwrap();
        let value = |name: &str| form.get(name).map(|value| value.as_str());
        assert_eq!(value("scope"), Some("items:read a"));
        assert_eq!(value("client_id"), Some("ä"));
        assert_eq!(value("a"), Some("b=c"));
        assert_eq!((value("x"), value("y")), (None, None));
    }

    #[test]
    fn broken_escapes_and_repeated_names_are_refused() {
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%+1", "%=1"] {
            assert_eq!(parse(broken.as_bytes()), Err(FormFault::Encoding), "{broken}");
        }
        for twice in ["a=1&a=1", "a=1&%61=2", "a=&a=1"] {
            assert_eq!(parse(twice.as_bytes()), Err(FormFault::Duplicate), "{twice}");
        }
    }
}
