//! Sends the caller's token to the next hop, byte for byte. It goes around an outbound client and believes nothing
//! but the verified [`Caller`] in the request's extensions.

use std::task::{Context, Poll};

use http::Request;
use http::header::AUTHORIZATION;
use tower::{Layer, Service};

use crate::caller::Caller;

/// Puts the token of the [`Caller`] found in an outgoing request's extensions into its `Authorization` header.
/// Without one the request leaves without that header, whatever it held before: never an empty token, never one
/// that nobody verified.
///
/// ```
/// use http::{Request, header::AUTHORIZATION};
/// use servicechain_auth::propagate_token::PropagateTokenLayer;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = ServiceBuilder::new()
///     .layer(PropagateTokenLayer)
///     .service_fn(|sent: Request<()>| async move { Ok::<_, std::convert::Infallible>(sent) });
///
/// let mut request = Request::new(());
/// request.headers_mut().insert(AUTHORIZATION, "Bearer made-up".parse().unwrap());
/// // No verified caller in its extensions: nothing is sent.
/// let sent = client.oneshot(request).await.unwrap();
/// assert!(sent.headers().get(AUTHORIZATION).is_none());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PropagateTokenLayer;

impl<S> Layer<S> for PropagateTokenLayer {
    type Service = PropagateToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PropagateToken { inner }
    }
}

/// The service that [`PropagateTokenLayer`] makes.
#[derive(Clone, Copy, Debug)]
pub struct PropagateToken<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for PropagateToken<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match request
            .extensions()
            .get::<Caller>()
            .map(|caller| caller.token().header_value())
        {
            Some(value) => _ = request.headers_mut().insert(AUTHORIZATION, value),
            None => _ = request.headers_mut().remove(AUTHORIZATION),
        }
        self.inner.call(request)
    }
}
