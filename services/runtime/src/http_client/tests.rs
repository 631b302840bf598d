//! The client against servers that behave as scripted, over loopback.

use std::sync::Mutex;

use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::Service as _;

use super::*;
use crate::request_id::RequestId;
use crate::trace_context::TraceContext;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server does with the next request that it has read whole.
#[derive(Clone, Copy)]
enum Does {
    Answer(&'static str),
    AnswerAndClose(&'static str),
    Close,
}

/// Follows its script over all connections, and tells the head of each request with its connection's number.
struct Scripted {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<(usize, String)>,
}

async fn scripted(script: &[Does]) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(Mutex::new(script.iter().rev().copied().collect::<Vec<_>>()));
    let (told, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(follow_script(stream, number, Arc::clone(&script), told.clone()));
        }
    });
    Scripted { address, requests }
}

async fn follow_script(
    mut stream: TcpStream,
    number: usize,
    script: Arc<Mutex<Vec<Does>>>,
    told: mpsc::UnboundedSender<(usize, String)>,
) {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let Ok(count @ 1..) = stream.read(&mut chunk).await else {
            return;
        };
        text.extend_from_slice(&chunk[..count]);
        if !text.ends_with(b"\r\n\r\n") {
            continue;
        }
        let _ = told.send((number, String::from_utf8(std::mem::take(&mut text)).unwrap()));
        let does = script.lock().unwrap().pop();
        match does {
            Some(Does::Answer(answer)) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Some(Does::AnswerAndClose(answer)) => return stream.write_all(answer.as_bytes()).await.unwrap(),
            Some(Does::Close) => return,
            None => std::future::pending().await,
        }
    }
}

fn client(addresses: &[SocketAddr]) -> Client {
    Client::through(
        "b".into(),
        Resolver::fixed(&"http://b:8080".parse().unwrap(), addresses),
        TIMEOUT,
    )
}

fn request(method: Method) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri("/items/1?x=y")
        .body(Full::default())
        .unwrap()
}

async fn call(client: &mut Client, method: Method) -> Result<Bytes, CallError> {
    Ok(client
        .call(request(method))
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes())
}

