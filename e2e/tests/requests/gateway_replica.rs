//! A gateway replica that ends while clients use it: drained, nobody notices; killed, only who was inside.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use servicechain_e2e::balancer::{Balancer, Reconnects, Replica};
use servicechain_e2e::client::{Connection, request};
use servicechain_e2e::process::Process;
use servicechain_e2e::running::{DrainTimes, START, gateway, upstream};
use servicechain_e2e::{Keys, Running};
use servicechain_fixtures::await_condition;
use tokio::task::JoinHandle;

const CLIENTS: usize = 16;
/// What a client waits before it repeats a request that failed.
const BEFORE_REPEATING: Duration = Duration::from_millis(50);

fn gateway_yaml(upstream: SocketAddr) -> String {
    format!(
        "hop: {{name: gateway}}\nworkers: 1\nroutes:\n- {{name: items, pathPrefix: /, upstream: \"http://{upstream}\", service: a}}\n"
    )
}

/// Takes its time, so that requests are inside the gateway when it ends.
async fn slow_upstream() -> Running {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        "hello"
    };
    upstream(Router::new().fallback(get(slow))).await.unwrap()
}

/// Clients that keep their connections and ask one request after the other.
struct Load {
    answered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    /// Requests that failed twice in a row.
    failed_again: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr, token: &str) -> Self {
        let [answered, failed, failed_again] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let bearer = format!("Bearer {token}");
        let ask = Arc::new(request("GET", "/items/1", &[("authorization", &bearer)], ""));
        let clients = (0..CLIENTS)
            .map(|_| {
                let (answered, failed, failed_again) = (
                    Arc::clone(&answered),
                    Arc::clone(&failed),
                    Arc::clone(&failed_again),
                );
                let (stop, ask) = (Arc::clone(&stop), Arc::clone(&ask));
                tokio::spawn(async move {
                    let mut connection = None;
                    let mut failures = Vec::new();
                    let mut failed_before = false;
                    while !stop.load(Ordering::Relaxed) {
                        match once(&mut connection, address, &ask).await {
                            Ok(()) => {
                                answered.fetch_add(1, Ordering::Relaxed);
                                failed_before = false;
                            }
                            Err(failure) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                failed_again.fetch_add(usize::from(failed_before), Ordering::Relaxed);
                                failed_before = true;
                                failures.push(failure);
                                // A killed process takes a moment to die, in which its socket still lets in.
                                tokio::time::sleep(BEFORE_REPEATING).await;
                            }
                        }
                    }
                    failures
                })
            })
            .collect();
        Self {
            answered,
            failed,
            failed_again,
            stop,
            clients,
        }
    }

    async fn answers(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        let reached = await_condition("answers", START, async || {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= goal {
                Ok(())
            } else {
                Err(format!("{answered} of {goal}"))
            }
        });
        reached.await.unwrap();
    }

    /// Stops and returns what failed.
    async fn stop(&mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients.drain(..) {
            failures.extend(client.await.unwrap());
        }
        failures
    }
}

/// One request, on the connection kept from the last one if it may be used again.
async fn once(connection: &mut Option<Connection>, address: SocketAddr, ask: &[u8]) -> Result<(), String> {
    let mut current = match connection.take() {
        Some(current) => current,
        None => Connection::open(address)
            .await
            .map_err(|error| format!("{error:#}"))?,
    };
    let answer = current.ask(ask).await.map_err(|error| format!("{error:#}"))?;
    if answer
        .header("connection")
        .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
    {
        *connection = Some(current);
    }
    if answer.status == 200 && answer.body == b"hello" {
        Ok(())
    } else {
        Err(answer.head)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_is_drained_without_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    let bundle = keys.write_bundle(folder.path()).unwrap();
    let upstream = slow_upstream().await;
    let yaml = gateway_yaml(upstream.address);
    let verifier = keys.verifier("gateway", &bundle).unwrap();
    let drained = gateway(&yaml, verifier.clone(), DrainTimes::default())
        .await
        .unwrap();
    let other = gateway(&yaml, verifier, DrainTimes::default()).await.unwrap();
    let replicas = [&drained, &other].map(|running| Replica {
        address: running.address,
        admin: running.admin,
    });
    let balancer = Balancer::start(&replicas, Reconnects::Never, folder.path())
        .await
        .unwrap();

    let mut load = Load::start(balancer.address, &keys.token("alice"));
    load.answers(200).await;
    let bearer = format!("Bearer {}", keys.token("bob"));
    let ask = request("GET", "/items/1", &[("authorization", &bearer)], "");
    let mut kept = Connection::open(drained.address).await.unwrap();
    assert_eq!(kept.ask(&ask).await.unwrap().header("connection"), None);
    drained.lifecycle.drain();
    // A client that stays, and one that has not noticed yet, are answered and told to go.
    for connection in [&mut kept, &mut Connection::open(drained.address).await.unwrap()] {
        let answer = connection.ask(&ask).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("close")),
            "{}",
            answer.head
        );
    }
    load.answers(100).await;
    drained.ended().await.unwrap();
    load.answers(200).await;

    let failures = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "\n{}", balancer.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_fails_only_if_it_was_inside_a_killed_replica_and_succeeds_when_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    let bundle = keys.write_bundle(folder.path()).unwrap();
    let upstream = slow_upstream().await;
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, gateway_yaml(upstream.address)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_gateway_replica"));
    let start = || {
        let ports = [(); 3].map(|()| free_port());
        let mut args = keys.verifier_flags("gateway", &bundle);
        args.push(format!("--config={}", file.display()));
        args.push("--listen-address=127.0.0.1".to_owned());
        for (flag, port) in ["--port", "--admin-port", "--keys-port"].iter().zip(ports) {
            args.push(format!("{flag}={port}"));
        }
        let process = Process::start(program, &args, folder.path()).unwrap();
        let [address, admin] = [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        (process, Replica { address, admin })
    };
    let (killed, other) = (start(), start());
    for (process, replica) in [&killed, &other] {
        let ready = await_condition("a gateway process to be ready", START, async || {
            match servicechain_e2e::client::get(replica.admin, "/readyz", None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.head),
                Err(error) => Err(format!("{error:#}\n{}", process.log())),
            }
        });
        ready.await.unwrap();
    }
    let balancer = Balancer::start(&[killed.1, other.1], Reconnects::Elsewhere, folder.path())
        .await
        .unwrap();

    let mut load = Load::start(balancer.address, &keys.token("alice"));
    load.answers(200).await;
    killed.0.signal("KILL").unwrap();
    load.answers(400).await;

    let failures = load.stop().await;
    assert!(
        !failures.is_empty(),
        "nothing was inside the killed replica: the test shows nothing"
    );
    assert!(
        failures.len() <= CLIENTS,
        "more failed than can have been inside: {failures:#?}"
    );
    // HAProxy says 502, or ends a connection that had been used before, so that the client may repeat.
    let broken = |failure: &String| failure.contains(" 502 ") || failure.contains("the connection ended");
    assert!(failures.iter().all(broken), "{failures:#?}");
    assert_eq!(load.failed.load(Ordering::Relaxed), failures.len());
    assert_eq!(
        load.failed_again.load(Ordering::Relaxed),
        0,
        "a repeated request failed: {failures:#?}"
    );
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
