//! Sends a request to one of its upstream's addresses. What was never sent may go to another address; what was
//! sent goes once more only if repeating it changes nothing (RFC 9110 section 9.2.2).
//!
//! The only await on an upstream is here; deadlines are the caller's.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use servicechain_runtime::deadline::Deadline;
use servicechain_runtime::upstream::{Endpoint, Resolver, pick};

use crate::body::RequestBody;
use crate::pool::{Lease, Pool};

/// What a route forwards to.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) resolver: Arc<Resolver>,
    /// The hop behind it, as problems name it.
    pub(crate) service: String,
}

/// An answer whose body is still to come, and the connection it comes on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    /// True if it took a second try.
    pub(crate) was_repeated: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no address takes a connection")]
    Unreachable,
    #[error("the connection ended before an answer")]
    BrokeOff,
}

/// A try that failed; there is at most one more.
#[derive(Clone, Copy, Debug)]
struct Failed {
    address: SocketAddr,
    why: ForwardError,
    /// The upstream may have closed this one connection between two requests, and be well.
    was_reused: bool,
}

/// A request that can be made again.
struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// Sends `request` and waits for the head of its answer.
///
/// # Errors
/// [`ForwardError`] once there is nothing left to try.
pub(crate) async fn send(
    upstream: &Upstream,
    pool: &Rc<Pool>,
    mut request: Request<RequestBody>,
    deadline: Deadline,
) -> Result<Answer, ForwardError> {
    let copy = Copy::of(&request);
    let mut failed: Option<Failed> = None;
    // A connection that was closed before the request was written on it says nothing of the address.
    let mut may_reuse = true;
    loop {
        let address_failed = failed.map(|failed| failed.address);
        let picked = pick(&upstream.resolver.endpoints(), address_failed).map(Endpoint::begin);
        let in_flight = picked.ok_or(ForwardError::Unreachable)?;
        let address = in_flight.endpoint().address();
        if let Some(before) = failed
            && before.address == address
            && !before.was_reused
        {
            return Err(before.why);
        }
        let idle = if may_reuse {
            pool.reuse(in_flight)
        } else {
            Err(in_flight)
        };
        let mut lease = match idle {
            Ok(lease) => lease,
            Err(in_flight) => {
                let endpoint = Arc::clone(in_flight.endpoint());
                // Rare and large, so not a part of every request's future.
                match Box::pin(pool.connect(in_flight)).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        tracing::debug!(%address, service = upstream.service, error = %error, "cannot connect");
                        endpoint.refused();
                        upstream.resolver.resolve_again();
                        if let Some(before) = failed {
                            return Err(before.why);
                        }
                        failed = Some(Failed {
                            address,
                            why: ForwardError::Unreachable,
                            was_reused: false,
                        });
                        continue;
                    }
                }
            }
        };
        deadline.inject(request.headers_mut());
        let mut error = match lease.sender().try_send_request(request).await {
            Ok(response) => return check(response, lease, failed.is_some()),
            Err(error) => error,
        };
        if let Some(unsent) = error.take_message() {
            request = unsent;
            may_reuse = false;
            if lease.is_reused() {
                continue;
            }
            if let Some(before) = failed {
                return Err(before.why);
            }
            failed = Some(Failed {
                address,
                why: ForwardError::Unreachable,
                was_reused: false,
            });
            continue;
        }
        let error = error.into_error();
        tracing::debug!(%address, service = upstream.service, error = %error, "upstream broke off");
        upstream.resolver.resolve_again();
        // A parse error means that bytes of an answer came, and nobody knows what the upstream has done.
        match &copy {
            Some(copy) if failed.is_none() && !error.is_parse() => request = copy.request(),
            _ => return Err(ForwardError::BrokeOff),
        }
        failed = Some(Failed {
            address,
            why: ForwardError::BrokeOff,
            was_reused: lease.is_reused(),
        });
        may_reuse = false;
    }
}

/// Nothing asked for another protocol, so an upstream that switches is out of step.
fn check(response: Response<Incoming>, lease: Lease, was_repeated: bool) -> Result<Answer, ForwardError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ForwardError::BrokeOff);
    }
    Ok(Answer {
        response,
        lease,
        was_repeated,
    })
}

