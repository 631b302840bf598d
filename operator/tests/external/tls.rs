//! Keys over TLS, with a certificate authority of the issuer's own: a server that cannot prove who it is gets no request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use servicechain_operator::key_controller::state::IssuerProblem;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::chain::{Chain, Verdict};
use super::provider::{Provider, jwk, new_key};

// `certificates/make.sh` makes them.
const AUTHORITY: &str = include_str!("certificates/authority.pem");
const STRANGER: &str = include_str!("certificates/stranger.pem");
const GOOD: &str = include_str!("certificates/good.pem");
const MISNAMED: &str = include_str!("certificates/misnamed.pem");
const EXPIRED: &str = include_str!("certificates/expired.pem");
const KEY: &str = include_str!("certificates/server.key");

/// An issuer with this certificate, whose one key is `key`.
struct Server {
    url: String,
    /// How often it was asked for anything.
    asked: Arc<AtomicUsize>,
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Server {
    async fn start(certificate: &str, key: &Value) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap(),
            );
        let tls = Tls {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config.unwrap())),
        };
        let url = format!("https://{}", tls.listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = |document: Value| {
            let asked = Arc::clone(&asked);
            get(async move || {
                asked.fetch_add(1, Ordering::SeqCst);
                Json(document)
            })
        };
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let router = Router::new()
            .route("/.well-known/openid-configuration", answer(discovery))
            .route("/keys", answer(json!({"keys": [key]})));
        tokio::spawn(async move { axum::serve(tls, router).await });
        Self { url, asked }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A chain that trusts the issuer at `url`, whose server `authority` vouches for.
async fn chain(url: &str, authority: &str) -> Chain {
    let authority = BTreeMap::from([("ca.crt".to_owned(), authority.to_owned())]);
    let authority_of = json!({"configMapKeyRef": {"name": "corp-ca", "key": "ca.crt"}});
    let corp = json!({"external": {"url": url, "caBundle": authority_of, "refreshInterval": "24h"}});
    Chain::start_with(&[("corp", corp)], &Arc::new(Mutex::new(authority))).await
}

#[tokio::test]
async fn keys_are_fetched_from_a_server_that_the_given_authority_vouches_for() {
    let key = new_key();
    let server = Server::start(GOOD, &jwk(&key)).await;
    for authorities in [AUTHORITY.to_owned(), [STRANGER, AUTHORITY].concat()] {
        let chain = chain(&server.url, &authorities).await;
        chain.await_passes(&chain.token(&server.url, &key)).await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_asked_nothing_and_named() {
    for (certificate, authority, says) in [
        (
            GOOD,
            STRANGER,
            "its certificate is signed by an authority that is not trusted; give the issuer that authority as caBundle",
        ),
        (
            MISNAMED,
            AUTHORITY,
            "its certificate is not for the host of its URL; use the name that is in the certificate",
        ),
        (EXPIRED, AUTHORITY, "its certificate has expired; renew it"),
    ] {
        let key = new_key();
        let server = Server::start(certificate, &jwk(&key)).await;
        let chain = chain(&server.url, authority).await;
        let token = chain.token(&server.url, &key);
        assert_eq!(chain.present(&token).await, [Verdict::Unavailable; 2], "{says}");
        let standing = chain
            .await_standing("corp", says, |standing| standing.problem.is_some())
            .await;
        assert_eq!(standing.problem, Some(IssuerProblem::NotFetched(says.to_owned())));
        assert_eq!(server.asked.load(Ordering::SeqCst), 0, "{says}");
    }
}

#[tokio::test]
async fn a_server_without_tls_and_an_authority_that_is_none_are_named() {
    let plain = Provider::start().await;
    let url = plain.url.replace("http:", "https:");
    for (authority, says) in [
        (AUTHORITY, "its certificate is not accepted, or it speaks no TLS"),
        ("no PEM", "its caBundle holds no certificate in PEM"),
    ] {
        let chain = chain(&url, authority).await;
        let standing = chain
            .await_standing("corp", says, |standing| standing.problem.is_some())
            .await;
        assert_eq!(standing.problem, Some(IssuerProblem::NotFetched(says.to_owned())));
    }
    assert_eq!(plain.asked(), 0);
}
