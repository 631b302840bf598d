//! What a gateway counts, per route and per core: each counter has one writer, so that counting is a plain load and
//! store, and only a scrape adds the cores up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use servicechain_runtime::access::Verdict;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const VERDICTS: [&str; 3] = ["absent", "verified", "rejected"];
/// Upper bounds in microseconds, from a cache hit in the next hop to the longest timeout anybody should set.
const BOUNDS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1.0"),
    (2_500_000, "2.5"),
    (10_000_000, "10.0"),
];
/// The label of requests that no route took.
const NO_ROUTE: &str = "";

/// One core's counters.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    /// One for each route, and a last one for requests without.
    routes: Box<[RouteMetrics]>,
    pub(crate) connections: Level,
}

/// One core's counters of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteMetrics {
    by_class: [Count; CLASSES.len()],
    by_verdict: [Count; VERDICTS.len()],
    pub(crate) in_flight: Level,
    pub(crate) retries: Count,
    /// Answers that did not reach the client in full.
    pub(crate) aborted: Count,
    /// Those of them that were cut off because their token is not good any more.
    pub(crate) cut: Count,
    /// Answers of the next hop that refuse a token which is good here.
    pub(crate) disagreements: Count,
    upstream: UpstreamTime,
}

/// Grows only, and only on one core.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// Goes up and down, and only on one core.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

/// Time to the head of the answer, in buckets.
#[derive(Debug, Default)]
struct UpstreamTime {
    buckets: [Count; BOUNDS.len() + 1],
    micros: Count,
}

impl WorkerMetrics {
    pub(crate) fn new(routes: usize) -> Self {
        Self {
            routes: (0..=routes).map(|_| RouteMetrics::default()).collect(),
            connections: Level::default(),
        }
    }

    /// Those of one route, or of requests that have none.
    pub(crate) fn route(&self, route: Option<usize>) -> &RouteMetrics {
        &self.routes[route.unwrap_or(self.routes.len() - 1)]
    }
}

impl RouteMetrics {
    pub(crate) fn answered(&self, status: StatusCode, verdict: Verdict) {
        self.by_class[usize::from(status.as_u16() / 100).clamp(1, 5) - 1].add(1);
        self.by_verdict[match verdict {
            Verdict::Absent => 0,
            Verdict::Verified => 1,
            Verdict::Rejected => 2,
        }]
        .add(1);
    }

    pub(crate) fn upstream_answered(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.upstream.buckets[BOUNDS.partition_point(|(bound, _)| *bound < micros)].add(1);
        self.upstream.micros.add(micros);
    }
}

