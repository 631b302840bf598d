//! The messages to pods (key protocol, lines 13 and 14): PUSH, POLL and READ over pooled HTTP/1.1 connections, each under
//! one timeout, each answer verified before anybody sees it. It must not decide what an answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use servicechain_keys::acknowledgement::{MAX_ANSWER_BYTES, NotAuthentic};
use servicechain_keys::bundle::MAX_BUNDLE_BYTES;
use servicechain_keys::rotation::Heard;
use servicechain_keys::wire::{BUNDLE_PATH, KEYS_PATH, MAC, NONCE, POD_UID};
use servicechain_keys::{Algorithm, Answer, BundleRefusal, ChainId, HeldBundle, Mac, Nonce};

use super::Pod;
use super::roots::Roots;
use super::trust_keys::TrustKeys;

/// For a whole exchange. A pod that takes longer is asked again in the next round.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than the pause between polls, so that a quiet chain keeps its connections.
const IDLE: Duration = Duration::from_secs(90);

/// Why a pod was not heard.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    #[error("it has no address yet")]
    NoAddress,
    #[error("its address is not one")]
    Address(#[from] http::Error),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("the connection failed")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("the answer carries no MAC")]
    NoMac,
    #[error("the answer is not authentic")]
    NotAuthentic(#[from] NotAuthentic),
}

impl Unheard {
    /// Somebody answered who does not have the pod's key, or not for this question.
    pub(super) const fn is_not_believed(&self) -> bool {
        matches!(self, Self::NoMac | Self::NotAuthentic(_))
    }
}

/// What a pod's bundle turned out to be.
pub(super) enum ReadBundle {
    Authentic(Arc<HeldBundle>),
    Refuted(BundleRefusal),
}

#[derive(Debug)]
pub(super) struct Messenger {
    client: Client<HttpConnector, Full<Bytes>>,
    chain: ChainId,
    trust_keys: TrustKeys,
}

impl Messenger {
    pub(super) fn new(roots: &Roots) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            chain: roots.chain.clone(),
            trust_keys: roots.trust_keys.clone(),
        }
    }

    /// PUSH where there is a bundle to push, else POLL. `issuer` is the algorithm of the issuer that controls the pod.
    pub(super) async fn ask(
        &self,
        roots: &Roots,
        pod: &Pod,
        push: Option<Bytes>,
        issuer: Option<Algorithm>,
    ) -> Result<Heard, Unheard> {
        let nonce = Nonce::new(rand::random());
        let method = if push.is_some() { Method::PUT } else { Method::GET };
        let request = Request::builder()
            .method(method)
            .uri(uri(pod, KEYS_PATH)?)
            .header(POD_UID, pod.listed.pod.as_str())
            .header(NONCE, nonce.to_string())
            .body(Full::new(push.unwrap_or_default()))?;
        let (response, body) = self.exchange(request, MAX_ANSWER_BYTES).await?;
        if !matches!(response.status, StatusCode::OK | StatusCode::CONFLICT) {
            return Err(Unheard::Status(response.status));
        }
        let mac = response.headers.get(MAC).and_then(|mac| mac.to_str().ok());
        let mac: Mac = mac.and_then(|mac| mac.parse().ok()).ok_or(Unheard::NoMac)?;
        let key = roots.ack_key(&pod.workload);
        let answer = Answer::open(&body, &mac, &key, &nonce, &pod.listed.pod)?;
        Ok(Heard::new(answer, issuer, &nonce, &roots.chain))
    }

    /// READ for adoption: the bundle that the pod says it holds.
    pub(super) async fn read(&self, pod: &Pod) -> Result<ReadBundle, Unheard> {
        let request = Request::builder()
            .uri(uri(pod, BUNDLE_PATH)?)
            .header(POD_UID, pod.listed.pod.as_str())
            .body(Full::default())?;
        let (response, body) = self.exchange(request, MAX_BUNDLE_BYTES).await?;
        if response.status != StatusCode::OK {
            return Err(Unheard::Status(response.status));
        }
        Ok(match self.open(&body) {
            Ok(bundle) => ReadBundle::Authentic(Arc::new(bundle)),
            Err(refusal) => ReadBundle::Refuted(refusal),
        })
    }

    pub(super) fn open(&self, bytes: &[u8]) -> Result<HeldBundle, BundleRefusal> {
        HeldBundle::open(bytes, &self.trust_keys.trust(self.chain.clone()))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(http::response::Parts, Bytes), Unheard> {
        let exchange = async {
            let response: Response<Incoming> = self.client.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(Unheard::Body)?;
            Ok((parts, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or(Err(Unheard::Timeout))
    }
}

fn uri(pod: &Pod, path: &str) -> Result<String, Unheard> {
    let address = pod.keys_address.as_ref().ok_or(Unheard::NoAddress)?;
    Ok(format!("http://{address}{path}"))
}