impl Copy {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let repeatable = request.body().is_empty() && request.method().is_idempotent();
        repeatable.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::header::HOST;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    /// What an address does with a connection.
    #[derive(Clone, Copy)]
    enum Manner {
        Refuses,
        /// Reads the request and hangs up.
        HangsUp,
        Answers,
    }

    /// Two addresses of one upstream, and how many requests each was sent.
    struct Pair {
        upstream: Upstream,
        requests: [Arc<AtomicUsize>; 2],
    }

    fn pair(manners: [Manner; 2]) -> Pair {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|index| listeners[index].local_addr().unwrap());
        let requests = [(); 2].map(|()| Arc::default());
        for (listener, (manner, count)) in listeners.into_iter().zip(manners.into_iter().zip(&requests)) {
            let count = Arc::clone(count);
            match manner {
                Manner::Refuses => drop(listener),
                Manner::HangsUp | Manner::Answers => {
                    std::thread::spawn(move || serve(&listener, matches!(manner, Manner::Answers), &count));
                }
            }
        }
        let url = "http://upstream:80".parse().unwrap();
        let upstream = Upstream {
            resolver: Resolver::fixed(&url, &addresses),
            service: "a".to_owned(),
        };
        Pair { upstream, requests }
    }

    fn serve(listener: &TcpListener, answers: bool, count: &AtomicUsize) {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            count.fetch_add(1, Ordering::SeqCst);
            if answers {
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        }
    }

    /// Sends twenty requests, each through a new pool, so that both addresses come first now and then.
    fn send_twenty(method: &Method, pair: &Pair) -> Vec<Result<u16, ForwardError>> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let mut results = Vec::new();
            for _ in 0..20 {
                let request = Request::builder()
                    .method(method)
                    .uri("/")
                    .header(HOST, "a")
                    .body(RequestBody::Empty)
                    .unwrap();
                let deadline = Deadline::after(Duration::from_secs(10));
                let pool = Rc::new(Pool::default());
                let sent = send(&pair.upstream, &pool, request, deadline).await;
                results.push(sent.map(|answer| answer.response.status().as_u16()));
            }
            results
        })
    }

    fn counts(pair: &Pair) -> [usize; 2] {
        [0, 1].map(|index| pair.requests[index].load(Ordering::SeqCst))
    }

    #[test]
    fn a_request_that_was_never_sent_goes_to_another_address_whatever_its_method() {
        for method in [Method::GET, Method::POST] {
            let pair = pair([Manner::Refuses, Manner::Answers]);
            assert!(
                send_twenty(&method, &pair)
                    .iter()
                    .all(|result| *result == Ok(204))
            );
            assert_eq!(counts(&pair), [0, 20]);
        }
    }

    #[test]
    fn a_get_that_was_not_answered_is_repeated_once_on_another_address() {
        let pair = pair([Manner::HangsUp, Manner::Answers]);
        assert!(
            send_twenty(&Method::GET, &pair)
                .iter()
                .all(|result| *result == Ok(204))
        );
        let [hung_up, answered] = counts(&pair);
        assert_eq!(answered, 20);
        assert!(
            hung_up > 0,
            "the other address was tried first at least once in twenty times"
        );
    }

    #[test]
    fn a_second_failure_is_final() {
        let pair = pair([Manner::HangsUp, Manner::HangsUp]);
        assert!(
            send_twenty(&Method::GET, &pair)
                .iter()
                .all(|result| *result == Err(ForwardError::BrokeOff))
        );
        assert_eq!(
            counts(&pair),
            [20, 20],
            "each request is sent to each address once"
        );
    }

    #[test]
    fn a_post_that_was_sent_is_never_repeated() {
        let pair = pair([Manner::HangsUp, Manner::HangsUp]);
        assert!(
            send_twenty(&Method::POST, &pair)
                .iter()
                .all(|result| *result == Err(ForwardError::BrokeOff))
        );
        assert_eq!(counts(&pair).iter().sum::<usize>(), 20);
    }

    #[test]
    fn nobody_who_listens_is_said_so() {
        let pair = pair([Manner::Refuses, Manner::Refuses]);
        assert!(
            send_twenty(&Method::GET, &pair)
                .iter()
                .all(|result| *result == Err(ForwardError::Unreachable))
        );
    }
}
