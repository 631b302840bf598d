//! Lets only verified callers through, as a tower layer around any HTTP service. It finds the token, has the verifier
//! judge it, asks the authorization rules, and answers refusals itself; the service inside sees no other request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::authorization::AuthorizationRules;
use crate::caller::Caller;
use crate::rejected::Rejected;
use crate::second_opinion::{self, VERDICT};
use crate::verifier::{Authentication, Judged, Verifier};

/// Reads from a request's headers when it must be answered.
pub type ReadDeadline = Arc<dyn Fn(&HeaderMap) -> Option<Instant> + Send + Sync>;

/// Refuses requests without a verified caller (RFC 6750), or whose caller may not do this.
///
/// The [`Caller`] goes into the request's extensions, and into those of the response, for logs. A refusal is answered
/// with a problem+json body that does not tell the reason; the [`Rejected`] itself is in the response's extensions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use servicechain_auth::specimen::{Specimen, bearing};
/// # let chain = Specimen::new();
/// # let verifier = chain.verifier();
/// # let token = chain.token();
/// use axum::{Router, body::Body, routing::get};
/// use http::Request;
/// use servicechain_auth::{AuthorizationRules, Caller, RequireTokenLayer, authorization::Rule};
/// use tower::ServiceExt;
///
/// let rules = AuthorizationRules::new(vec![Rule::new(&["GET"], "/items", &["items:read"]).unwrap()]);
/// // `verifier` is an `Arc<Verifier>`, which `Verifier::start` gives.
/// let app = Router::new()
///     .route("/items/{id}", get(|caller: Caller| async move { format!("for {}", caller.subject()) }))
///     .layer(RequireTokenLayer::new(verifier).with_rules(rules));
///
/// let request = Request::get("/items/1").body(Body::empty()).unwrap();
/// let refused = app.clone().oneshot(request).await.unwrap();
/// assert_eq!(refused.status(), 401);
/// assert_eq!(refused.headers()["www-authenticate"], "Bearer");
///
/// let request = Request::get("/items/1").header("Authorization", format!("Bearer {token}"));
/// let answered = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
/// assert_eq!(answered.status(), 200);
/// # }
/// ```
#[derive(Clone)]
pub struct RequireTokenLayer {
    verifier: Arc<Verifier>,
    rules: Option<Arc<AuthorizationRules>>,
    deadline: Option<ReadDeadline>,
}

impl RequireTokenLayer {
    /// Every verified caller passes.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self {
            verifier,
            rules: None,
            deadline: None,
        }
    }

    /// The first rule that matches method and path decides; where none matches, nobody passes.
    #[must_use]
    pub fn with_rules(mut self, rules: AuthorizationRules) -> Self {
        self.rules = Some(Arc::new(rules));
        self
    }

    /// Where a token's key is unknown, no answer is waited for beyond this moment.
    #[must_use]
    pub fn with_deadline(mut self, deadline: ReadDeadline) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl fmt::Debug for RequireTokenLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequireTokenLayer")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireTokenLayer {
    type Service = RequireToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireToken {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`RequireTokenLayer`] makes.
#[derive(Clone, Debug)]
pub struct RequireToken<S> {
    inner: S,
    layer: RequireTokenLayer,
}

impl<S, B, R> Service<Request<B>> for RequireToken<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<Bytes> + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let caller = match layer.admit(&parts).await {
                Ok(caller) => caller,
                Err(rejected) => {
                    let mut response = rejected.response();
                    if let Some(mark) = second_opinion::mark(&rejected, layer.verifier.generation()) {
                        response.headers_mut().insert(VERDICT, mark);
                    }
                    response.extensions_mut().insert(rejected);
                    return Ok(response);
                }
            };
            parts.extensions.insert(caller.clone());
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            // A verdict of a hop behind it, which a service passed on with that hop's answer, is none on this request: who
            // takes it for one sends again what was done.
            response.headers_mut().remove(VERDICT);
            response.extensions_mut().insert(caller);
            Ok(response)
        })
    }
}

impl RequireTokenLayer {
    async fn admit(&self, request: &Parts) -> Result<Caller, Rejected> {
        let caller = match self.verifier.judge(&request.headers) {
            Judged::Verified(caller) => caller,
            Judged::Absent => return Err(Rejected::NoToken),
            Judged::Rejected(rejected) => return Err(rejected),
            Judged::UnknownKey(_) => {
                let deadline = self.deadline.as_ref().and_then(|read| read(&request.headers));
                match self.verifier.authenticate(&request.headers, deadline).await {
                    Authentication::Verified(caller) => caller,
                    Authentication::Absent => return Err(Rejected::NoToken),
                    Authentication::Rejected(rejected) => return Err(rejected),
                }
            }
        };
        if let Some(rules) = &self.rules {
            rules.decide(&request.method, request.uri.path(), &caller)?;
        }
        Ok(caller)
    }
}
