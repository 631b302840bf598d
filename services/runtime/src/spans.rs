//! Spans of sampled requests, and of what a process does by itself, handed to the exporter of [`crate::telemetry`].
//!
//! A span's ids are exactly those that travel in `traceparent`. Recording never waits and never fails a request:
//! when the exporter cannot keep up, spans are dropped and counted.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::HeaderMap;
use opentelemetry::trace::{self as otel, TraceFlags};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::trace_context::{SpanId, TraceContext};

pub use opentelemetry::trace::SpanKind;

/// Set once by [`crate::telemetry::init`] when spans are exported.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

static DROPPED: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Recorder {
    pub(crate) finished: mpsc::Sender<SpanData>,
    /// A new trace is sampled if 64 random bits are below this.
    pub(crate) threshold: u64,
    pub(crate) clock: Clock,
}

impl Recorder {
    /// False if there was one already; that one stays.
    pub(crate) fn install(self) -> bool {
        RECORDER.set(self).is_ok()
    }
}

/// How many spans were dropped because the exporter could not keep up.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The caller's trace, continued by a span of our own; without one a new trace, sampled by chance.
/// The second value is the span that it continues.
#[must_use]
pub fn continue_or_start(headers: &HeaderMap) -> (TraceContext, Option<SpanId>) {
    match TraceContext::from_headers(headers) {
        Some(parent) => (parent.child(), Some(parent.span_id())),
        None => (TraceContext::start(is_next_sampled()), None),
    }
}

fn is_next_sampled() -> bool {
    RECORDER
        .get()
        .is_some_and(|recorder| rand::random::<u64>() < recorder.threshold)
}

/// Something that takes time in a trace. It ends when dropped; unless its trace is sampled and exported, it costs
/// nothing but its context.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    parent: Option<SpanId>,
    parent_is_remote: bool,
    kind: SpanKind,
    name: Cow<'static, str>,
    begun: SystemTime,
    attributes: Vec<KeyValue>,
    status: otel::Status,
}

impl Span {
    /// The first span of a new trace: of something that no request asked for. Sampled by chance.
    #[must_use]
    pub fn root(name: impl Into<Cow<'static, str>>) -> Self {
        let context = TraceContext::start(is_next_sampled());
        Self::begin(context, None, false, SpanKind::Internal, name.into())
    }

    /// The span of a request that came in, continuing what its headers say.
    #[must_use]
    pub fn of_request(headers: &HeaderMap, name: impl Into<Cow<'static, str>>) -> Self {
        let (context, parent) = continue_or_start(headers);
        Self::begin(context, parent, true, SpanKind::Server, name.into())
    }

    /// A step within `parent`: a cache read, a query, a call to the next hop ([`SpanKind::Client`]).
    #[must_use]
    pub fn child_of(parent: &TraceContext, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self::begin(parent.child(), Some(parent.span_id()), false, kind, name.into())
    }

    /// What children and the next hop continue.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Whether anything set on it will be seen.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Attributes never hold tokens, claims or passwords.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Marks the step as failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.recording {
            recording.status = otel::Status::error(why);
        }
    }

    fn begin(
        context: TraceContext,
        parent: Option<SpanId>,
        parent_is_remote: bool,
        kind: SpanKind,
        name: Cow<'static, str>,
    ) -> Self {
        let recorder = RECORDER.get().filter(|_| context.is_sampled());
        let recording = recorder.map(|recorder| {
            Box::new(Recording {
                parent,
                parent_is_remote,
                kind,
                name,
                begun: recorder.clock.now(),
                attributes: Vec::new(),
                status: otel::Status::Unset,
            })
        });
        Self { context, recording }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(recording), Some(recorder)) = (self.recording.take(), RECORDER.get()) else {
            return;
        };
        let data = SpanData {
            span_context: otel::SpanContext::new(
                otel::TraceId::from_bytes(self.context.trace_id().to_bytes()),
                otel::SpanId::from_bytes(self.context.span_id().to_bytes()),
                TraceFlags::SAMPLED,
                false,
                otel::TraceState::NONE,
            ),
            parent_span_id: recording.parent.map_or(otel::SpanId::INVALID, |id| {
                otel::SpanId::from_bytes(id.to_bytes())
            }),
            parent_span_is_remote: recording.parent_is_remote,
            span_kind: recording.kind,
            name: recording.name,
            start_time: recording.begun,
            end_time: recorder.clock.now(),
            attributes: recording.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: recording.status,
            instrumentation_scope: InstrumentationScope::builder("servicechain").build(),
        };
        if recorder.finished.try_send(data).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}
