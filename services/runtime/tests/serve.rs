//! The server against raw clients: limits, and a drain under load.
#![cfg(test)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::listen;
use servicechain_runtime::serve::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const LIMITS: Limits = Limits {
    header_bytes: 4096,
    request_bytes: 1000,
    header_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(90),
};

struct Server {
    address: SocketAddr,
    lifecycle: Arc<Lifecycle>,
    ended: JoinHandle<std::io::Result<()>>,
}

fn start(router: Router, drain_delay: Duration, grace: Duration) -> Server {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let lifecycle = Lifecycle::new(drain_delay, grace);
    lifecycle.gate("server").open();
    let ended = tokio::spawn(serve(listener, router, Arc::clone(&lifecycle), LIMITS));
    Server {
        address,
        lifecycle,
        ended,
    }
}

fn plain() -> Server {
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/slow",
            get(async || tokio::time::sleep(Duration::from_secs(30)).await),
        )
        .route("/body", post(async |body: Bytes| body.len().to_string()));
    start(router, Duration::from_secs(5), Duration::from_secs(20))
}

/// One answer: status, whether the connection ends with it, body. `None` if the connection ended before.
async fn read_answer(stream: &mut TcpStream) -> Option<(u16, bool, String)> {
    let mut text = Vec::new();
    loop {
        if let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let lines = String::from_utf8(text[..head].to_vec())
                .unwrap()
                .to_ascii_lowercase();
            let length = lines
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if text.len() >= head + 4 + length {
                let status = lines[9..12].parse().unwrap();
                let closes = lines.contains("connection: close");
                return Some((
                    status,
                    closes,
                    String::from_utf8(text[head + 4..].to_vec()).unwrap(),
                ));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
        }
    }
}

async fn ask(server: &Server, request: &str) -> Option<(u16, bool, String)> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_mins(1), read_answer(&mut stream))
        .await
        .expect("an answer or an end in time")
}

