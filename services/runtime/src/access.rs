//! One record per answered request: who asked what, what the verdict was, how long it took.
//!
//! It is a tracing event of target `access`; `servicechain local` draws its lines from these fields. Where JSON lines are
//! all that becomes of it, the line is written without that detour, which is what most of its cost was. Callers are
//! named as `client:demo`, never by their claims or token.

use std::cell::Cell;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use crate::clock::Clock;
use crate::telemetry::LogWriter;
use crate::trace_context::TraceId;

/// Where lines go without a detour.
static DIRECT: OnceLock<(LogWriter, Clock)> = OnceLock::new();

/// The target to filter by.
pub const TARGET: &str = "access";

/// What became of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Absent,
    Verified,
    Rejected,
}

impl Verdict {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Verified => "verified",
            Self::Rejected => "rejected",
        }
    }
}

/// What only the service knows; it puts this into the extensions of its answer for the record to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessNotes {
    pub verdict: Verdict,
    /// As its `Display` names it in logs, such as `client:demo`.
    pub caller: Option<String>,
    /// Why it was rejected, a stable word.
    pub reason: Option<&'static str>,
    /// Where the answer came from: `cache`, `database`.
    pub source: Option<&'static str>,
    /// The next hop or route it was passed to.
    pub upstream: Option<String>,
    /// The next hop, where one that answers for it refused a token that is good here.
    pub disagrees: Option<String>,
}

/// Everything that is logged about one request.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    pub request_id: &'a str,
    pub trace_id: TraceId,
    pub hop: &'a str,
    pub method: &'a Method,
    /// Without the query, which may hold what must not be logged.
    pub path: &'a str,
    pub status: u16,
    pub duration: Duration,
    pub verdict: Verdict,
    pub caller: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub source: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The next hop, where one that answers for it refused a token that is good here.
    pub disagrees: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// Whether anybody listens: ask before gathering what costs something.
    #[must_use]
    pub fn is_wanted() -> bool {
        DIRECT.get().is_some() || tracing::event_enabled!(target: TARGET, tracing::Level::INFO)
    }

    /// Emits the event, with the duration in milliseconds.
    pub fn emit(&self) {
        if let Some((writer, clock)) = DIRECT.get() {
            let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
            writer.append(|line| self.write_json(now, line));
        } else {
            self.emit_event();
        }
    }

    fn emit_event(&self) {
        tracing::info!(
            target: TARGET,
            request_id = self.request_id,
            trace_id = %self.trace_id,
            hop = self.hop,
            method = self.method.as_str(),
            path = self.path,
            status = self.status,
            duration_ms = self.duration.as_secs_f64() * 1000.0,
            verdict = self.verdict.as_str(),
            caller = self.caller,
            reason = self.reason,
            source = self.source,
            upstream = self.upstream,
            disagrees = self.disagrees,
        );
    }

    /// The line that the event would become, at so long after the epoch.
    fn write_json(&self, now: Duration, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"timestamp\":\"");
        write_time(now, line);
        line.extend_from_slice(b"\",\"level\":\"INFO\"");
        let text = |line: &mut Vec<u8>, name: &str, value: &str| {
            line.extend_from_slice(b",\"");
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b"\":");
            write_string(value, line);
        };
        text(line, "request_id", self.request_id);
        line.extend_from_slice(b",\"trace_id\":\"");
        line.extend_from_slice(&self.trace_id.to_hex());
        line.push(b'"');
        text(line, "hop", self.hop);
        text(line, "method", self.method.as_str());
        text(line, "path", self.path);
        let micros = self.duration.as_micros();
        // Writing to memory cannot fail.
        let _ = write!(
            line,
            ",\"status\":{},\"duration_ms\":{}.{:03}",
            self.status,
            micros / 1000,
            micros % 1000
        );
        text(line, "verdict", self.verdict.as_str());
        for (name, value) in [
            ("caller", self.caller),
            ("reason", self.reason),
            ("source", self.source),
            ("upstream", self.upstream),
            ("disagrees", self.disagrees),
        ] {
            if let Some(value) = value {
                text(line, name, value);
            }
        }
        line.extend_from_slice(b",\"target\":\"access\"}\n");
    }
}

