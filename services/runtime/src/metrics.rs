//! What a process counts, and how it is shown to a scraper (`OpenMetrics` text).
//!
//! Label sets are resolved when a process starts; counting a request is a few atomic additions and no lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

type Writer = dyn Fn(&mut String) + Send + Sync;

/// Everything that `/metrics` shows.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    others: Vec<Box<Writer>>,
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Adds text of a crate that counts by itself: whole metric families in `OpenMetrics` text, without the final
    /// `# EOF`.
    pub fn append(&mut self, write: impl Fn(&mut String) + Send + Sync + 'static) {
        self.others.push(Box::new(write));
    }

    /// # Errors
    /// When a metric cannot be written as text, which is a mistake in its definition.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        for write in &self.others {
            write(&mut text);
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Requests by class of status, their duration, and how many are in flight.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    by_class: Arc<[Counter; 5]>,
    durations: Histogram,
    in_flight: Gauge,
}

impl RequestMetrics {
    /// Registers them for one hop.
    pub fn register(metrics: &mut Metrics, hop: &str) -> Self {
        let registry = metrics.registry().sub_registry_with_prefix("servicechain");
        let registry = registry.sub_registry_with_label(("hop".into(), hop.to_owned().into()));
        let requests = Family::<[(&str, &str); 1], Counter>::default();
        let by_class = ["1xx", "2xx", "3xx", "4xx", "5xx"]
            .map(|class| requests.get_or_create(&[("status", class)]).clone());
        let this = Self {
            by_class: Arc::new(by_class),
            durations: Histogram::default(),
            in_flight: Gauge::default(),
        };
        registry.register("requests", "Requests answered, by class of status", requests);
        registry.register(
            "request_duration_seconds",
            "Time to answer",
            this.durations.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests being worked on",
            this.in_flight.clone(),
        );
        this
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> RequestInFlight {
        self.in_flight.inc();
        RequestInFlight(self.in_flight.clone())
    }

    pub fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
        self.durations.observe(took);
    }
}

/// A request that is being worked on.
#[derive(Debug)]
pub struct RequestInFlight(Gauge);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Upper bounds in seconds: from a cache hit at a gateway to the longest timeout anybody should set.
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Durations in buckets. The one of `prometheus-client` takes a lock for each observation; this one does not.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// One more than the bounds: what is above the last.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let counts: Vec<u64> = self
            .0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let sum = Duration::from_micros(self.0.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_shown_by_class_with_cumulative_durations() {
        let mut metrics = Metrics::new();
        let requests = RequestMetrics::register(&mut metrics, "a");
        metrics.append(|text| text.push_str("# TYPE keys gauge\nkeys 3\n"));
        let in_flight = requests.begin();
        requests.answered(200, Duration::from_millis(2));
        requests.answered(503, Duration::from_mins(1));
        let text = metrics.encode().unwrap();
        for line in [
            r#"servicechain_requests_total{status="2xx",hop="a"} 1"#,
            r#"servicechain_requests_total{status="5xx",hop="a"} 1"#,
            r#"servicechain_request_duration_seconds_bucket{le="0.0025",hop="a"} 1"#,
            r#"servicechain_request_duration_seconds_bucket{le="+Inf",hop="a"} 2"#,
            r#"servicechain_request_duration_seconds_count{hop="a"} 2"#,
            r#"servicechain_requests_in_flight{hop="a"} 1"#,
            "keys 3",
        ] {
            let has = |wanted: &str| {
                text.lines().any(|line| {
                    let sorted = |text: &str| {
                        let mut parts: Vec<_> = text.split(['{', ',', '}']).map(str::to_owned).collect();
                        parts.sort();
                        parts
                    };
                    sorted(line) == sorted(wanted)
                })
            };
            assert!(has(line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop(in_flight);
        assert!(
            metrics
                .encode()
                .unwrap()
                .contains("requests_in_flight{hop=\"a\"} 0")
        );
    }
}
