//! A gateway's core before two addresses of one hop, each a server that answers in its own manner.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use servicechain_auth::specimen::Specimen;
use servicechain_auth::{Hop, Verifier};
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::upstream::Resolver;
use tokio_util::sync::CancellationToken;

use crate::app::{Gateway, Worker};
use crate::config::Config;
use crate::forward::Upstream;
use crate::metrics::WorkerMetrics;
use crate::open_requests::OpenRequests;
use crate::worker;

const CONFIG: &str = "
hop: {name: gateway}
routes:
- {name: items, upstream: \"http://a:80\", service: a}
";
const HONEST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
/// Of a verifier that judged by the first generation, which is what the gateway holds.
const LYING: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n\
    servicechain-verdict: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// One core, and how often each address was asked.
struct Chain {
    specimen: Arc<Specimen>,
    gateway: SocketAddr,
    metrics: Arc<WorkerMetrics>,
    asked: Vec<Arc<AtomicUsize>>,
    stop: CancellationToken,
}

impl Chain {
    /// With one address for each of `answers`; `then` is called before an address answers.
    fn new(answers: &[&'static str], then: impl Fn(&Specimen, &Verifier) + Send + Sync + 'static) -> Self {
        let specimen = Arc::new(Specimen::new());
        let verifier = Verifier::new(specimen.config(Hop::new("gateway")));
        verifier.hold(specimen.sign(&specimen.bundle()));
        let then = Arc::new({
            let (specimen, verifier) = (Arc::clone(&specimen), Arc::clone(&verifier));
            move || then(&specimen, &verifier)
        });
        let (mut addresses, mut asked) = (Vec::new(), Vec::new());
        for &answer in answers {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.push(listener.local_addr().unwrap());
            let count = Arc::<AtomicUsize>::default();
            asked.push(Arc::clone(&count));
            let then = Arc::clone(&then);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    serve(stream.unwrap(), answer, &count, &*then);
                }
            });
        }
        let config = Config::from_yaml(CONFIG).unwrap();
        let gateway = Arc::new(Gateway {
            routes: config.route_table(),
            upstreams: vec![Upstream {
                resolver: Resolver::fixed(&config.routes[0].upstream, &addresses),
                service: "a".to_owned(),
            }],
            verifier,
            lifecycle: Lifecycle::new(Duration::ZERO, Duration::ZERO),
            config,
        });
        let metrics = Arc::new(WorkerMetrics::new(1));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (until, counted) = (stop.clone(), Arc::clone(&metrics));
        std::thread::spawn(move || {
            worker::serve(listener, &until, || Worker {
                gateway,
                pool: Rc::default(),
                metrics: counted,
                open_requests: OpenRequests::default(),
                via: [const { HeaderValue::from_static("1.1 gateway") }; 2],
            })
            .unwrap();
        });
        Self {
            specimen,
            gateway: address,
            metrics,
            asked,
            stop,
        }
    }

    /// One request with a good token, as text.
    fn ask(&self, method: &str, lines_and_body: &str) -> String {
        let token = self.specimen.token();
        let mut stream = TcpStream::connect(self.gateway).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "{method} /items/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{lines_and_body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn asked(&self) -> Vec<usize> {
        self.asked
            .iter()
            .map(|count| count.load(Ordering::SeqCst))
            .collect()
    }

    fn disagreements(&self) -> usize {
        let count = self.metrics.route(Some(0)).disagreements.get();
        usize::try_from(count).unwrap()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Reads one request, with as much of a body as it announces, and answers.
fn serve(mut stream: TcpStream, answer: &str, count: &AtomicUsize, then: &dyn Fn()) {
    let mut request = Vec::new();
    let has_come = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_lowercase();
        text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let announced = head
                .split_once("content-length: ")
                .map_or("0", |(_, rest)| rest.lines().next().unwrap_or_default());
            body.len() >= announced.parse().unwrap()
        })
    };
    while !has_come(&request) {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            return;
        }
        request.push(byte[0]);
    }
    count.fetch_add(1, Ordering::SeqCst);
    then();
    stream.write_all(answer.as_bytes()).unwrap();
}

fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1).unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("{answer:?}"))
}

