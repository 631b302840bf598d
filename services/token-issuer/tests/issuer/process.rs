//! The whole process over real sockets: not ready, pushed to, ready, asked, drained.

use std::net::SocketAddr;
use std::time::Duration;

use servicechain_auth::VerifierConfig;
use servicechain_keys::{Algorithm, Answer, KeyState, RootSecret};
use servicechain_runtime::clock::Clock;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::Listeners;
use servicechain_token_issuer::run;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::{NONCE, SECRET, TRUST_KEY, basic, bundle, config, entry, verifier_config};

const PATIENCE: Duration = Duration::from_secs(20);

async fn exchange(address: SocketAddr, request: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!("{request}\r\nhost: issuer\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    (
        String::from_utf8(answer[..end].to_vec()).unwrap(),
        answer[end + 4..].to_vec(),
    )
}

#[tokio::test]
async fn process_is_ready_once_its_key_is_active_then_issues_and_drains() {
    let state = tempfile::tempdir().unwrap();
    let base = verifier_config(&Clock::system());
    let ack_key = RootSecret::new([1; 32]).ack_key(&base.trust.chain, &base.workload);
    let (chain, pod) = (base.trust.chain.clone(), base.pod.clone());
    let verifier = VerifierConfig {
        ack_key: Some(ack_key.clone()),
        state_dir: Some(state.path().to_owned()),
        ..base
    };
    let listeners = Listeners::on_loopback().unwrap();
    let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap();
    let (main, admin, keys) = (
        address(&listeners.main),
        address(&listeners.admin),
        address(&listeners.keys),
    );
    let lifecycle = Lifecycle::new(Duration::ZERO, PATIENCE);
    let process = tokio::spawn(run(
        config(Algorithm::ES256),
        verifier,
        listeners,
        lifecycle.clone(),
    ));

    let asked = format!("pod-uid: {pod}\r\nnonce: {NONCE}");
    let (head, body) = exchange(keys, &format!("GET /keys/v1/keys HTTP/1.1\r\n{asked}"), b"").await;
    let mac = head
        .lines()
        .find_map(|line| line.strip_prefix("mac: "))
        .unwrap()
        .parse()
        .unwrap();
    let answer = Answer::open(&body, &mac, &ack_key, &NONCE, &pod).unwrap();
    let offered = answer
        .offers
        .iter()
        .map(|offer| offer.verify(Algorithm::ES256, &NONCE, &chain, &pod).unwrap());
    let entries = offered
        .zip([KeyState::Active, KeyState::Staged])
        .map(|(jwk, state)| entry(jwk, state))
        .collect();
    let says_why = async {
        loop {
            let (head, body) = exchange(admin, "GET /readyz HTTP/1.1", b"").await;
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            if String::from_utf8(body)
                .unwrap()
                .contains("signing key: this issuer has no key bundle yet")
            {
                break;
            }
        }
    };
    timeout(PATIENCE, says_why).await.unwrap();

    let signed = bundle(1, entries).sign(&TRUST_KEY).unwrap();
    let (head, _) = exchange(
        keys,
        &format!("PUT /keys/v1/keys HTTP/1.1\r\n{asked}"),
        signed.bytes(),
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    timeout(PATIENCE, lifecycle.ready()).await.unwrap();
    let (head, body) = exchange(keys, "GET /v1/bundle HTTP/1.1", b"").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, &signed.bytes()[..]);

    let authorization = basic("demo", SECRET);
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nauthorization: {authorization}\r\ncontent-type: application/x-www-form-urlencoded"
    );
    let (head, body) = exchange(main, &request, b"grant_type=client_credentials").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("access_token"));
    let (_, metrics) = exchange(admin, "GET /metrics HTTP/1.1", b"").await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("servicechain_issuer_token_requests_total{outcome=\"issued\"} 1"),
        "{metrics}"
    );

    lifecycle.drain();
    timeout(PATIENCE, process).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(main).await.is_err());
}

#[test]
fn wrong_configuration_ends_the_process_with_every_mistake() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let yaml =
        "{issuer: {name: P, url: x, algorithm: ES256, tokenLifetime: 15m, audiences: [shop]}, clients: []}";
    std::fs::write(file.path(), yaml).unwrap();
    let anchor = TRUST_KEY.anchor().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_servicechain-token-issuer"))
        .args([
            "--chain-uid",
            "chain",
            "--pod-uid",
            "pod-1",
            "--workload",
            "platform",
            "--trust-anchor",
            &anchor,
        ])
        .arg("--config")
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has 2 mistakes") && said.contains("issuer.name") && said.contains("issuer.url"),
        "{said}"
    );
}
