//! Calls the next hop with the caller's token, what is left of the deadline, and the trace. What it answers is read
//! within bounds; what it refuses is told apart by whose fault it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Map, Value};
use servicechain_auth::propagate_token::PropagateToken;
use servicechain_auth::{Caller, PropagateTokenLayer, Rejected, SecondOpinion, Verifier};
use servicechain_runtime::access::AccessNotes;
use servicechain_runtime::deadline::Deadline;
use servicechain_runtime::http_client::{AnsweredBy, CallError, Client, Elsewhere};
use servicechain_runtime::request_context::RequestContext;
use servicechain_runtime::upstream::{Resolver, UpstreamUrl};
use tower::{Layer as _, ServiceExt as _};

use crate::item::ItemId;
use crate::metrics::ItemMetrics;
use crate::reply::{HopReply, InvalidReply, MAX_REPLY_BYTES, Reply};

/// A name that takes longer is no name of a hop.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(500);

/// The hop after this one. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(crate) struct NextHop {
    client: PropagateToken<Client>,
    resolver: Arc<Resolver>,
    name: Arc<str>,
    verifier: Arc<Verifier>,
    metrics: ItemMetrics,
}

/// Why the next hop gave no reply. Each variant knows what its client is told.
#[derive(Debug)]
pub(crate) enum NextHopError {
    /// It could not be reached, or broke off.
    Unreachable(CallError),
    /// It did not answer before the deadline.
    Slow,
    /// Its own problem, or that of a hop behind it, passed on as it is.
    Problem(Box<PassedOn>),
    /// Two of its addresses refuse a token that is still good here, or there is only one: its keys or its clock are not
    /// what they should be.
    RefusesGoodToken,
    /// The token has ended meanwhile, here too.
    TokenEnded(Rejected),
    /// What it sent is no answer of a hop.
    Unusable(Unusable),
}

/// A problem of a hop further on.
#[derive(Debug)]
pub(crate) struct PassedOn {
    pub(crate) status: StatusCode,
    pub(crate) members: Map<String, Value>,
    /// `Retry-After` and `WWW-Authenticate`, if it had them.
    pub(crate) headers: HeaderMap,
}

/// What is wrong with an answer, for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("status {0} and no problem that says why")]
    Status(StatusCode),
    #[error("its body is above {MAX_REPLY_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Reply(#[from] InvalidReply),
}

