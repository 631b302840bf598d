//! Spans leave in batches over OTLP/HTTP, from one thread with a runtime of its own.
//!
//! The queue is bounded and never waited for; a collector that is slow, gone or wrong costs spans only.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;

use super::TelemetryError;
use crate::clock::Clock;
use crate::spans::Recorder;

const QUEUE: usize = 4096;
const BATCH: usize = 512;
/// A batch waits so long for company.
const EVERY: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the exporting thread to deliver what it has.
#[derive(Debug)]
pub(super) struct Flush(mpsc::UnboundedSender<SyncSender<()>>);

impl Flush {
    pub(super) fn flush(&self, within: Duration) {
        let (done, wait) = sync_channel(1);
        if self.0.send(done).is_ok() {
            let _ = wait.recv_timeout(within);
        }
    }
}

pub(super) fn start(
    endpoint: &str,
    service: &str,
    attributes: &[(String, String)],
    sampling_percent: f64,
    clock: Clock,
) -> Result<Flush, TelemetryError> {
    let no_exporter = |source: Box<dyn std::error::Error + Send + Sync>| TelemetryError::NoExporter {
        endpoint: endpoint.to_owned(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| no_exporter(error.into()))?;
    let mut exporter = {
        // The client picks up the runtime that it is made in.
        let _inside = runtime.enter();
        SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| no_exporter(error.into()))?
    };
    let attributes = attributes
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    exporter.set_resource(
        &Resource::builder_empty()
            .with_service_name(service.to_owned())
            .with_attributes(attributes)
            .build(),
    );
    let (finished, spans) = mpsc::channel(QUEUE);
    let (flush, flushes) = mpsc::unbounded_channel();
    if !(Recorder {
        finished,
        threshold: threshold(sampling_percent),
        clock,
    })
    .install()
    {
        return Err(TelemetryError::AlreadyInitialised);
    }
    thread::spawn(move || runtime.block_on(export(exporter, spans, flushes)));
    Ok(Flush(flush))
}

async fn export(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<SpanData>,
    mut flushes: mpsc::UnboundedReceiver<SyncSender<()>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut failing = false;
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let mut asked = None;
        tokio::select! {
            received = spans.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
                if batch.len() < BATCH {
                    continue;
                }
            }
            _ = tick.tick() => (),
            flush = flushes.recv() => {
                while let Ok(span) = spans.try_recv() {
                    batch.push(span);
                }
                asked = flush;
            }
        }
        if !batch.is_empty() {
            let sent =
                tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(std::mem::take(&mut batch))).await;
            let worked = matches!(sent, Ok(Ok(())));
            // Said once, not every second.
            if !worked && !failing {
                tracing::warn!(
                    "spans cannot be delivered to the collector; they are dropped until it answers"
                );
            }
            failing = !worked;
        }
        if let Some(done) = asked {
            let _ = done.try_send(());
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer casts saturate"
)]
#[expect(clippy::cast_precision_loss, reason = "a sampling chance needs no 64 bits")]
fn threshold(percent: f64) -> u64 {
    (percent / 100.0 * u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_none_can_be_sampled() {
        assert_eq!(threshold(0.0), 0);
        assert_eq!(threshold(100.0), u64::MAX);
        assert!(threshold(1.0).abs_diff(u64::MAX / 100) < u64::MAX / 10_000);
    }
}
