//! Sends a request to one of its upstream's addresses. What was never sent may go to another address; what was
//! sent goes once more only if repeating it changes nothing (RFC 9110 section 9.2.2).
//!
//! The only await on an upstream is here; deadlines are the caller's.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use servicechain_runtime::deadline::Deadline;
use servicechain_runtime::upstream::{Endpoint, Resolver, pick};
use tokio::net::TcpStream;

use crate::answer_head::AnswerHead;
use crate::body::BodyError;
use crate::conversation::{Conversation, ConversationError, Upload};
use crate::pool::{ConnectError, Lease, Pool};

/// What a route forwards to.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) resolver: Arc<Resolver>,
    /// The hop behind it, as problems name it.
    pub(crate) service: String,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<AnswerBody>,
    /// True if it took a second try.
    pub(crate) was_repeated: bool,
}

/// The body of an answer, and the connection it comes on.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    conversation: Conversation<TcpStream>,
    lease: Lease,
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

impl Failed {
    /// The address did not take the request.
    const fn to_take(address: SocketAddr) -> Self {
        Self {
            address,
            why: ForwardError::Unreachable,
            was_reused: false,
        }
    }
}

/// How long a request waits for the first address of a service that has just become ready.
const ADDRESSES_WITHIN: Duration = Duration::from_secs(1);

/// An address that stands alone is asked again so often when it refuses, after a pause that doubles: 1.3 s in all, in
/// which a container starts again. It may be a Service's, which leads to another pod each time, and for a while to one
/// that has just ended.
const ALONE_AGAIN: u32 = 7;
const ALONE_PAUSE: Duration = Duration::from_millis(10);

/// Sends a request and waits for the head of its answer. `refused` is the address that has had it already: it goes to
/// another one, once, or nowhere.
///
/// # Errors
/// [`ForwardError`] once there is nothing left to try.
pub(crate) async fn send(
    upstream: &Upstream,
    pool: &Rc<Pool>,
    method: &Method,
    mut upload: Upload,
    deadline: Deadline,
    refused: Option<SocketAddr>,
) -> Result<Answer, ForwardError> {
    let mut failed = refused.map(Failed::to_take);
    // A connection that was closed before the request was written on it says nothing of the address.
    let mut may_reuse = true;
    let mut has_tried = refused.is_some();
    let mut refusals = 0;
    loop {
        let address_failed = failed.map(|failed| failed.address);
        if upstream.resolver.endpoints().as_slice().is_empty() {
            // Rare: a service none of whose pods was ready yet.
            Box::pin(first_addresses(upstream)).await;
        }
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
        let (stream, lease) = match idle {
            Ok(connection) => connection,
            Err(in_flight) => {
                let endpoint = Arc::clone(in_flight.endpoint());
                // Rare and large, so not a part of every request's future.
                match Box::pin(pool.connect(in_flight)).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(%address, service = upstream.service, error = %error, "cannot connect");
                        endpoint.refused();
                        upstream.resolver.resolve_again();
                        if let Some(before) = failed {
                            return Err(before.why);
                        }
                        let is_alone = upstream.resolver.endpoints().as_slice().len() == 1;
                        let pause = ALONE_PAUSE * 2_u32.pow(refusals);
                        let in_time = deadline.remaining().is_none_or(|left| left > pause);
                        let may_return = is_alone && in_time && refusals < ALONE_AGAIN;
                        if may_return && matches!(error, ConnectError::Tcp(_)) {
                            Box::pin(tokio::time::sleep(pause)).await;
                            refusals += 1;
                            continue;
                        }
                        failed = Some(Failed::to_take(address));
                        continue;
                    }
                }
            }
        };
        // Connecting, and trying before, took time.
        if (has_tried || !lease.is_reused())
            && let Some(left) = deadline.remaining()
        {
            upload.set_remaining(left);
        }
        has_tried = true;
        let mut conversation = Conversation::new(stream, method.clone(), upload);
        let error = match poll_fn(|cx| conversation.poll_head(cx, &mut pool.scratch())).await {
            Ok(head) => return check(head, AnswerBody { conversation, lease }, failed.is_some()),
            Err(error) => error,
        };
        may_reuse = false;
        if let ConversationError::Unsent(unsent) = error {
            upload = *unsent;
            if lease.is_reused() {
                continue;
            }
            if let Some(before) = failed {
                return Err(before.why);
            }
            failed = Some(Failed::to_take(address));
            continue;
        }
        tracing::debug!(%address, service = upstream.service, error = %error, "upstream broke off");
        upstream.resolver.resolve_again();
        // Where a byte of an answer came nobody knows what the upstream has done.
        upload = match error {
            ConversationError::Silent(sent) if failed.is_none() && method.is_idempotent() => {
                sent.again().ok_or(ForwardError::BrokeOff)?
            }
            _ => return Err(ForwardError::BrokeOff),
        };
        failed = Some(Failed {
            address,
            why: ForwardError::BrokeOff,
            was_reused: lease.is_reused(),
        });
    }
}

async fn first_addresses(upstream: &Upstream) {
    let _ = tokio::time::timeout(ADDRESSES_WITHIN, upstream.resolver.answered()).await;
}

/// Nothing asked for another protocol, so an upstream that switches is out of step.
fn check(head: AnswerHead, body: AnswerBody, was_repeated: bool) -> Result<Answer, ForwardError> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ForwardError::BrokeOff);
    }
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(Answer {
        response,
        was_repeated,
    })
}

impl Answer {
    /// Where it came from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.response.body().lease.address()
    }

    /// What it answers, to be sent again, if all of that is still here. The rest of it is not read.
    pub(crate) fn into_request(self) -> Option<Upload> {
        self.response.into_body().conversation.into_upload().again()
    }
}

impl AnswerBody {
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.conversation.poll_data(cx, &mut self.lease.pool().scratch())
    }

    /// True once the last byte was handed out.
    pub(crate) fn has_ended(&self) -> bool {
        self.conversation.has_ended()
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.conversation.remaining()
    }

    /// It has ended: its connection goes back if it can serve another request.
    pub(crate) fn give_back(self) {
        if let Some(stream) = self.conversation.into_idle() {
            self.lease.give_back(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::body::RequestBody;

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
                let head = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
                let upload = Upload::new(head.into_bytes(), None, RequestBody::Empty, false);
                let deadline = Deadline::after(Duration::from_secs(10));
                let pool = Rc::new(Pool::default());
                let sent = send(&pair.upstream, &pool, method, upload, deadline, None).await;
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
    fn an_address_that_stands_alone_is_asked_again_once_it_has_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let resolver = Resolver::fixed(&"http://upstream:80".parse().unwrap(), &[address]);
        let endpoint = Arc::clone(&resolver.endpoints().as_slice()[0]);
        let upstream = Upstream {
            resolver,
            service: "a".to_owned(),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let answer = runtime.block_on(async {
            let upload = Upload::new(
                b"POST / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
                None,
                RequestBody::Empty,
                false,
            );
            let deadline = Deadline::after(Duration::from_secs(10));
            let pool = Rc::new(Pool::default());
            let sent = send(&upstream, &pool, &Method::POST, upload, deadline, None);
            let comes_back = async {
                while !endpoint.is_suspect() {
                    tokio::task::yield_now().await;
                }
                let listener = TcpListener::bind(address).unwrap();
                std::thread::spawn(move || serve(&listener, true, &Arc::default()));
            };
            tokio::join!(sent, comes_back).0
        });
        assert_eq!(answer.unwrap().response.status(), StatusCode::NO_CONTENT);
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