struct Answer {
    from: Option<AnsweredBy>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl NextHop {
    /// Must be called within a tokio runtime, which then keeps the name resolved.
    pub(crate) fn new(
        name: &str,
        url: &UpstreamUrl,
        timeout: Duration,
        verifier: Arc<Verifier>,
        metrics: ItemMetrics,
    ) -> Self {
        metrics.knows_next_hop(name);
        let client = Client::new(name, url, timeout);
        let resolver = Arc::clone(client.resolver());
        Self {
            client: PropagateTokenLayer.layer(client),
            resolver,
            name: name.into(),
            verifier,
            metrics,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What this hop and those behind it have under the id. `notes` hear of a disagreement, even one that was mended.
    pub(crate) async fn get(
        &self,
        id: &ItemId,
        caller: &Caller,
        context: &RequestContext,
        notes: &mut AccessNotes,
    ) -> Result<Vec<HopReply>, NextHopError> {
        let got = self.try_get(id, caller, context, notes).await;
        self.metrics.called(match &got {
            Ok(_) => "ok",
            Err(NextHopError::Unreachable(_)) => "unreachable",
            Err(NextHopError::Slow) => "slow",
            Err(NextHopError::Problem(_)) => "problem",
            Err(NextHopError::RefusesGoodToken) => "refused_good_token",
            Err(NextHopError::TokenEnded(_)) => "token_ended",
            Err(NextHopError::Unusable(_)) => "unusable",
        });
        got
    }

    async fn try_get(
        &self,
        id: &ItemId,
        caller: &Caller,
        context: &RequestContext,
        notes: &mut AccessNotes,
    ) -> Result<Vec<HopReply>, NextHopError> {
        let first = self.ask(id, caller, context, None).await?;
        if !self.disagrees(caller, &first, notes)? {
            return self.read(id, &first);
        }
        // Perhaps another replica over there knows better.
        let elsewhere = first.from.map(|AnsweredBy(address)| Elsewhere(address));
        match self.ask(id, caller, context, elsewhere).await {
            Ok(second) if !self.disagrees(caller, &second, notes)? => self.read(id, &second),
            Err(NextHopError::Slow) => Err(NextHopError::Slow),
            Ok(_) | Err(_) => Err(NextHopError::RefusesGoodToken),
        }
    }

    /// Whether the answer refuses a token that is still good here.
    fn disagrees(
        &self,
        caller: &Caller,
        answer: &Answer,
        notes: &mut AccessNotes,
    ) -> Result<bool, NextHopError> {
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(false);
        }
        match self.verifier.second_opinion(caller, &answer.headers) {
            SecondOpinion::Theirs => Ok(false),
            SecondOpinion::Agrees(rejected) => Err(NextHopError::TokenEnded(rejected)),
            SecondOpinion::Disagrees => {
                self.metrics.disagrees(&self.name);
                notes.disagrees = Some(self.name.as_ref().to_owned());
                let address = answer
                    .from
                    .map(|AnsweredBy(address)| tracing::field::display(address));
                tracing::error!(
                    next = self.name.as_ref(),
                    address,
                    "the next hop refuses a token that is good here: compare the keys and the clocks of both"
                );
                Ok(true)
            }
        }
    }

    async fn ask(
        &self,
        id: &ItemId,
        caller: &Caller,
        context: &RequestContext,
        elsewhere: Option<Elsewhere>,
    ) -> Result<Answer, NextHopError> {
        let mut request = Request::new(Full::default());
        // An id is a path segment as it is.
        *request.uri_mut() = format!("/items/{}", id.as_str()).parse().unwrap_or_default();
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(context.clone());
        if let Some(elsewhere) = elsewhere {
            request.extensions_mut().insert(elsewhere);
        }
        // Right after a start the name may not be resolved yet.
        let patience = Deadline::after(RESOLVE_TIMEOUT).earlier(context.deadline);
        // What is unresolved still is said by the call itself.
        let _ = patience.bound(self.resolver.answered()).await;
        let (head, body) = self
            .client
            .clone()
            .oneshot(request)
            .await
            .map_err(call_error)?
            .into_parts();
        match Limited::new(body, MAX_REPLY_BYTES).collect().await {
            Ok(body) => Ok(Answer {
                from: head.extensions.get().copied(),
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            }),
            Err(error) => Err(match error.downcast::<CallError>() {
                Ok(error) => call_error(*error),
                Err(_) => NextHopError::Unusable(Unusable::TooLarge),
            }),
        }
    }

    fn read(&self, id: &ItemId, answer: &Answer) -> Result<Vec<HopReply>, NextHopError> {
        if answer.status == StatusCode::OK {
            return Reply::read(&answer.body, id).map_err(|error| NextHopError::Unusable(error.into()));
        }
        let is_problem = answer
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind == "application/problem+json");
        let is_error = answer.status.is_client_error() || answer.status.is_server_error();
        let members = serde_json::from_slice::<Map<String, Value>>(&answer.body);
        let (true, true, Ok(mut members)) = (is_problem, is_error, members) else {
            return Err(NextHopError::Unusable(Unusable::Status(answer.status)));
        };
        // A hop without the item still says what it and those behind it have.
        if answer.status == StatusCode::NOT_FOUND {
            return Reply::read(&answer.body, id).map_err(|error| NextHopError::Unusable(error.into()));
        }
        // The last hop that knows whose fault it is has named it.
        members.entry("hop").or_insert_with(|| self.name.as_ref().into());
        members.insert("status".to_owned(), answer.status.as_u16().into());
        let kept = [RETRY_AFTER, WWW_AUTHENTICATE];
        let headers = kept
            .into_iter()
            .filter_map(|name| Some((name.clone(), answer.headers.get(name)?.clone())));
        Err(NextHopError::Problem(Box::new(PassedOn {
            status: answer.status,
            members,
            headers: headers.collect(),
        })))
    }
}

fn call_error(error: CallError) -> NextHopError {
    match error {
        CallError::DeadlinePassed(_) => NextHopError::Slow,
        error => NextHopError::Unreachable(error),
    }
}

impl fmt::Debug for NextHop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NextHop")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl PassedOn {
    pub(crate) fn into_response(self) -> Response<axum::body::Body> {
        let mut response = Response::new(Value::Object(self.members).to_string().into());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
