//! One line per request, with its path through the chain, from the access events that every hop emits.
//! It must not know how the hops are run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use servicechain_runtime::access;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::paint::{Paint, tame};

/// How long the gateway's event waits for those of hops that answered it: they end their work a moment later.
const LATE_BY: Duration = Duration::from_millis(100);
/// Traces of which the gateway never spoke (a service was called directly) are forgotten beyond this many.
const MOST_OPEN_TRACES: usize = 256;
/// Events on their way to the terminal; beyond, they are dropped rather than held in memory.
const MOST_EVENTS: usize = 4096;

/// What an access event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub trace_id: String,
    pub hop: String,
    pub method: String,
    pub path: String,
    pub status: u64,
    pub duration_ms: f64,
    pub verdict: String,
    pub caller: Option<String>,
    pub reason: Option<String>,
    pub source: Option<String>,
    pub upstream: Option<String>,
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.to_owned();
        match field.name() {
            "trace_id" => self.trace_id = value,
            "hop" => self.hop = value,
            "method" => self.method = value,
            "path" => self.path = value,
            "verdict" => self.verdict = value,
            "caller" => self.caller = Some(value),
            "reason" => self.reason = Some(value),
            "source" => self.source = Some(value),
            "upstream" => self.upstream = Some(value),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "status" {
            self.status = value;
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "duration_ms" {
            self.duration_ms = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Takes access events out of tracing.
#[derive(Debug)]
pub(crate) struct Collector(mpsc::Sender<Record>);

pub(crate) fn collector() -> (Collector, mpsc::Receiver<Record>) {
    let (sender, receiver) = mpsc::channel(MOST_EVENTS);
    (Collector(sender), receiver)
}

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        // A terminal that is too slow loses lines; requests never wait for it.
        let _ = self.0.try_send(record);
    }
}

/// Only access events reach the collector.
pub(crate) fn is_access(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.target() == access::TARGET
}

/// A request as the gateway and the hops behind it saw it.
#[derive(Clone, Debug, Default)]
struct Trail {
    gateway: Option<Record>,
    hops: Vec<Record>,
}

impl Trail {
    /// Whether every hop up to the last has spoken. A hop that answered without its next says no upstream.
    fn is_whole(&self) -> bool {
        let Some(gateway) = &self.gateway else {
            return false;
        };
        let mut next = gateway.upstream.as_deref().filter(|_| !was_refused(gateway));
        let mut steps = 0;
        while let Some(name) = next {
            let Some(hop) = self.hops.iter().find(|hop| hop.hop == name) else {
                return false;
            };
            next = hop.upstream.as_deref();
            steps += 1;
            if steps > self.hops.len() {
                break;
            }
        }
        true
    }
}

/// Hands `show` one trail after the other until the events end.
pub(crate) async fn follow(mut events: mpsc::Receiver<Record>, mut show: impl FnMut(&Record, &[Record])) {
    let mut open: BTreeMap<String, Trail> = BTreeMap::new();
    let mut waiting: Vec<(Instant, String)> = Vec::new();
    loop {
        let next = match waiting.first() {
            Some((deadline, _)) => timeout_at(*deadline, events.recv()).await.map_err(drop),
            None => Ok(events.recv().await),
        };
        match next {
            Ok(Some(record)) => {
                let id = record.trace_id.clone();
                let trail = open.entry(id.clone()).or_default();
                if record.hop == "gateway" {
                    trail.gateway = Some(record);
                    waiting.push((Instant::now() + LATE_BY, id.clone()));
                } else {
                    trail.hops.push(record);
                }
                if trail.is_whole() {
                    waiting.retain(|(_, other)| *other != id);
                    show_trail(open.remove(&id), &mut show);
                }
                if open.len() > MOST_OPEN_TRACES {
                    open.retain(|_, trail| trail.gateway.is_some());
                }
            }
            Ok(None) => {
                for (_, id) in waiting {
                    show_trail(open.remove(&id), &mut show);
                }
                return;
            }
            Err(()) => {
                let (_, id) = waiting.remove(0);
                show_trail(open.remove(&id), &mut show);
            }
        }
    }
}

fn show_trail(trail: Option<Trail>, show: &mut impl FnMut(&Record, &[Record])) {
    if let Some(Trail {
        gateway: Some(gateway),
        hops,
    }) = trail
    {
        show(&gateway, &hops);
    }
}

/// The line of one request. `order` are the services in the order of the chain.
pub(crate) fn line(time: &str, gateway: &Record, hops: &[Record], order: &[String], paint: Paint) -> String {
    let status = gateway.status.to_string();
    let status = match gateway.status {
        200..400 => paint.green(&status),
        400..500 => paint.yellow(&status),
        _ => paint.red(&status),
    };
    let mut parts = vec![at_gateway(gateway, !hops.is_empty(), paint)];
    if hops.is_empty() && !was_refused(gateway) {
        // An issuer, or a service that never answered.
        parts.extend(gateway.upstream.as_ref().map(|upstream| format!("-> {upstream}")));
    }
    for (index, name) in order.iter().enumerate() {
        if let Some(hop) = hops.iter().find(|hop| hop.hop == *name) {
            let next = order[index + 1..]
                .iter()
                .find_map(|name| hops.iter().find(|hop| hop.hop == *name));
            parts.push(at_service(hop, next, paint));
        }
    }
    let caller = gateway.caller.as_ref().map(|caller| paint.dim(&tame(caller, 40)));
    parts.extend(caller);
    let request = format!("{} {}", tame(&gateway.method, 10), tame(&gateway.path, 40));
    format!(
        "{time} {request}  {status}  {:.1} ms   {}",
        gateway.duration_ms,
        parts.join("  ")
    )
}

/// Whether the gateway answered by itself, since it did not let the caller in. The event names the route's upstream
/// all the same.
fn was_refused(gateway: &Record) -> bool {
    gateway.reason.is_some()
        || gateway.verdict == "rejected"
        || (gateway.verdict == "absent" && gateway.status == 401)
}

fn at_gateway(gateway: &Record, is_forwarded: bool, paint: Paint) -> String {
    if is_forwarded && gateway.verdict == "absent" {
        return "gateway no token".to_owned();
    }
    match (gateway.verdict.as_str(), &gateway.reason) {
        ("verified", None) => format!("gateway {}", paint.green("✓")),
        (_, Some(reason)) => format!("gateway {} {reason}", paint.red("✗")),
        ("rejected", None) => format!("gateway {}", paint.red("✗")),
        ("absent", None) if gateway.status == 401 => format!("gateway {} no token", paint.red("✗")),
        _ => "gateway".to_owned(),
    }
}

/// With the time the hop took by itself, without what its next hop took of it.
fn at_service(hop: &Record, next: Option<&Record>, paint: Paint) -> String {
    let own = (hop.duration_ms - next.map_or(0.0, |next| next.duration_ms)).max(0.0);
    match (failure(hop, next), &hop.source) {
        (Some(why), _) => format!("{} {} {why}", hop.hop, paint.red("✗")),
        (None, Some(source)) => format!("{} {} {source} {own:.1}", hop.hop, paint.green("✓")),
        (None, None) => format!("{} {} {own:.1}", hop.hop, paint.green("✓")),
    }
}

/// Why a hop did not do its part. One that passed a later hop's failure on did, and so did one that found no item
/// where it keeps them.
fn failure(hop: &Record, next: Option<&Record>) -> Option<String> {
    if let Some(reason) = &hop.reason {
        return Some(reason.clone());
    }
    let is_error = hop.status >= 400;
    let is_passed_on = next.is_some_and(|next| next.status == hop.status);
    let is_missing_item = hop.status == 404 && hop.source.is_some();
    if is_error && !is_passed_on && !is_missing_item {
        let status = u16::try_from(hop.status)
            .ok()
            .and_then(|code| http::StatusCode::from_u16(code).ok());
        let words = status
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default()
            .to_lowercase();
        return Some(format!("{} {words}", hop.status).trim_end().to_owned());
    }
    (hop.verdict != "verified").then(|| hop.verdict.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hop: &str, status: u64, duration_ms: f64, upstream: Option<&str>) -> Record {
        Record {
            trace_id: "t".to_owned(),
            hop: hop.to_owned(),
            method: "GET".to_owned(),
            path: "/items/1".to_owned(),
            status,
            duration_ms,
            verdict: "verified".to_owned(),
            caller: Some("client:demo".to_owned()),
            upstream: upstream.map(str::to_owned),
            ..Record::default()
        }
    }

    fn order() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_request_is_one_line_with_its_path() {
        let from = |hop: &str, ms, next| Record {
            source: Some("cache".to_owned()),
            ..record(hop, 200, ms, next)
        };
        let hops = [
            from("c", 0.1, None),
            from("a", 0.7, Some("b")),
            from("b", 0.4, Some("c")),
        ];
        assert_eq!(
            line(
                "22:14:04",
                &record("gateway", 200, 0.9, Some("a")),
                &hops,
                &order(),
                Paint::Plain
            ),
            "22:14:04 GET /items/1  200  0.9 ms   gateway ✓  a ✓ cache 0.3  b ✓ cache 0.3  c ✓ cache 0.1  client:demo"
        );
    }

    #[test]
    fn a_refusal_says_where_and_why() {
        let refused = Record {
            verdict: "rejected".to_owned(),
            reason: Some("expired".to_owned()),
            caller: None,
            ..record("gateway", 401, 0.1, None)
        };
        assert_eq!(
            line("22:14:06", &refused, &[], &order(), Paint::Plain),
            "22:14:06 GET /items/1  401  0.1 ms   gateway ✗ expired"
        );
        let absent = Record {
            verdict: "absent".to_owned(),
            reason: None,
            ..refused
        };
        assert!(line("x", &absent, &[], &order(), Paint::Plain).ends_with("gateway ✗ no token"));
    }

    #[test]
    fn a_hop_that_fails_says_so_and_the_ones_before_it_only_passed_it_on() {
        let hops = |c: u64, source: Option<&str>| {
            [
                record("a", c, 3.0, Some("b")),
                Record {
                    source: source.map(str::to_owned),
                    ..record("b", c, 2.0, None)
                },
            ]
        };
        let ends = |gateway: u64, hops: &[Record], end: &str| {
            let gateway = record("gateway", gateway, 4.0, Some("a"));
            let shown = line("x", &gateway, hops, &order(), Paint::Plain);
            assert!(shown.ends_with(end), "{shown}");
        };
        ends(
            503,
            &hops(503, None),
            "gateway ✓  a ✓ 1.0  b ✗ 503 service unavailable  client:demo",
        );
        ends(
            404,
            &hops(404, Some("database")),
            "a ✓ 1.0  b ✓ database 2.0  client:demo",
        );
        let odd = [record("a", 415, 3.0, None)];
        ends(415, &odd, "a ✗ 415 unsupported media type  client:demo");
        // b never answered, so what failed is a's call of it.
        ends(504, &hops(504, None)[..1], "a ✗ 504 gateway timeout  client:demo");
    }

    async fn trails(records: Vec<Record>) -> Vec<(String, Vec<String>)> {
        let (sender, receiver) = mpsc::channel(16);
        let mut shown = Vec::new();
        let send = async move {
            for record in records {
                sender.send(record).await.unwrap();
            }
        };
        let show = |gateway: &Record, hops: &[Record]| {
            shown.push((
                gateway.trace_id.clone(),
                hops.iter().map(|hop| hop.hop.clone()).collect(),
            ));
        };
        tokio::join!(send, follow(receiver, show));
        shown
    }

    #[test]
    fn a_route_that_asks_for_no_token_lets_it_be_missing() {
        let absent = |hop: &str| Record {
            verdict: "absent".to_owned(),
            caller: None,
            ..record(hop, 401, 0.5, Some("b"))
        };
        let hops = [Record {
            reason: Some("no token".to_owned()),
            ..absent("a")
        }];
        assert_eq!(
            line("x", &absent("gateway"), &hops, &order(), Paint::Plain),
            "x GET /items/1  401  0.5 ms   gateway no token  a ✗ no token"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn hops_that_speak_after_the_gateway_are_waited_for() {
        let records = vec![
            record("b", 200, 1.0, None),
            record("gateway", 200, 3.0, Some("a")),
            record("a", 200, 2.0, Some("b")),
        ];
        assert_eq!(
            trails(records).await,
            [("t".to_owned(), vec!["b".to_owned(), "a".to_owned()])]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_shown_at_once_and_names_no_upstream() {
        let refused = Record {
            verdict: "absent".to_owned(),
            trace_id: "refused".to_owned(),
            ..record("gateway", 401, 0.1, Some("a"))
        };
        let shown = line("x", &refused, &[], &order(), Paint::Plain);
        assert!(!shown.contains("->"), "{shown}");
        let records = vec![
            refused,
            record("a", 200, 1.0, None),
            record("gateway", 200, 2.0, Some("a")),
        ];
        let order: Vec<String> = trails(records)
            .await
            .into_iter()
            .map(|(trace, _)| trace)
            .collect();
        assert_eq!(order, ["refused", "t"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hop_that_never_speaks_keeps_no_line_back() {
        let (sender, receiver) = mpsc::channel(16);
        let mut shown = 0;
        sender.send(record("gateway", 504, 3.0, Some("a"))).await.unwrap();
        let follow = follow(receiver, |_, _| shown += 1);
        let ended = tokio::time::timeout(LATE_BY * 2, follow).await;
        assert!(ended.is_err(), "events have not ended");
        drop(sender);
        assert_eq!(shown, 1);
    }
}
