//! Bodies on their way through, frame by frame and never gathered: a request's is counted against its limit, a
//! response's is watched until it ends, breaks off or runs out of time.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use servicechain_runtime::deadline::Deadline;
use tokio::time::Sleep;

use crate::exchange::Exchange;
use crate::forward::AnswerBody;

/// What an upstream is sent.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Streamed {
        incoming: Incoming,
        left: u64,
        state: Rc<Cell<UploadState>>,
    },
}

/// What the client is doing with its body; whoever waits for an answer asks here why none comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UploadState {
    /// Nothing is awaited from the client.
    #[default]
    Idle,
    /// The next bytes are.
    Waiting,
    TooLarge,
    BrokeOff,
}

/// Why a body ends before its end, which also ends the connection it travels on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the body broke off")]
    BrokeOff(#[source] hyper::Error),
    #[error("the upstream broke off")]
    Upstream(#[source] std::io::Error),
    #[error("the request's deadline has passed")]
    TooLate,
}

impl RequestBody {
    /// A body of at most `limit` bytes, its length known or not; none if there is nobody to tell its state.
    pub(crate) fn new(incoming: Incoming, limit: u64, state: Option<Rc<Cell<UploadState>>>) -> Self {
        state.map_or(Self::Empty, |state| Self::Streamed {
            incoming,
            left: limit,
            state,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Streamed {
            incoming,
            left,
            state,
        } = self.get_mut()
        else {
            return Poll::Ready(None);
        };
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
                state.set(UploadState::Waiting);
                return Poll::Pending;
            };
            state.set(UploadState::Idle);
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => {
                    state.set(UploadState::BrokeOff);
                    Some(Err(BodyError::BrokeOff(error)))
                }
                Some(Ok(frame)) => match frame.into_data() {
                    // Trailers end with this connection (RFC 9110 section 6.5.1 allows it).
                    Err(_trailers) => continue,
                    Ok(data) => {
                        let counted = left.checked_sub(data.len() as u64);
                        state.set(counted.map_or(UploadState::TooLarge, |_| UploadState::Idle));
                        *left = counted.unwrap_or(0);
                        Some(counted.map(|_| Frame::data(data)).ok_or(BodyError::TooLarge))
                    }
                },
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// What a client is sent.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the rule is the large one, and a box would be an allocation for each request"
)]
pub(crate) enum ResponseBody {
    /// The gateway's own words; the exchange ends when they are sent.
    Problem {
        text: Bytes,
        _exchange: Box<Exchange>,
    },
    Upstream(Forwarded),
}

/// A response on its way from an upstream.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Until it has ended.
    answer: Option<AnswerBody>,
    broken: Option<BodyError>,
    deadline: Deadline,
    /// Made when the upstream is first waited for: most answers arrive whole and need none.
    timer: Option<Pin<Box<Sleep>>>,
    exchange: Box<Exchange>,
}

impl Forwarded {
    pub(crate) fn new(answer: AnswerBody, deadline: Deadline, exchange: Box<Exchange>) -> Self {
        let mut this = Self {
            answer: Some(answer),
            broken: None,
            deadline,
            timer: None,
            exchange,
        };
        this.notice_end();
        this
    }

    fn notice_end(&mut self) {
        if let Some(answer) = self.answer.take_if(|answer| answer.has_ended()) {
            self.exchange.complete();
            answer.give_back();
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.deadline.at() else {
            return Poll::Pending;
        };
        self.timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)))
            .as_mut()
            .poll(cx)
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(None);
        };
        let Poll::Ready(data) = answer.poll_data(cx) else {
            ready!(self.poll_deadline(cx));
            self.exchange
                .fail("upstream too slow in the middle of its answer");
            return Poll::Ready(Some(Err(BodyError::TooLate)));
        };
        self.notice_end();
        if let Some(Err(error)) = data {
            self.exchange
                .fail("upstream broke off in the middle of its answer");
            // An error ends the connection with what hyper holds unsent; what came before it goes out first.
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            None => SizeHint::with_exact(0),
            Some(answer) => answer
                .remaining()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Problem { text, .. } if text.is_empty() => Poll::Ready(None),
            Self::Problem { text, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Upstream(forwarded) => Pin::new(forwarded).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Problem { text, .. } => text.is_empty(),
            Self::Upstream(forwarded) => forwarded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Problem { text, .. } => SizeHint::with_exact(text.len() as u64),
            Self::Upstream(forwarded) => forwarded.size_hint(),
        }
    }
}
