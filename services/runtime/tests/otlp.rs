//! The whole way of a span: request, bounded queue, collector. In a process of its own, since telemetry is global.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use http::HeaderMap;
use servicechain_runtime::spans::{self, Span, SpanKind};
use servicechain_runtime::telemetry::{self, TelemetryArgs};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Answers every export with 200 and hands on its head and body.
fn collect(listener: &TcpListener, exports: &Sender<(String, Vec<u8>)>) {
    for stream in listener.incoming() {
        let (exports, stream) = (exports.clone(), stream.unwrap());
        thread::spawn(move || while read_export(&stream, &exports).is_some() {});
    }
}

fn read_export(mut stream: &TcpStream, exports: &Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let lines = String::from_utf8(text[..head].to_vec())
                .unwrap()
                .to_ascii_lowercase();
            let length = lines
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if text.len() >= head + 4 + length.parse::<usize>().unwrap() {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .ok()?;
                return exports.send((lines, text[head + 4..].to_vec())).ok();
            }
        }
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn spans_reach_the_collector_with_the_ids_that_travel_and_a_dead_collector_stops_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (exports, received) = channel();
    thread::spawn(move || collect(&listener, &exports));
    let args = Flags::parse_from([
        "x",
        "--otlp-endpoint",
        &endpoint,
        "--trace-sampling-percent",
        "100",
        "--resource-attributes",
        "k8s.pod.name=shop-a-1",
    ]);
    let telemetry = telemetry::init(&args.telemetry, "item-service").unwrap();

    let mut request = Span::of_request(&HeaderMap::new(), "request");
    request.set("servicechain.hop", "a");
    let (trace_id, span_id) = (request.context().trace_id(), request.context().span_id());
    assert!(request.context().is_sampled());
    drop(Span::child_of(request.context(), "cache get", SpanKind::Internal));
    drop(request);

    let (head, body) = received.recv_timeout(Duration::from_secs(20)).expect("an export");
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    for part in [
        &b"item-service"[..],
        b"shop-a-1",
        b"cache get",
        b"servicechain.hop",
        &trace_id.to_bytes(),
    ] {
        assert!(
            contains(&body, part),
            "{} is missing",
            String::from_utf8_lossy(part)
        );
    }
    assert!(contains(&body, &span_id.to_bytes()));

    // The flags of a caller decide for its trace: this one is not sampled.
    let unsampled = HeaderMap::from_iter([(
        http::HeaderName::from_static("traceparent"),
        http::HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    )]);
    assert!(!Span::of_request(&unsampled, "request").is_recorded());

    // More than the queue holds: recording goes on at full speed and counts what is lost.
    let begun = Instant::now();
    for _ in 0..200_000 {
        drop(Span::of_request(&HeaderMap::new(), "burst"));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(spans::dropped() > 0);
    drop(telemetry);
}
