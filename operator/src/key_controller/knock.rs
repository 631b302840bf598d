//! The knock port (key protocol, line 15), on every replica of the operator: verifiers say that they started, or met a
//! key that they do not know. A leader answers with the newest generation, anybody else names the leader. What is not
//! sealed with a workload's key costs one MAC and nothing more.

mod limits;
mod serve;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use servicechain_keys::knock::MAX_KNOCK_BYTES;
use servicechain_keys::wire::{KNOCK_PATH, MAC};
use servicechain_keys::{AckKey, Knock, KnockAnswer, Mac};
use tokio::time::Instant;

use super::chain_of;
use super::chains::{KeyChains, Seat};
use super::witness::{NotYet, Witnessed};
use crate::lease::LeaseState;
use limits::Limits;

pub use serve::serve;

/// A knock comes in one segment.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a knock waits for its answer. Whoever knocks hangs up after 0.95 s, and knocks again after a second.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// Between two looks at what is not yet so: a pod knocks before the API server shows that it runs.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What the knock port needs. Cheap to clone.
#[derive(Clone)]
pub struct KnockPort(Arc<Shared>);

struct Shared {
    chains: KeyChains,
    lease: LeaseState,
    limits: Limits,
}

/// Why a knock has no sealed answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("Send the knock within a second.")]
    Slow,
    #[error("A knock has at most {MAX_KNOCK_BYTES} bytes.")]
    TooLarge,
    #[error("This is no knock, or it is not sealed with the key of its workload.")]
    NotAuthentic,
    #[error("A pod knocks at most once a second.")]
    TooOften,
    #[error("Too many pods knock at this moment.")]
    Busy,
    /// For somebody who is authentic.
    #[error("The newest generation is not known yet.")]
    NotYet,
    #[error("The answer could not be sealed.")]
    Seal,
}

impl KnockPort {
    #[must_use]
    pub fn new(chains: KeyChains, lease: LeaseState) -> Self {
        Self(Arc::new(Shared {
            chains,
            lease,
            limits: Limits::default(),
        }))
    }

    /// `POST /v1/knock`.
    pub fn router(self) -> Router {
        Router::new().route(KNOCK_PATH, post(knock)).with_state(self)
    }

    async fn answer(&self, knock: &Knock, key: &AckKey) -> Result<Response, NoAnswer> {
        let Shared {
            chains,
            lease,
            limits,
        } = &*self.0;
        if !limits.may_knock(&knock.chain, &knock.pod) {
            return Err(NoAnswer::TooOften);
        }
        if !lease.is_surely_held() {
            return seal(knock, key, None, lease.leader_address());
        }
        let _place = limits.take_place().ok_or(NoAnswer::Busy)?;
        let chain = knock.chain.as_str();
        let (seat, witnessed) = tokio::time::timeout(ANSWER_TIMEOUT, testify(chains, knock))
            .await
            .unwrap_or(Err(NoAnswer::NotYet))?;
        // Somebody else may have begun to lead while this one read.
        if !lease.is_surely_held() {
            return seal(knock, key, None, lease.leader_address());
        }
        let newest = witnessed.newest.generation();
        tracing::debug!(chain, pod = witnessed.pod.name, held = %knock.generation, %newest, "knock");
        let response = seal(knock, key, Some(newest), None)?;
        if knock.generation < newest {
            push(&seat, chains, knock, witnessed);
        }
        seat.woken.notify_one();
        Ok(response)
    }
}

async fn knock(State(port): State<KnockPort>, headers: HeaderMap, body: Body) -> Result<Response, NoAnswer> {
    let read = Limited::new(body, MAX_KNOCK_BYTES).collect();
    let read = tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .map_err(|_| NoAnswer::Slow)?;
    let body = read
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                NoAnswer::TooLarge
            } else {
                NoAnswer::Slow
            }
        })?
        .to_bytes();
    let (knock, key) = authentic(&port, &headers, &body).ok_or(NoAnswer::NotAuthentic)?;
    port.answer(&knock, &key).await
}

/// The MAC is checked before the chain or the pod is looked for: both are a stranger's word until then.
fn authentic(port: &KnockPort, headers: &HeaderMap, body: &Bytes) -> Option<(Knock, AckKey)> {
    let mac: Mac = headers.get(MAC)?.to_str().ok()?.parse().ok()?;
    let claimed = Knock::claimed(body).ok()?;
    let roots = port.0.chains.roots().of(claimed.chain);
    let key = roots.ack_key(&claimed.workload);
    let knock = Knock::open(body, &mac, &key).ok()?;
    Some((knock, key))
}

/// Looks until the knock can be answered, or for ever.
async fn testify(chains: &KeyChains, knock: &Knock) -> Result<(Arc<Seat>, Witnessed), NoAnswer> {
    let begun = Instant::now();
    loop {
        if let Some(seat) = chains.seat(knock.chain.as_str()) {
            match seat.witness.testify(&knock.pod, &knock.workload).await {
                Ok(witnessed) => return Ok((seat, witnessed)),
                Err(not_yet) => {
                    let reason = chain_of(&not_yet);
                    tracing::debug!(chain = %knock.chain, pod = %knock.pod, reason, "a knock is not answered yet");
                    if !matches!(not_yet, NotYet::NotListed) {
                        // A round mends it.
                        seat.woken.notify_one();
                    }
                }
            }
        }
        if begun.elapsed() + LOOK_AGAIN >= ANSWER_TIMEOUT {
            return Err(NoAnswer::NotYet);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The pod waits for what it was told of. The round that follows asks everybody, and may take longer than it waits.
fn push(seat: &Arc<Seat>, chains: &KeyChains, knock: &Knock, witnessed: Witnessed) {
    let roots = chains.roots().of(knock.chain.clone());
    let seat = Arc::clone(seat);
    tokio::spawn(async move {
        let Witnessed { newest, pod } = witnessed;
        let bundle = Bytes::copy_from_slice(newest.bytes());
        // What it says to that counts for nothing: rounds ask by themselves.
        if let Err(error) = seat.messenger.ask(&roots, &pod, Some(bundle), None).await {
            tracing::debug!(pod = pod.name, error = %chain_of(&error), "a push after a knock failed");
        }
    });
}

fn seal(
    knock: &Knock,
    key: &AckKey,
    generation: Option<servicechain_keys::Generation>,
    leader: Option<String>,
) -> Result<Response, NoAnswer> {
    let answer = KnockAnswer {
        generation,
        fetched: None,
        leader,
    };
    let sealed = answer
        .seal(key, &knock.nonce, &knock.pod)
        .map_err(|_| NoAnswer::Seal)?;
    let headers = [
        (CONTENT_TYPE.as_str(), "application/json"),
        (MAC, &sealed.mac.to_string()),
    ];
    Ok((headers, sealed.body).into_response())
}

impl fmt::Debug for KnockPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { chains, lease, .. } = &*self.0;
        let mut shown = formatter.debug_struct("KnockPort");
        shown
            .field("chains", chains)
            .field("lease", lease)
            .finish_non_exhaustive()
    }
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAuthentic => StatusCode::FORBIDDEN,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::NotYet => StatusCode::SERVICE_UNAVAILABLE,
            Self::Seal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::debug!(%status, "{self}");
        (status, [(RETRY_AFTER, "1")], self.to_string()).into_response()
    }
}
