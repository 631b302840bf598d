//! A pass over a chain, or a round of its keys, as one trace: a span for each step, and within it one for each question to
//! the API server or to a pod. What is done within a trace finds it by itself, and where there is none nothing is kept.
//! Names of objects are attributes; what is in them never is.

use std::fmt::Display;

use servicechain_runtime::spans::{Span, SpanKind};
use servicechain_runtime::trace_context::TraceContext;

tokio::task_local! {
    /// The span that is open around the current task's work.
    static AROUND: TraceContext;
}

/// All of `work` is one trace, of this chain.
pub fn of_chain<T, E: Display>(
    name: &'static str,
    namespace: &str,
    chain: &str,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let work = Box::pin(work);
    async move {
        let mut span = Span::root(name);
        if span.is_recorded() {
            span.set("servicechain.namespace", namespace.to_owned());
            span.set("servicechain.chain", chain.to_owned());
        }
        let result = AROUND.scope(span.context().clone(), work).await;
        failed(&mut span, &result);
        result
    }
}

/// A step of what is being traced.
pub fn step<T>(name: &'static str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(work);
    async move {
        match begin(name) {
            Some(span) => AROUND.scope(span.context().clone(), work).await,
            None => work.await,
        }
    }
}

/// A step that waits for nobody, until what is returned is dropped.
#[must_use]
pub fn begin(name: &'static str) -> Option<Span> {
    child(name, SpanKind::Internal)
}

/// Something that somebody else is asked, in one attribute: whom, or what for.
pub fn question<T, E: Display>(
    name: &'static str,
    (key, value): (&'static str, &str),
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let work = Box::pin(work);
    async move {
        let Some(mut span) = child(name, SpanKind::Client) else {
            return work.await;
        };
        span.set(key, value.to_owned());
        let result = work.await;
        failed(&mut span, &result);
        result
    }
}

/// None where nothing is traced, or this trace is not sampled.
fn child(name: &'static str, kind: SpanKind) -> Option<Span> {
    let of = |around: &TraceContext| around.is_sampled().then(|| Span::child_of(around, name, kind));
    AROUND.try_with(of).ok().flatten()
}

/// Without the causes, which may quote what others wrote.
fn failed<T, E: Display>(span: &mut Span, result: &Result<T, E>) {
    if let Err(error) = result
        && span.is_recorded()
    {
        span.fail(error.to_string());
    }
}
