//! The knock port (key protocol, line 15), on every replica of the operator: verifiers say that they started, or met a
//! key that they do not know. A leader answers with the newest generation, anybody else names the leader. What is not
//! sealed with a workload's key costs one MAC and nothing more.

mod limits;
mod places;
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
use servicechain_keys::{AckKey, ChainId, Fetched, Knock, KnockAnswer, KnockReason, Mac};
use tokio::time::Instant;

use super::chain_of;
use super::chains::{KeyChains, Seat};
use super::roots::Roots;
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
    chains: Chains,
    lease: LeaseState,
    limits: Limits,
}

/// Whose chains' verifiers knock here.
enum Chains {
    OfCluster(KeyChains),
    /// The one chain of this machine.
    One {
        roots: Roots,
        seat: Arc<Seat>,
    },
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
        Self::of(Chains::OfCluster(chains), lease)
    }

    /// For the one chain of this machine, which nobody else leads.
    pub(super) fn local(roots: Roots, seat: Arc<Seat>) -> Self {
        Self::of(Chains::One { roots, seat }, LeaseState::always_held())
    }

    fn of(chains: Chains, lease: LeaseState) -> Self {
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

    async fn answer(&self, knock: &Knock, roots: Roots) -> Result<Response, NoAnswer> {
        let key = &roots.ack_key(&knock.workload);
        let Shared {
            chains,
            lease,
            limits,
        } = &*self.0;
        if !limits.may_knock(&knock.chain, &knock.workload, &knock.pod) {
            return Err(NoAnswer::TooOften);
        }
        if !lease.is_surely_held() {
            return seal(knock, key, &not_the_leader(lease));
        }
        let seat = chains.seat(&knock.chain);
        let namespace = seat.map(|seat| Arc::clone(&seat.namespace));
        let _place = limits.take_place(namespace).ok_or(NoAnswer::Busy)?;
        let chain = knock.chain.as_str();
        let answered = async {
            let fetched = fetched(chains, knock).await;
            let (seat, witnessed) = testify(chains, knock).await?;
            Ok((fetched, seat, witnessed))
        };
        let (fetched, seat, witnessed) = tokio::time::timeout(ANSWER_TIMEOUT, answered)
            .await
            .unwrap_or(Err(NoAnswer::NotYet))?;
        // Somebody else may have begun to lead while this one read.
        if !lease.is_surely_held() {
            return seal(knock, key, &not_the_leader(lease));
        }
        let newest = witnessed.newest.generation();
        tracing::debug!(chain, pod = witnessed.pod.name, held = %knock.generation, %newest, "knock");
        let word = KnockAnswer {
            generation: Some(newest),
            fetched,
            leader: None,
        };
        let response = seal(knock, key, &word)?;
        if knock.generation < newest {
            push(&seat, roots, witnessed);
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
    let (knock, roots) = authentic(&port, &headers, &body).ok_or(NoAnswer::NotAuthentic)?;
    port.answer(&knock, roots).await
}

/// The MAC is checked before the chain or the pod is looked for: both are a stranger's word until then.
fn authentic(port: &KnockPort, headers: &HeaderMap, body: &Bytes) -> Option<(Knock, Roots)> {
    let mac: Mac = headers.get(MAC)?.to_str().ok()?.parse().ok()?;
    let claimed = Knock::claimed(body).ok()?;
    let roots = port.0.chains.roots_of(claimed.chain)?;
    let key = roots.ack_key(&claimed.workload);
    let knock = Knock::open(body, &mac, &key).ok()?;
    Some((knock, roots))
}

impl Chains {
    fn roots_of(&self, chain: ChainId) -> Option<Roots> {
        match self {
            Self::OfCluster(chains) => Some(chains.roots().of(chain)),
            Self::One { roots, .. } => (roots.chain == chain).then(|| roots.clone()),
        }
    }

    fn seat(&self, chain: &ChainId) -> Option<Arc<Seat>> {
        match self {
            Self::OfCluster(chains) => chains.seat(chain.as_str()),
            Self::One { seat, .. } => Some(Arc::clone(seat)),
        }
    }
}

/// What a fetch begun after the knock brought, once the newest bundle was decided with it: a verifier takes the newest
/// generation for the issuer's word.
async fn fetched(chains: &Chains, knock: &Knock) -> Option<Fetched> {
    let issuer = knock.issuer.as_deref();
    let issuer = issuer.filter(|_| knock.reason == KnockReason::UnknownKid)?;
    let seat = chains.seat(&knock.chain)?;
    let word = seat.external.ask(issuer).await?;
    if let (Fetched::New | Fetched::Same, Some(then)) = (word.fetched, word.decided_after) {
        seat.evidence.decided_after(then).await;
    }
    Some(word.fetched)
}

/// Looks until the knock can be answered, or for ever.
async fn testify(chains: &Chains, knock: &Knock) -> Result<(Arc<Seat>, Witnessed), NoAnswer> {
    let begun = Instant::now();
    loop {
        if let Some(seat) = chains.seat(&knock.chain) {
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
fn push(seat: &Arc<Seat>, roots: Roots, witnessed: Witnessed) {
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

fn not_the_leader(lease: &LeaseState) -> KnockAnswer {
    KnockAnswer {
        generation: None,
        fetched: None,
        leader: lease.leader_address(),
    }
}

fn seal(knock: &Knock, key: &AckKey, answer: &KnockAnswer) -> Result<Response, NoAnswer> {
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
        formatter
            .debug_struct("KnockPort")
            .field("lease", &self.0.lease)
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