/// From now on records become JSON lines of `writer` and nothing else. Only for a process whose subscriber would make
/// the same of them.
pub(crate) fn write_directly(writer: LogWriter, clock: Clock) {
    let _ = DIRECT.set((writer, clock));
}

/// As RFC 3339 has it, in UTC and with microseconds.
fn write_time(since_epoch: Duration, line: &mut Vec<u8>) {
    thread_local! {
        /// The last second's text: a busy process asks thousands of times for the same one.
        static LAST: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
    }
    let second = since_epoch.as_secs();
    let (mut known, mut text) = LAST.get();
    if known != second {
        (known, text) = (second, date_and_time(second));
        LAST.set((known, text));
    }
    line.extend_from_slice(&text);
    let _ = write!(line, ".{:06}Z", since_epoch.subsec_micros());
}

/// `2026-11-22T01:40:28` of so many seconds after the epoch, by the calendar's period of 400 years (146,097 days).
fn date_and_time(seconds: u64) -> [u8; 19] {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from 1 March of the year 0, leap days come last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next;
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, digits: usize, mut number: u64| {
        for place in (at..at + digits).rev() {
            // A digit is below ten.
            text[place] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    text
}

/// A JSON string (RFC 8259 section 7).
fn write_string(value: &str, line: &mut Vec<u8>) {
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if value.as_bytes().iter().all(is_plain) {
        line.push(b'"');
        line.extend_from_slice(value.as_bytes());
        line.push(b'"');
    } else {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(line, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::trace_context::TraceContext;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Memory {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What the subscriber of a process makes of it.
    fn by_event(record: &AccessRecord<'_>) -> Value {
        let memory = Memory::default();
        let writer = memory.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || record.emit_event());
        serde_json::from_slice(&memory.0.lock().unwrap()).unwrap()
    }

    #[test]
    fn the_line_says_what_the_event_would_whatever_a_client_writes_in_its_path() {
        let plain = AccessRecord {
            request_id: "0190-a",
            trace_id: TraceContext::start(false).trace_id(),
            hop: "gateway",
            method: &Method::GET,
            path: "/items/1",
            status: 200,
            duration: Duration::from_micros(1_250),
            verdict: Verdict::Verified,
            caller: Some("client:demo"),
            reason: None,
            source: None,
            upstream: Some("a"),
            disagrees: None,
        };
        let odd = AccessRecord {
            path: "/\"},\n{\"level\":\"x\\\u{1}\u{7f}é",
            duration: Duration::from_secs(12),
            caller: None,
            reason: Some("a \"b\""),
            source: Some("cache"),
            upstream: None,
            disagrees: Some("a"),
            ..plain
        };
        for record in [plain, odd] {
            let mut line = Vec::new();
            record.write_json(Duration::from_secs(1), &mut line);
            assert_eq!(std::str::from_utf8(&line).unwrap().lines().count(), 1);
            let mut directly: Value = serde_json::from_slice(&line).unwrap();
            let mut by_event = by_event(&record);
            assert_eq!(directly["timestamp"], "1970-01-01T00:00:01.000000Z");
            for value in [&mut directly, &mut by_event] {
                value.as_object_mut().unwrap().remove("timestamp").unwrap();
            }
            assert_eq!(directly, by_event);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_210_096, "2024-02-29T12:34:56"),
            (1_795_311_628, "2026-11-22T01:40:28"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(date_and_time(seconds), text.as_bytes(), "{text}");
        }
        let mut line = Vec::new();
        write_time(Duration::from_nanos(1_000_007_999), &mut line);
        assert_eq!(line, b"1970-01-01T00:00:01.000007Z");
    }
}
