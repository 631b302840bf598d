//! How the operator talks to the API server: who it says it is, how long it waits, and that nobody but a leader writes.
//! It must not know what is said.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{Either, LengthLimitError, Limited};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use crate::lease::LeaseState;
use crate::trace;

/// An API server that works answers a write in a fraction of this, admission webhooks (10 s by default) included.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(12);
/// A list of a chain's objects is small.
pub const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest page of more than one object that is read, in bytes.
pub(crate) const MAX_PAGE: usize = 4 << 20;
/// The largest answer of any other kind, in bytes. An object is stored in at most 1.5 MiB, which JSON may write six times
/// as long.
const MAX_ANSWER: usize = 16 << 20;

/// A request to the API server that brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{what}: no answer within {} s", limit.as_secs())]
    TimedOut { what: String, limit: Duration },
    #[error("{what}")]
    Failed {
        what: String,
        #[source]
        source: kube::Error,
    },
}

impl ApiError {
    /// The HTTP status that the API server answered with, if it did.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Failed {
                source: kube::Error::Api(status),
                ..
            } => Some(status.code),
            _ => None,
        }
    }

    /// More was to be read than is taken into memory.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        let Self::Failed { source, .. } = self else {
            return false;
        };
        match source {
            kube::Error::Service(error) => error.is::<LengthLimitError>(),
            _ => false,
        }
    }

    /// What the API server said, else what went wrong.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Failed {
                source: kube::Error::Api(status),
                ..
            } => status.message.clone(),
            Self::Failed { source, .. } => source.to_string(),
            Self::TimedOut { .. } => self.to_string(),
        }
    }
}

/// The one way to wait for the API server: `what` completes "cannot …" and is in the error.
pub async fn within<T>(
    limit: Duration,
    what: impl Into<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let what = what.into();
    let asked = what.strip_prefix("cannot ").unwrap_or(&what).to_owned();
    let request = async {
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(ApiError::Failed { what, source }),
            Err(_) => Err(ApiError::TimedOut { what, limit }),
        }
    };
    trace::question("API server", ("servicechain.asked", &asked), request).await
}

/// `config` as the operator uses it: named after its pod in the audit log, and without the client's own retries, which go
/// on for minutes unseen.
#[must_use]
pub fn configure(mut config: Config, pod_name: &str) -> Config {
    config.default_retry = false;
    let agent = format!("servicechain-operator/{} ({pod_name})", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        config.headers.push((header::USER_AGENT, agent));
    }
    config
}

/// A client whose writes are sent only while the lease is surely held: a leader that slept does not finish what it had
/// begun.
pub fn guarded(config: Config, lease: LeaseState) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&OnlyLeaderWrites { lease })
        .with_layer(&BoundedAnswers)
        .build())
}

/// A client that takes into memory no more than an answer may weigh, whatever somebody put into his objects.
pub fn bounded(config: Config) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BoundedAnswers)
        .build())
}

/// Breaks off answers that are too large, but of watches, which are read event by event.
#[derive(Clone, Debug)]
pub struct BoundedAnswers;

impl<S> Layer<S> for BoundedAnswers {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded(inner)
    }
}

/// See [`BoundedAnswers`].
#[derive(Clone, Debug)]
pub struct Bounded<S>(S);

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: hyper::body::Body,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<Limited<B>, B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let most = most_bytes(request.uri());
        let answer = self.0.call(request);
        Box::pin(async move {
            Ok(answer.await?.map(|body| match most {
                Some(most) => Either::Left(Limited::new(body, most)),
                None => Either::Right(body),
            }))
        })
    }
}

fn most_bytes(asked: &Uri) -> Option<usize> {
    let fields = asked.query().unwrap_or_default().split('&');
    let value = |name: &str| {
        let mut fields = fields.clone();
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    if value("watch").is_some_and(|watch| watch != "false") {
        return None;
    }
    let is_page = value("limit").is_some_and(|limit| limit != "1");
    Some(if is_page { MAX_PAGE } else { MAX_ANSWER })
}

/// A write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("this operator is not surely the leader any more, so it writes nothing")]
pub struct NotLeader;

/// Refuses what is no read unless the lease is surely held.
#[derive(Clone, Debug)]
pub struct OnlyLeaderWrites {
    pub lease: LeaseState,
}

impl<S> Layer<S> for OnlyLeaderWrites {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            lease: self.lease.clone(),
            inner,
        }
    }
}

/// See [`OnlyLeaderWrites`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    lease: LeaseState,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read && !self.lease.is_surely_held() {
            return Box::pin(std::future::ready(Err(NotLeader.into())));
        }
        Box::pin(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use tower::ServiceExt as _;

    async fn send(lease: LeaseState, method: Method) -> Result<(), BoxError> {
        let server = tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(())));
        let request = Request::builder().method(method).body(Body::empty())?;
        OnlyLeaderWrites { lease }
            .layer(server)
            .oneshot(request)
            .await
            .map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_ends_and_says_what_was_wanted() {
        let silent = tower::service_fn(async |_: Request<Body>| -> Result<Response<Body>, BoxError> {
            std::future::pending().await
        });
        let namespaces =
            kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(Client::new(silent, "default"));
        let error = within(READ_TIMEOUT, "cannot read the namespace", namespaces.get("shop")).await;
        let said = error.unwrap_err().to_string();
        assert_eq!(said, "cannot read the namespace: no answer within 15 s");
    }

    #[tokio::test]
    async fn only_a_leader_writes_and_everybody_reads() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let error = send(LeaseState::default(), method.clone()).await.unwrap_err();
            assert!(error.is::<NotLeader>(), "{error}");
            send(LeaseState::always_held(), method).await.unwrap();
        }
        send(LeaseState::default(), Method::GET).await.unwrap();
    }
}