async fn status(server: &Server, request: &str) -> u16 {
    ask(server, request).await.expect("an answer").0
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_ends_the_connection_after_the_header_timeout() {
    let server = plain();
    let (mut read, mut write) = TcpStream::connect(server.address).await.unwrap().into_split();
    let begun = Instant::now();
    let trickle = async {
        loop {
            let _ = write.write_all(b"a").await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let ended = tokio::select! { () = trickle => None, ended = read.read_u8() => ended.err() };
    assert!(ended.is_some(), "the server closes without an answer");
    assert!(
        begun.elapsed() < LIMITS.header_timeout + Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_given_ten_seconds_and_an_idle_connection_ninety() {
    let server = plain();
    for (sent, waits) in [("GET / HTT", LIMITS.header_timeout), ("", LIMITS.idle_timeout)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let begun = Instant::now();
        assert_eq!(read_answer(&mut stream).await, None);
        let took = begun.elapsed();
        assert!(
            took >= waits && took < waits + Duration::from_secs(1),
            "{sent:?} {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn between_requests_only_the_idle_timeout_counts() {
    let server = plain();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_answer(&mut stream).await, Some((200, false, "hello".into())));
        tokio::time::sleep(LIMITS.idle_timeout.mul_f32(0.9)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_longer_than_a_head() {
    let server = plain();
    assert_eq!(
        status(&server, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await,
        200
    );
}

#[tokio::test]
async fn oversized_heads_are_refused_with_431() {
    let server = plain();
    let long = "a".repeat(LIMITS.header_bytes);
    assert_eq!(
        status(
            &server,
            &format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n")
        )
        .await,
        431
    );
    let many = "x: y\r\n".repeat(200);
    assert_eq!(
        status(&server, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await,
        431
    );
    let endless = "b".repeat(1_000_000);
    // The server may answer and close while we still write.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let _ = stream
        .write_all(format!("GET / HTTP/1.1\r\nx: {endless}").as_bytes())
        .await;
    assert!(matches!(read_answer(&mut stream).await, None | Some((431, _, _))));
    let fits = "a".repeat(LIMITS.header_bytes - 100);
    assert_eq!(
        status(
            &server,
            &format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {fits}\r\n\r\n")
        )
        .await,
        200
    );
}

#[tokio::test]
async fn oversized_bodies_are_refused_with_413() {
    let server = plain();
    let declared = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n";
    let (status_of_declared, closes, problem) = ask(&server, declared).await.unwrap();
    assert_eq!((status_of_declared, closes), (413, true), "{problem}");
    assert!(problem.contains("at most 1000 bytes"), "{problem}");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001));
    let chunked = "POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(status(&server, &format!("{chunked}{chunk}")).await, 413);
    let fits = format!(
        "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{}",
        "a".repeat(1000)
    );
    assert_eq!(ask(&server, &fits).await, Some((200, false, "1000".into())));
}

#[tokio::test]
async fn who_sends_all_of_an_oversized_body_before_reading_is_told_413() {
    let server = plain();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = vec![b'a'; 10 * 1024 * 1024];
    let head = format!(
        "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let (status, closes, _) = read_answer(&mut stream).await.unwrap();
    assert_eq!((status, closes), (413, true));
}

#[tokio::test]
async fn malformed_requests_are_refused_with_400() {
    let server = plain();
    for malformed in [
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{1}\u{2}\u{3}\u{4}\r\n\r\n",
        "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /body HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        assert_eq!(status(&server, malformed).await, 400, "{malformed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_idle_connections_at_once_and_lets_requests_in_flight_finish() {
    let release = Arc::new(Notify::new());
    let waiting = Arc::clone(&release);
    let router = Router::new().route("/", get(async || "hello")).route(
        "/wait",
        get(async move || {
            waiting.notified().await;
            "done"
        }),
    );
    let server = start(router, Duration::from_secs(5), Duration::from_secs(20));
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_answer(&mut idle).await, Some((200, false, "hello".into())));
    let mut fresh = TcpStream::connect(server.address).await.unwrap();
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();

    server.lifecycle.drain();
    let begun = Instant::now();
    assert_eq!(
        ask(&server, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await,
        Some((200, true, "hello".into()))
    );
    assert_eq!(read_answer(&mut idle).await, None);
    assert_eq!(read_answer(&mut fresh).await, None);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err());
    release.notify_one();
    assert_eq!(read_answer(&mut busy).await, Some((200, true, "done".into())));
    server.ended.await.unwrap().unwrap();
    server.lifecycle.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_sent_nothing_yet_may_still_ask_once_when_the_server_closes() {
    let server = plain();
    let mut newcomer = TcpStream::connect(server.address).await.unwrap();
    server.lifecycle.drain();
    server.lifecycle.closing().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    newcomer
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        read_answer(&mut newcomer).await,
        Some((200, true, "hello".into()))
    );
    assert_eq!(read_answer(&mut newcomer).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up() {
    let server = plain();
    let begun = Instant::now();
    let half = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345";
    assert_eq!(status(&server, half).await, 400);
    assert_eq!(begun.elapsed().as_secs(), LIMITS.body_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_within_the_grace_is_dropped() {
    let router = Router::new().route("/", get(async || std::future::pending::<()>().await));
    let server = start(router, Duration::from_secs(5), Duration::from_secs(20));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    while server.lifecycle.held() == 0 {
        tokio::task::yield_now().await;
    }
    server.lifecycle.drain();
    let begun = Instant::now();
    assert_eq!(read_answer(&mut stream).await, None);
    server.ended.await.unwrap().unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn who_was_let_in_before_the_socket_closed_is_answered() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let lifecycle = Lifecycle::new(Duration::ZERO, Duration::from_secs(20));
    let _hold = lifecycle.hold();
    lifecycle.drain();
    lifecycle.closing().await;
    // The kernel takes the connection while nobody accepts.
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::spawn(serve(
        listener,
        Router::new().route("/", get(async || "hello")),
        lifecycle,
        LIMITS,
    ));
    assert_eq!(read_answer(&mut stream).await, Some((200, true, "hello".into())));
}

/// Clients that keep their connections and never repeat a request, in front of two servers. They go where a load
/// balancer sends them that asks for readiness ten times a second.
#[tokio::test]
async fn a_drain_under_load_fails_no_request_of_clients_that_never_retry() {
    const CLIENTS: usize = 32;
    let router = || {
        Router::new().route(
            "/",
            get(async || tokio::time::sleep(Duration::from_millis(1)).await),
        )
    };
    let (delay, grace) = (Duration::from_millis(400), Duration::from_secs(10));
    let (drained, other) = (start(router(), delay, grace), start(router(), delay, grace));
    let (sent_to, target) = watch::channel(drained.address);
    let (drained_lifecycle, other_address) = (Arc::clone(&drained.lifecycle), other.address);
    let balancer = tokio::spawn(async move {
        while drained_lifecycle.is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _ = sent_to.send(other_address);
        sent_to.closed().await;
    });
    let (answered, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let client = |target: watch::Receiver<SocketAddr>, answered: Arc<AtomicUsize>, told: Arc<AtomicUsize>| async move {
        let mut connection: Option<TcpStream> = None;
        loop {
            let mut stream = if let Some(stream) = connection.take() {
                stream
            } else {
                let address = *target.borrow();
                TcpStream::connect(address)
                    .await
                    .expect("what is balanced to takes connections")
            };
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .expect("the server reads");
            let (status, closes, _) = read_answer(&mut stream)
                .await
                .expect("an answer to every request");
            assert_eq!(status, 200);
            answered.fetch_add(1, Ordering::Relaxed);
            if closes {
                told.fetch_add(1, Ordering::Relaxed);
            } else {
                connection = Some(stream);
            }
            // Idle for longer than busy, as clients are: what ends an idle connection is then seen.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let stop = Arc::new(Notify::new());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let run = client(target.clone(), Arc::clone(&answered), Arc::clone(&told));
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                tokio::select! { () = run => (), () = stop.notified() => () }
            })
        })
        .collect();
    drop(target);
    let reaches = async |count: usize| {
        let goal = answered.load(Ordering::Relaxed) + count;
        while answered.load(Ordering::Relaxed) < goal && !clients.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let deadline = Duration::from_secs(30);
    tokio::time::timeout(deadline, reaches(500))
        .await
        .expect("load before the drain");
    drained.lifecycle.drain();
    tokio::time::timeout(deadline, drained.lifecycle.closed())
        .await
        .expect("the drain ends");
    tokio::time::timeout(deadline, reaches(500))
        .await
        .expect("load after the drain");
    stop.notify_waiters();
    for client in clients {
        client.await.expect("no client saw a failure");
    }
    balancer.await.unwrap();
    assert!(
        told.load(Ordering::Relaxed) >= CLIENTS,
        "each connection to the drained server was ended by an answer"
    );
}
