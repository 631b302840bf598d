//! Trace context as W3C's Recommendation of 23 November 2021 defines it: `traceparent` and `tracestate`.
//!
//! It reads, continues and writes contexts; recording spans is the business of `spans`.

use std::fmt::{self, Write as _};

use http::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Section 3.2: the length of a version 00 `traceparent`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
/// Section 3.3.1.1.
const MAX_STATE_MEMBERS: usize = 32;

/// 16 random bytes, never all zero; shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// 8 random bytes, never all zero; shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// The position of one span in one trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    sampled: bool,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// What the caller sent: its own span, our parent. `None` if there is no valid `traceparent`, and then its
    /// `tracestate` counts for nothing either (section 3.3).
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else {
            return None;
        };
        let (trace_id, span_id, flags) = parse_parent(parent.as_bytes())?;
        Some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
            state: state_in(headers),
        })
    }

    /// The first span of a new trace.
    #[must_use]
    pub fn start(sampled: bool) -> Self {
        Self {
            trace_id: TraceId(random_id()),
            span_id: SpanId(random_id()),
            sampled,
            state: None,
        }
    }

    /// A new span below this one, in the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: SpanId(random_id()),
            ..self.clone()
        }
    }

    /// Writes this span as the parent of whatever the receiver does, and takes away what was there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        match &self.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }

    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    #[must_use]
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// What [`TraceContext::inject`] would set as `tracestate`.
    #[must_use]
    pub fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    fn traceparent(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.parent_text()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// What [`TraceContext::inject`] would set as `traceparent`: version 00 (section 3.2.2). Flags of later versions are
    /// sent as zero, as section 3.2.2.5 asks.
    #[must_use]
    pub fn parent_text(&self) -> [u8; LENGTH] {
        let mut text = [0; LENGTH];
        text.copy_from_slice(b"00-00000000000000000000000000000000-0000000000000000-00");
        write_hex(&self.trace_id.0, &mut text[3..35]);
        write_hex(&self.span_id.0, &mut text[36..52]);
        text[54] = b'0' + u8::from(self.sampled);
        text
    }
}

impl TraceId {
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// As it is shown, in ASCII.
    pub(crate) fn to_hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&self.0, &mut text);
        text
    }
}

impl SpanId {
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

macro_rules! show_as_hex {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
show_as_hex!(TraceId, SpanId);

fn random_id<const N: usize>() -> [u8; N]
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; N]>,
{
    loop {
        let id: [u8; N] = rand::random();
        if id != [0; N] {
            return id;
        }
    }
}

fn parse_parent(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let version = *read_hex::<1>(text.get(..2)?)?.first()?;
    // Version ff is invalid; later versions may append, version 00 may not (section 3.2.4).
    let well_ended = match text.get(LENGTH) {
        None => text.len() == LENGTH,
        Some(after) => version != 0 && *after == b'-',
    };
    if version == 0xff || !well_ended || [text[2], text[35], text[52]] != [b'-'; 3] {
        return None;
    }
    let trace_id = read_hex::<16>(&text[3..35])?;
    let span_id = read_hex::<8>(&text[36..52])?;
    let [flags] = read_hex::<1>(&text[53..55])?;
    (trace_id != [0; 16] && span_id != [0; 8]).then_some((TraceId(trace_id), SpanId(span_id), flags))
}

/// Lower-case digits only, as the Recommendation demands.
fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

/// All `tracestate` headers as one (section 3.3.1); nothing if any member of it is malformed.
fn state_in(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let mut all = first.to_str().ok()?.to_owned();
    let mut alone = true;
    for more in values {
        write!(all, ",{}", more.to_str().ok()?).ok()?;
        alone = false;
    }
    let mut keys = Vec::new();
    for member in all
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
    {
        let (key, value) = member.split_once('=')?;
        if !is_state_key(key.as_bytes()) || !is_state_value(value.as_bytes()) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    if keys.is_empty() || keys.len() > MAX_STATE_MEMBERS {
        return None;
    }
    if alone {
        Some(first.clone())
    } else {
        HeaderValue::from_str(&all).ok()
    }
}

/// Section 3.3.1.3.1: `simple-key` or `tenant@system`.
fn is_state_key(key: &[u8]) -> bool {
    let is_part = |part: &[u8], max: usize, digit_first: bool| {
        let Some((first, rest)) = part.split_first() else {
            return false;
        };
        part.len() <= max
            && (first.is_ascii_lowercase() || digit_first && first.is_ascii_digit())
            && rest
                .iter()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte))
    };
    match key.iter().position(|byte| *byte == b'@') {
        Some(at) => is_part(&key[..at], 241, true) && is_part(&key[at + 1..], 14, false),
        None => is_part(key, 256, false),
    }
}

/// Section 3.3.1.3.2: up to 256 printable characters without `,` and `=`, not ending in a space.
fn is_state_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.last() != Some(&b' ')
        && value
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7e) && !b",=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in states {
            headers.append(TRACESTATE, HeaderValue::from_str(state).unwrap());
        }
        TraceContext::from_headers(&headers)
    }

    #[test]
    fn a_child_keeps_trace_and_state_and_gets_its_own_span() {
        let parent = read(&[PARENT], &["congo=t61rcWkgMzE"]).unwrap();
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id().to_string(), "b7ad6b7169203331");
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span_id(), parent.span_id());
        let mut headers = HeaderMap::new();
        child.inject(&mut headers);
        assert_eq!(
            headers[TRACEPARENT],
            format!("00-{}-{}-01", child.trace_id(), child.span_id()).as_str()
        );
        assert_eq!(headers[TRACESTATE], "congo=t61rcWkgMzE");
        assert_eq!(TraceContext::from_headers(&headers), Some(child));
    }

    #[test]
    fn malformed_parents_start_anew() {
        for odd in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
        ] {
            assert_eq!(read(&[odd], &[]), None, "{odd}");
        }
        assert_eq!(read(&[PARENT, PARENT], &[]), None);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = read(
            &["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-what-else"],
            &[],
        )
        .unwrap();
        assert!(later.is_sampled());
        assert!(later.child().traceparent().to_str().unwrap().ends_with("-01"));
        assert!(!read(&[&PARENT.replace("-01", "-02")], &[]).unwrap().is_sampled());
    }

    #[test]
    fn a_malformed_state_is_dropped_and_the_parent_kept() {
        for odd in ["a", "a=", "A=1", "=1", "a=1,a=2", "a=b=c", "1a=1", "a@=1", "é=1"] {
            assert_eq!(read(&[PARENT], &[odd]).unwrap().state, None, "{odd}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert_eq!(read(&[PARENT], &[&many.join(",")]).unwrap().state, None);
        assert_eq!(
            read(&[PARENT], &["a=1, b=2", "t3@sys=3"]).unwrap().state.unwrap(),
            "a=1, b=2,t3@sys=3"
        );
    }

    #[test]
    fn new_traces_differ() {
        assert_ne!(
            TraceContext::start(true).trace_id(),
            TraceContext::start(true).trace_id()
        );
    }
}
