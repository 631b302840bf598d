//! The pod's side of the key protocol, as an axum router for the keys port: bundles are pushed, the pod is polled, its
//! bundle is read (lines 13 and 14). Anyone may deliver; what is answered is authenticated by the workload's key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use servicechain_keys::bundle::{MAX_BUNDLE_BYTES, VERSION};
use servicechain_keys::{Answer, BundleRefusal, Nonce, NumericDate, Offer, Outcome};
use tokio::sync::Semaphore;

use crate::verifier::knock::MAC;
use crate::verifier::{Delivered, Verifier};

const POD_UID: &str = "pod-uid";
const NONCE: &str = "nonce";
/// How long a push may wait for another to end, and how long its body may take to come.
const LONGEST_PUSH: Duration = Duration::from_secs(2);

/// What an issuer pod adds to its answers: the keys it made and the keys it signs with no more (lines 13 and 17).
pub trait Offers: Send + Sync {
    /// The living keys, each with a proof over this nonce.
    fn offers(&self, nonce: &Nonce) -> Vec<Offer>;

    /// By kid: when the last token that the key signed expires.
    fn stopped(&self) -> BTreeMap<String, NumericDate>;
}

/// `PUT` and `GET /keys/v1/keys`, `GET /v1/bundle`, for a pod that makes no keys. To be served on a port of its own.
///
/// ```
/// # let verifier = servicechain_auth::specimen::Specimen::new().verifier();
/// let keys_port: axum::Router = servicechain_auth::keys_endpoint::router(verifier);
/// # let _ = keys_port;
/// ```
pub fn router(verifier: Arc<Verifier>) -> Router {
    router_of(Endpoint {
        verifier,
        offers: None,
        pushes: Semaphore::new(1),
    })
}

/// As [`router`], for an issuer pod.
pub fn router_with_offers(verifier: Arc<Verifier>, offers: Arc<dyn Offers>) -> Router {
    router_of(Endpoint {
        verifier,
        offers: Some(offers),
        pushes: Semaphore::new(1),
    })
}

fn router_of(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/keys/v1/keys", get(poll).put(push))
        .route("/v1/bundle", get(read))
        .with_state(Arc::new(endpoint))
}

struct Endpoint {
    verifier: Arc<Verifier>,
    offers: Option<Arc<dyn Offers>>,
    /// One push is read and taken at a time: what strangers send takes the memory of one bundle at most.
    pushes: Semaphore,
}

/// Why there is no authenticated answer.
enum NoAnswer {
    /// `Pod-Uid` or `Nonce` is missing or no such thing.
    BadRequest,
    /// This pod has no key to authenticate answers with.
    NoAckKey,
    /// Another push is still coming in.
    Busy,
    /// The body did not come in time or was cut off.
    Body,
    /// The answer could not be written.
    Seal,
}

async fn poll(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap) -> Result<Response, NoAnswer> {
    let asked = Asked::of(&headers)?;
    let delivered = if endpoint.is_meant(&asked) {
        Delivered {
            outcome: Outcome::Unchanged,
            reason: None,
        }
    } else {
        Delivered::refused(BundleRefusal::WrongPod)
    };
    endpoint.answer(&asked, delivered)
}

