//! One record per answered request: who asked what, what the verdict was, how long it took.
//!
//! It is a tracing event of target `access`; `servicechain local` draws its lines from these fields. Callers are
//! named as `client:demo`, never by their claims or token.

use std::time::Duration;

use http::Method;

use crate::trace_context::TraceId;

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
}

impl AccessRecord<'_> {
    /// Whether anybody listens: ask before gathering what costs something.
    #[must_use]
    pub fn is_wanted() -> bool {
        tracing::event_enabled!(target: TARGET, tracing::Level::INFO)
    }

    /// Emits the event, with the duration in milliseconds.
    pub fn emit(&self) {
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
        );
    }
}
