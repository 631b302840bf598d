//! As much of HTTP/1.1 as measuring needs: where a message ends. It trusts both ends, since both are ours or a proxy's.

use memchr::memmem;

/// How a message goes on behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// A head that has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// With the empty line.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
}

/// The head at the beginning of `bytes`, if it is there whole.
pub(crate) fn head(bytes: &[u8]) -> Option<Head> {
    let length = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let mut framing = Framing::Length(0);
    let mut line_start = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[line_start..length]) {
        let line = &bytes[line_start..line_start + end];
        line_start += end + 1;
        if let Some(value) = value_of(line, b"content-length:") {
            let digits = value.iter().filter(|byte| byte.is_ascii_digit());
            let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
            framing = Framing::Length(number);
        } else if value_of(line, b"transfer-encoding:").is_some() {
            framing = Framing::Chunked;
        }
    }
    Some(Head { length, framing })
}

/// The status of an answer.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// True if a chunked body ends here. Payloads of this crate hold no line ends.
pub(crate) fn ends_chunked(body: &[u8]) -> bool {
    body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n")
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_how_its_message_goes_on() {
        let of = |text: &str| head(text.as_bytes()).map(|head| head.framing);
        assert_eq!(
            of("HTTP/1.1 200 OK\r\nContent-Length: 41\r\n\r\n{}"),
            Some(Framing::Length(41))
        );
        assert_eq!(of("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Framing::Length(0)));
        assert_eq!(
            of("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Some(Framing::Chunked)
        );
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 41\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 401 Unauthorized\r\n"), Some(401));
        assert!(ends_chunked(b"2\r\nab\r\n0\r\n\r\n"));
        assert!(!ends_chunked(b"2\r\nab\r\n0\r\n"));
    }
}