impl Count {
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Level {
    pub(crate) fn up(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.store(self.get().wrapping_sub(1), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A route's labels.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    pub(crate) route: String,
    /// The hop behind it.
    pub(crate) service: String,
}

/// Writes all families in the text format of `OpenMetrics`. `routes` are in the order of the configuration.
pub(crate) fn write(text: &mut String, hop: &str, routes: &[Labels], workers: &[Arc<WorkerMetrics>]) {
    let page = Page { hop, routes, workers };
    page.disagreements(text);
    page.classes(text);
    page.verdicts(text);
    page.sum_by_route(
        text,
        "retries",
        "counter",
        "Requests sent a second time",
        |route| route.retries.get(),
    );
    page.sum_by_route(
        text,
        "answers_aborted",
        "counter",
        "Answers cut off before their end",
        |route| route.aborted.get(),
    );
    page.sum_by_route(
        text,
        "requests_cut",
        "counter",
        "Requests ended because their token was revoked or expired meanwhile",
        |route| route.cut.get(),
    );
    page.sum_by_route(
        text,
        "requests_in_flight",
        "gauge",
        "Requests being worked on",
        |route| route.in_flight.get(),
    );
    page.upstream_times(text);
    let connections: u64 = workers.iter().map(|worker| worker.connections.get()).sum();
    head(text, "connections", "gauge", "Connections of clients");
    let _ = writeln!(
        text,
        "servicechain_gateway_connections{{hop=\"{hop}\"}} {connections}"
    );
}

struct Page<'a> {
    hop: &'a str,
    routes: &'a [Labels],
    workers: &'a [Arc<WorkerMetrics>],
}

impl Page<'_> {
    fn labels(&self) -> impl Iterator<Item = (usize, String)> {
        let names = self
            .routes
            .iter()
            .map(|labels| labels.route.as_str())
            .chain([NO_ROUTE]);
        names
            .enumerate()
            .map(|(index, name)| (index, format!("hop=\"{}\",route=\"{}\"", self.hop, escape(name))))
    }

    /// By next hop: several routes may lead to one.
    fn disagreements(&self, text: &mut String) {
        const NAME: &str = "servicechain_verdict_disagreements";
        let mut by_next = BTreeMap::<&str, u64>::new();
        for (index, labels) in self.routes.iter().enumerate() {
            let sum = self.sum(index, |route| route.disagreements.get());
            *by_next.entry(&labels.service).or_default() += sum;
        }
        let _ = writeln!(
            text,
            "# HELP {NAME} Answers of the next hop that refuse a token which is good here; stays 0."
        );
        let _ = writeln!(text, "# TYPE {NAME} counter");
        for (next, sum) in by_next {
            let (hop, next) = (self.hop, escape(next));
            let _ = writeln!(text, "{NAME}_total{{hop=\"{hop}\",next=\"{next}\"}} {sum}");
        }
    }

    fn sum(&self, route: usize, of: impl Fn(&RouteMetrics) -> u64) -> u64 {
        self.workers
            .iter()
            .map(|worker| of(&worker.routes[route]))
            .fold(0, u64::wrapping_add)
    }

    fn sum_by_route(
        &self,
        text: &mut String,
        name: &str,
        kind: &str,
        help: &str,
        of: fn(&RouteMetrics) -> u64,
    ) {
        head(text, name, kind, help);
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (route, labels) in self.labels() {
            let _ = writeln!(
                text,
                "servicechain_gateway_{name}{suffix}{{{labels}}} {}",
                self.sum(route, of)
            );
        }
    }

    fn classes(&self, text: &mut String) {
        head(
            text,
            "requests",
            "counter",
            "Requests answered, by class of status",
        );
        for (route, labels) in self.labels() {
            for (index, class) in CLASSES.iter().enumerate() {
                let count = self.sum(route, |route| route.by_class[index].get());
                let _ = writeln!(
                    text,
                    "servicechain_gateway_requests_total{{{labels},status=\"{class}\"}} {count}"
                );
            }
        }
    }

    fn verdicts(&self, text: &mut String) {
        head(text, "verdicts", "counter", "What became of requests' tokens");
        for (route, labels) in self.labels() {
            for (index, verdict) in VERDICTS.iter().enumerate() {
                let count = self.sum(route, |route| route.by_verdict[index].get());
                let _ = writeln!(
                    text,
                    "servicechain_gateway_verdicts_total{{{labels},verdict=\"{verdict}\"}} {count}"
                );
            }
        }
    }

    fn upstream_times(&self, text: &mut String) {
        head(
            text,
            "upstream_seconds",
            "histogram",
            "Time to the head of an upstream's answer",
        );
        for (route, labels) in self.labels() {
            let mut count = 0;
            for (index, bound) in BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).enumerate() {
                count += self.sum(route, |route| route.upstream.buckets[index].get());
                let _ = writeln!(
                    text,
                    "servicechain_gateway_upstream_seconds_bucket{{{labels},le=\"{bound}\"}} {count}"
                );
            }
            let seconds =
                Duration::from_micros(self.sum(route, |route| route.upstream.micros.get())).as_secs_f64();
            let _ = writeln!(
                text,
                "servicechain_gateway_upstream_seconds_count{{{labels}}} {count}"
            );
            let _ = writeln!(
                text,
                "servicechain_gateway_upstream_seconds_sum{{{labels}}} {seconds}"
            );
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP servicechain_gateway_{name} {help}.");
    let _ = writeln!(text, "# TYPE servicechain_gateway_{name} {kind}");
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_adds_the_cores_up() {
        let workers = [Arc::new(WorkerMetrics::new(1)), Arc::new(WorkerMetrics::new(1))];
        for worker in &workers {
            let route = worker.route(Some(0));
            route.answered(StatusCode::OK, Verdict::Verified);
            route.upstream_answered(Duration::from_millis(2));
            route.in_flight.up();
        }
        workers[0].route(Some(0)).in_flight.down();
        workers[1]
            .route(None)
            .answered(StatusCode::NOT_FOUND, Verdict::Absent);
        let mut text = String::new();
        let labels = Labels {
            route: "it\"ems".to_owned(),
            service: "a".to_owned(),
        };
        write(&mut text, "gateway", &[labels], &workers);
        for line in [
            r#"servicechain_gateway_requests_total{hop="gateway",route="it\"ems",status="2xx"} 2"#,
            r#"servicechain_verdict_disagreements_total{hop="gateway",next="a"} 0"#,
            r#"servicechain_gateway_requests_total{hop="gateway",route="",status="4xx"} 1"#,
            r#"servicechain_gateway_verdicts_total{hop="gateway",route="it\"ems",verdict="verified"} 2"#,
            r#"servicechain_gateway_requests_in_flight{hop="gateway",route="it\"ems"} 1"#,
            r#"servicechain_gateway_upstream_seconds_bucket{hop="gateway",route="it\"ems",le="0.001"} 0"#,
            r#"servicechain_gateway_upstream_seconds_bucket{hop="gateway",route="it\"ems",le="+Inf"} 2"#,
            r#"servicechain_gateway_upstream_seconds_sum{hop="gateway",route="it\"ems"} 0.004"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