#[tokio::test]
async fn id_trace_and_remaining_time_are_passed_on_and_the_name_is_the_host() {
    let mut server = scripted(&[Does::Answer(OK)]).await;
    let mut client = client(&[server.address]);
    let context = RequestContext {
        request_id: RequestId::from_headers(
            &HeaderMap::from_iter([(crate::request_id::X_REQUEST_ID, HeaderValue::from_static("r-1"))]),
            std::time::UNIX_EPOCH,
        ),
        trace: TraceContext::start(false),
        deadline: Deadline::after(Duration::from_secs(2)),
    };
    let mut request = request(Method::GET);
    request.extensions_mut().insert(context.clone());
    client.call(request).await.unwrap();
    let (_, head) = server.requests.recv().await.unwrap();
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("GET /items/1?x=y HTTP/1.1"));
    let header = |name: &str| {
        head.split("\r\n")
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
    };
    assert_eq!(header("host: "), "b:8080");
    assert_eq!(header("x-request-id: "), "r-1");
    let left: u64 = header("servicechain-remaining-ms: ").parse().unwrap();
    assert!((1500..=2000).contains(&left), "{left}");
    let (trace, span) = header("traceparent: 00-").split_at(32);
    assert_eq!(trace, context.trace.trace_id().to_string());
    assert!(
        !span.contains(&context.trace.span_id().to_string()),
        "the call is a span of its own"
    );
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_has_been_read() {
    let mut server = scripted(&[Does::Answer(OK); 3]).await;
    let mut client = client(&[server.address]);
    for _ in 0..3 {
        assert_eq!(call(&mut client, Method::POST).await.unwrap(), "hi");
        assert_eq!(server.requests.recv().await.unwrap().0, 0);
    }
    let endpoints = client.resolver().endpoints();
    assert_eq!(endpoints.as_slice()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_pooled_connection_that_breaks_is_replaced_once_for_what_may_be_repeated() {
    for (method, repeats) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false)] {
        let mut server = scripted(&[Does::Answer(OK), Does::Close, Does::Answer(OK)]).await;
        let mut client = client(&[server.address]);
        call(&mut client, method.clone()).await.unwrap();
        let second = call(&mut client, method.clone()).await;
        assert_eq!(second.is_ok(), repeats, "{method} {second:?}");
        assert!(
            repeats || matches!(second, Err(CallError::Interrupted(_))),
            "{second:?}"
        );
        drop(client);
        let mut seen = Vec::new();
        while let Ok((number, _)) = server.requests.try_recv() {
            seen.push(number);
        }
        assert_eq!(seen, if repeats { vec![0, 0, 1] } else { vec![0, 0] }, "{method}");
    }
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_not_replaced() {
    let mut server = scripted(&[Does::Close, Does::Answer(OK)]).await;
    let mut client = client(&[server.address]);
    let error = call(&mut client, Method::GET).await.unwrap_err();
    assert!(matches!(error, CallError::Interrupted(_)), "{error:?}");
    assert!(!error.is_unsent());
    server.requests.recv().await.unwrap();
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_pooled_connection_closed_meanwhile_costs_no_request_its_answer() {
    let server = scripted(&[Does::AnswerAndClose(OK); 20]).await;
    let mut client = client(&[server.address]);
    for _ in 0..20 {
        call(&mut client, Method::PUT).await.unwrap();
    }
}

/// A port on which nobody listens: it was bound a moment ago, and the kernel does not give it out again at once.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn another_address_is_tried_when_one_refuses_even_for_what_may_not_be_repeated() {
    // Each call is on a new connection, and the client is told so: a POST on one that just closed may not be repeated.
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    let server = scripted(&[Does::AnswerAndClose(closing); 20]).await;
    let mut client = client(&[nobody().await, server.address]);
    for _ in 0..20 {
        assert_eq!(call(&mut client, Method::POST).await.unwrap(), "hi");
    }
}

#[tokio::test]
async fn a_call_that_nobody_takes_is_known_to_be_unsent() {
    let address = nobody().await;
    let error = call(&mut client(&[address]), Method::POST).await.unwrap_err();
    assert!(
        matches!(error, CallError::Connect { address: tried, .. } if tried == address),
        "{error:?}"
    );
    assert!(error.is_unsent());
    let error = call(&mut client(&[]), Method::POST).await.unwrap_err();
    assert!(
        matches!(error, CallError::Unresolved(_)) && error.is_unsent(),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_call_before_and_within_the_answer() {
    for script in [
        vec![],
        vec![Does::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh")],
    ] {
        let server = scripted(&script).await;
        let begun = Instant::now();
        let error = call(&mut client(&[server.address]), Method::GET)
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::DeadlinePassed(_)), "{error:?}");
        assert!(!error.is_unsent());
        assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    }
}

#[tokio::test]
async fn what_must_go_elsewhere_goes_to_another_address_or_nowhere() {
    let (first, mut second) = (scripted(&[]).await, scripted(&[Does::Answer(OK); 9]).await);
    let send = async |addresses: &[SocketAddr]| {
        let mut request = request(Method::GET);
        request.extensions_mut().insert(Elsewhere(first.address));
        client(addresses).call(request).await
    };
    for _ in 0..9 {
        let answer = send(&[first.address, second.address]).await.unwrap();
        assert_eq!(
            answer.extensions().get(),
            Some(&AnsweredBy(second.address)),
            "an answer says where it comes from"
        );
    }
    assert!(second.requests.try_recv().is_ok());
    let nowhere = send(&[first.address]).await.map(drop).unwrap_err();
    assert!(
        matches!(nowhere, CallError::NowhereElse(_)) && nowhere.is_unsent(),
        "{nowhere}"
    );
}