fn assert_names_the_hop(answer: &str) {
    assert_eq!(status(answer), 503, "{answer}");
    for said in [
        "hop-refuses-good-token",
        r#""hop":"a""#,
        r#""fault":"Upstream""#,
        "retry-after: 1",
    ] {
        assert!(answer.contains(said), "{said} is missing in {answer}");
    }
    assert!(!answer.contains("www-authenticate"), "{answer}");
}

#[test]
fn one_lying_replica_costs_no_client_anything_and_is_counted() {
    let chain = Chain::new(&[LYING, HONEST], |_, _| ());
    // A POST without a body may be repeated as well: its 401 says that nothing was done.
    for (method, rest) in [("GET", "\r\n"), ("POST", "Content-Length: 0\r\n\r\n")].repeat(10) {
        let answer = chain.ask(method, rest);
        assert_eq!(status(&answer), 200, "{answer}");
    }
    let [lied, honest] = chain.asked()[..] else {
        panic!()
    };
    assert_eq!(honest, 20);
    assert!(lied > 0, "in twenty times it came first at least once");
    assert_eq!(chain.disagreements(), lied);
}

#[test]
fn a_second_refusal_of_a_good_token_is_a_503_that_names_the_hop() {
    let chain = Chain::new(&[LYING, LYING], |_, _| ());
    assert_names_the_hop(&chain.ask("GET", "\r\n"));
    assert_eq!(chain.asked(), [1, 1], "once elsewhere, and no more");
    assert_eq!(chain.disagreements(), 2);
}

#[test]
fn where_there_is_nobody_else_to_ask_the_answer_is_503_at_once() {
    let alone = Chain::new(&[LYING], |_, _| ());
    assert_names_the_hop(&alone.ask("GET", "\r\n"));
    assert_eq!((alone.asked(), alone.disagreements()), (vec![1], 1));

    // A body that went by cannot be sent again.
    let chain = Chain::new(&[LYING, LYING], |_, _| ());
    assert_names_the_hop(&chain.ask("PUT", "Content-Length: 2\r\n\r\n{}"));
    assert_eq!(
        (chain.asked().iter().sum::<usize>(), chain.disagreements()),
        (1, 1)
    );
}

#[test]
fn a_401_that_is_no_verdict_of_an_equal_is_the_clients_as_it_is() {
    let of_an_application = LYING.replace("servicechain-verdict: 1\r\n", "X-Own: 1\r\n");
    let newer = LYING.replace("servicechain-verdict: 1", "servicechain-verdict: 2");
    let odd = LYING.replace("servicechain-verdict: 1", "servicechain-verdict: x");
    for own in [of_an_application, newer, odd] {
        let chain = Chain::new(&[own.leak(), HONEST], |_, _| ());
        let answers: Vec<String> = (0..20).map(|_| chain.ask("GET", "\r\n")).collect();
        assert!(
            answers
                .iter()
                .all(|answer| !answer.contains("servicechain-verdict")),
            "{answers:?}"
        );
        let answers: Vec<u16> = answers.iter().map(|answer| status(answer)).collect();
        let refused = answers.iter().filter(|status| **status == 401).count();
        assert!(
            answers.iter().all(|status| [200, 401].contains(status)),
            "{answers:?}"
        );
        assert_eq!(chain.asked(), [refused, 20 - refused], "nothing was repeated");
        assert!(refused > 0);
        assert_eq!(chain.disagreements(), 0);
    }
}

#[test]
fn a_token_that_ended_meanwhile_is_refused_here_with_a_plain_401() {
    let expire = |specimen: &Specimen, _: &Verifier| specimen.advance(Duration::from_hours(1));
    // A newer bundle that refuses it ends the open request by itself.
    let chain = Chain::new(&[LYING], expire);
    let answer = chain.ask("GET", "\r\n");
    assert_eq!(status(&answer), 401, "{answer}");
    for said in [r#"Bearer error="invalid_token""#, r#""hop":"gateway""#] {
        assert!(answer.contains(said), "{said} is missing in {answer}");
    }
    assert_eq!((chain.asked(), chain.disagreements()), (vec![1], 0));
}