async fn push(
    State(endpoint): State<Arc<Endpoint>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, NoAnswer> {
    let asked = Asked::of(&headers)?;
    if !endpoint.is_meant(&asked) {
        return endpoint.answer(&asked, Delivered::refused(BundleRefusal::WrongPod));
    }
    let take = async {
        let turn = tokio::time::timeout(LONGEST_PUSH, endpoint.pushes.acquire()).await;
        let _one_at_a_time = turn.map_err(|_| NoAnswer::Busy)?.map_err(|_| NoAnswer::Busy)?;
        let read = tokio::time::timeout(LONGEST_PUSH, Limited::new(body, MAX_BUNDLE_BYTES).collect()).await;
        match read.map_err(|_| NoAnswer::Body)? {
            Ok(body) => Ok(endpoint.verifier.deliver(body.to_bytes().to_vec()).await),
            Err(error) if error.is::<LengthLimitError>() => Ok(Delivered::refused(BundleRefusal::TooLarge)),
            Err(_) => Err(NoAnswer::Body),
        }
    };
    let delivered = take.await?;
    endpoint.answer(&asked, delivered)
}

/// READ: an authority's word, so only from a pod that is confirmed itself; unless it is asked by its own name. That is
/// an operator which looks for the newest bundle (line 11), and nobody may be confirmed before it has found it.
async fn read(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap) -> Response {
    let is_named = headers
        .get(POD_UID)
        .is_some_and(|pod| pod.as_bytes() == endpoint.verifier.config().pod.as_str().as_bytes());
    let held = endpoint
        .verifier
        .held()
        .filter(|_| is_named || endpoint.verifier.is_confirmed());
    let Some(held) = held else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(RETRY_AFTER, HeaderValue::from_static("1"))],
        )
            .into_response();
    };
    let tag = format!("\"{}\"", held.digest());
    let is_known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|known| known.as_bytes() == tag.as_bytes());
    let headers = [(ETAG, tag), (CONTENT_TYPE, "application/jose".to_owned())];
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, held.bytes().to_vec()).into_response()
}

/// Whom a message is for, and the nonce its answer must carry.
struct Asked {
    pod: String,
    nonce: Nonce,
}

impl Asked {
    fn of(headers: &HeaderMap) -> Result<Self, NoAnswer> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(value)
        };
        let pod = one(POD_UID).ok_or(NoAnswer::BadRequest)?.to_owned();
        let nonce = one(NONCE)
            .and_then(|nonce| nonce.parse().ok())
            .ok_or(NoAnswer::BadRequest)?;
        Ok(Self { pod, nonce })
    }
}

impl Endpoint {
    fn is_meant(&self, asked: &Asked) -> bool {
        self.verifier.config().pod.as_str() == asked.pod
    }

    fn answer(&self, asked: &Asked, delivered: Delivered) -> Result<Response, NoAnswer> {
        let config = self.verifier.config();
        let key = config.ack_key.as_ref().ok_or(NoAnswer::NoAckKey)?;
        let (held, durable) = self.verifier.held_durably();
        let answer = Answer {
            pod: config.pod.clone(),
            workload: config.workload.clone(),
            held,
            outcome: delivered.outcome,
            reason: delivered.reason,
            durable,
            now: self.verifier.now(),
            versions: vec![VERSION],
            anchors: config
                .trust
                .anchors
                .iter()
                .map(|anchor| anchor.kid().to_owned())
                .collect(),
            offers: self
                .offers
                .as_ref()
                .map(|offers| offers.offers(&asked.nonce))
                .unwrap_or_default(),
            stopped: self
                .offers
                .as_ref()
                .map(|offers| offers.stopped())
                .unwrap_or_default(),
        };
        let sealed = answer.seal(key, &asked.nonce).map_err(|_| NoAnswer::Seal)?;
        let status = match delivered.outcome {
            Outcome::Refused => StatusCode::CONFLICT,
            Outcome::Accepted | Outcome::Unchanged => StatusCode::OK,
        };
        let headers = [
            (CONTENT_TYPE.as_str(), "application/json"),
            (MAC, &sealed.mac.to_string()),
        ];
        Ok((status, headers, sealed.body).into_response())
    }
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::BadRequest => (
                StatusCode::BAD_REQUEST,
                "Send exactly one Pod-Uid and one Nonce (16 bytes, base64url).",
            ),
            Self::NoAckKey => (
                StatusCode::SERVICE_UNAVAILABLE,
                "This pod has no acknowledgement key to answer with.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Another bundle is being taken. Try again.",
            ),
            Self::Body => (
                StatusCode::REQUEST_TIMEOUT,
                "The bundle did not come whole and in time.",
            ),
            Self::Seal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The answer could not be written.",
            ),
        };
        (status, text).into_response()
    }
}
