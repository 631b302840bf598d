//! The pod's side of the key protocol, as an axum router for the keys port: bundles are pushed, the pod is polled, its
//! bundle is read (lines 13 and 14). Anyone may deliver; what is answered is authenticated by the workload's key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
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
use servicechain_keys::wire::{BUNDLE_PATH, KEYS_PATH, MAC, NONCE, POD_UID};
use servicechain_keys::{Answer, BundleRefusal, Nonce, NumericDate, Offer, Outcome};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::verifier::{Delivered, Verifier};

/// How long a push may wait for another to end, and how long its body may take to come.
const LONGEST_PUSH: Duration = Duration::from_secs(2);
/// A push that is not yet being taken when so many have come after it gives way. So what strangers send takes the
/// memory of so many bundles at most, and what they send slowly keeps no operator's push out.
const MOST_PUSHES: u64 = 16;
/// Proofs cost signatures, and anyone may ask. An answer beyond so many a second carries none: who needs them asks
/// again.
const MOST_PROVEN_A_SECOND: u32 = 10;

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
    router_of(Endpoint::new(verifier, None))
}

/// As [`router`], for an issuer pod.
pub fn router_with_offers(verifier: Arc<Verifier>, offers: Arc<dyn Offers>) -> Router {
    router_of(Endpoint::new(verifier, Some(offers)))
}

fn router_of(endpoint: Endpoint) -> Router {
    Router::new()
        .route(KEYS_PATH, get(poll).put(push))
        .route(BUNDLE_PATH, get(read))
        .with_state(Arc::new(endpoint))
}

struct Endpoint {
    verifier: Arc<Verifier>,
    offers: Option<Arc<dyn Offers>>,
    /// How many pushes have come.
    pushes: watch::Sender<u64>,
    /// One push is taken at a time.
    taking: Semaphore,
    /// The second that began then has had so many answers with proofs.
    proven: Mutex<(Instant, u32)>,
    /// Why what was delivered here was not taken.
    refused: Mutex<BTreeSet<BundleRefusal>>,
}

/// Why there is no authenticated answer.
enum NoAnswer {
    /// `Pod-Uid` or `Nonce` is missing or no such thing.
    BadRequest,
    /// This pod has no key to authenticate answers with.
    NoAckKey,
    /// Another push is still being taken, or later ones came instead.
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
    let (mut pushes, gives_way_at) = endpoint.count_push();
    let arrive = async {
        let read = tokio::time::timeout(LONGEST_PUSH, Limited::new(body, MAX_BUNDLE_BYTES).collect()).await;
        let read = read.map_err(|_| NoAnswer::Body)?;
        let turn = tokio::time::timeout(LONGEST_PUSH, endpoint.taking.acquire()).await;
        let turn = turn.map_err(|_| NoAnswer::Busy)?.map_err(|_| NoAnswer::Busy)?;
        Ok((read, turn))
    };
    let (read, _one_at_a_time) = tokio::select! {
        biased;
        arrived = arrive => arrived?,
        _ = pushes.wait_for(|pushes| *pushes >= gives_way_at) => return Err(NoAnswer::Busy),
    };
    let delivered = match read {
        Ok(body) => endpoint.verifier.deliver(body.to_bytes().to_vec()).await,
        Err(error) if error.is::<LengthLimitError>() => Delivered::refused(BundleRefusal::TooLarge),
        Err(_) => return Err(NoAnswer::Body),
    };
    endpoint.answer(&asked, delivered)
}

/// READ: an authority's word, so only from a pod that is one; unless it is asked by its own name. That is an operator
/// which looks for the newest bundle (line 11), and nobody may be confirmed before it has found it.
async fn read(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap) -> Response {
    let is_named = headers
        .get(POD_UID)
        .is_some_and(|pod| pod.as_bytes() == endpoint.verifier.config().pod.as_str().as_bytes());
    let held = endpoint
        .verifier
        .held()
        .filter(|_| is_named || endpoint.verifier.is_authority());
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
    fn new(verifier: Arc<Verifier>, offers: Option<Arc<dyn Offers>>) -> Self {
        Self {
            verifier,
            offers,
            pushes: watch::Sender::default(),
            taking: Semaphore::new(1),
            proven: Mutex::new((Instant::now(), 0)),
            refused: Mutex::default(),
        }
    }

    /// Counts this push, and says at which count it gives way.
    fn count_push(&self) -> (watch::Receiver<u64>, u64) {
        let mut own = 0;
        self.pushes.send_modify(|pushes| {
            *pushes += 1;
            own = *pushes;
        });
        (self.pushes.subscribe(), own + MOST_PUSHES)
    }

    /// Counts an answer with proofs, unless this second has had enough of them.
    fn may_prove(&self) -> bool {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.0.elapsed() >= Duration::from_secs(1) {
            *proven = (Instant::now(), 0);
        }
        proven.1 += 1;
        proven.1 <= MOST_PROVEN_A_SECOND
    }

    /// All reasons so far, with this one.
    fn refused(&self, reason: Option<BundleRefusal>) -> BTreeSet<BundleRefusal> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.extend(reason);
        refused.clone()
    }

    fn is_meant(&self, asked: &Asked) -> bool {
        self.verifier.config().pod.as_str() == asked.pod
    }

    fn answer(&self, asked: &Asked, delivered: Delivered) -> Result<Response, NoAnswer> {
        if delivered.outcome != Outcome::Refused {
            self.verifier.note_asked();
        }
        let config = self.verifier.config();
        let key = config.ack_key.as_ref().ok_or(NoAnswer::NoAckKey)?;
        let (held, durable) = self.verifier.held_durably();
        // Who means another pod has no use for what this one says of its keys.
        let issuer = self.offers.as_ref().filter(|_| self.is_meant(asked));
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
            offers: issuer
                .filter(|_| self.may_prove())
                .map(|issuer| issuer.offers(&asked.nonce))
                .unwrap_or_default(),
            stopped: issuer.map(|issuer| issuer.stopped()).unwrap_or_default(),
            refused: self.refused(delivered.reason),
            unconfirmed: self.verifier.is_ready() && !self.verifier.is_confirmed(),
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
