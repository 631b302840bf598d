//! What is done about a key that a trusted issuer's token names and this verifier does not know (key protocol, line
//! 18): its authority is asked, once for everybody who waits, and only a word begun after a token came counts for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Full;
use servicechain_keys::bundle::MAX_BUNDLE_BYTES;
use servicechain_keys::wire::BUNDLE_PATH;
use servicechain_keys::{BundleRefusal, Fetched, Generation, KnockReason, Outcome};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::exchange::exchange;
use super::knock::below;
use super::{Authentication, Judged, Question, Verifier};
use crate::rejected::{Rejected, TokenFault, Unavailable};

/// A question about one issuer is asked no more often.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// A request waits no longer, whatever its deadline.
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// Most requests that wait at once; the rest are told to come again.
const MOST_WAITING: usize = 256;

/// The questions under way, by the issuer's name.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    issuers: Mutex<HashMap<String, Arc<Inquiry>>>,
    waiting: AtomicUsize,
    runtime: OnceLock<Handle>,
}

/// The questions about one issuer, one after the other.
#[derive(Debug)]
struct Inquiry {
    issuer: String,
    schedule: Mutex<Schedule>,
    answered: watch::Sender<Answered>,
}

#[derive(Debug, Default)]
struct Schedule {
    /// How many questions have begun.
    begun: u64,
    last_began: Option<Instant>,
    /// The next one has its task.
    is_next_planned: bool,
}

/// The newest answer.
#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    /// Which question it answers, counted from 1.
    question: u64,
    word: Option<AsOf>,
}

/// The authority said what it knows: who holds this generation knows as much.
#[derive(Clone, Copy, Debug)]
struct AsOf(Generation);

/// One place among those who may wait.
struct Place<'a>(&'a AtomicUsize);

impl Inquiries {
    pub(super) fn answer_on(&self, runtime: Handle) {
        // Only `start` calls this, once.
        let _ = self.runtime.set(runtime);
    }

    fn take_place(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::SeqCst) < MOST_WAITING).then_some(place)
    }

    fn about(&self, issuer: &str) -> Arc<Inquiry> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let inquiry = issuers.entry(issuer.to_owned()).or_insert_with(|| {
            Arc::new(Inquiry {
                issuer: issuer.to_owned(),
                schedule: Mutex::default(),
                answered: watch::Sender::default(),
            })
        });
        Arc::clone(inquiry)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Verifier {
    /// Waits until the key is known, or its authority, asked after the token came, does not know it either.
    pub(super) async fn inquire(
        &self,
        headers: &HeaderMap,
        question: Question,
        deadline: Option<Instant>,
    ) -> Authentication {
        let unanswered = || {
            self.counters.unavailable.increment();
            Authentication::Rejected(Unavailable::UnknownKey.into())
        };
        let longest = question.arrived + LONGEST_WAIT;
        let until = deadline.map_or(longest, |deadline| deadline.min(longest));
        let mut generations = self.generations.subscribe();
        let (Some(_place), Some(runtime)) = (self.inquiries.take_place(), self.inquiries.runtime.get())
        else {
            return unanswered();
        };
        let inquiry = self.inquiries.about(&question.issuer);
        let mut answers = inquiry.answered.subscribe();
        let next = self.plan(&inquiry, runtime);
        loop {
            let answered = *answers.borrow_and_update();
            let is_for_us = answered.question >= next;
            // What is held is read before it is judged by: a bundle that comes in between can only add the key.
            let is_as_new = answered
                .word
                .is_some_and(|AsOf(newest)| self.generation() >= newest);
            let judged = self.judge(headers);
            match judged {
                Judged::Absent => return Authentication::Absent,
                Judged::Verified(caller) => return Authentication::Verified(caller),
                Judged::Rejected(rejected) => return Authentication::Rejected(rejected),
                Judged::UnknownKey(_) if is_for_us && answered.word.is_none() => return unanswered(),
                Judged::UnknownKey(_) if is_for_us && is_as_new => {
                    let rejected = Rejected::from(TokenFault::UnknownKey);
                    self.counters.rejected.increment();
                    self.counters.refusals.token(&rejected);
                    return Authentication::Rejected(rejected);
                }
                Judged::UnknownKey(_) => {}
            }
            // Neither sender is dropped while `self` and `inquiry` are borrowed.
            tokio::select! {
                _ = answers.changed() => {}
                _ = generations.changed() => {}
                () = tokio::time::sleep_until(until) => return unanswered(),
            }
        }
    }

    /// Sees to it that another question is asked, and returns which one that is.
    fn plan(&self, inquiry: &Arc<Inquiry>, runtime: &Handle) -> u64 {
        let mut schedule = inquiry.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let next = schedule.begun + 1;
        if !schedule.is_next_planned
            && let Some(this) = self.this.upgrade()
        {
            schedule.is_next_planned = true;
            let begin = schedule.last_began.map(|last| last + BETWEEN_QUESTIONS);
            let inquiry = Arc::clone(inquiry);
            runtime.spawn(async move {
                if let Some(begin) = begin {
                    tokio::time::sleep_until(begin).await;
                }
                let question = inquiry.begin();
                this.counters.inquiries.increment();
                let word = this.ask(&inquiry.issuer).await;
                inquiry.answered.send_replace(Answered { question, word });
            });
        }
        next
    }

    /// Asks whoever must know the issuer's keys; nothing where that one does not answer.
    async fn ask(&self, issuer: &str) -> Option<AsOf> {
        if self.config.operator_url.is_none() && self.config.bundle_file.is_some() {
            return self.ask_file().await;
        }
        match self.config.issuer_urls.get(issuer) {
            Some(url) => self.ask_issuer(url).await,
            None => self.ask_operator(issuer).await,
        }
    }

    async fn ask_file(&self) -> Option<AsOf> {
        let this = self.this.upgrade()?;
        let delivered = tokio::task::spawn_blocking(move || this.deliver_file())
            .await
            .ok()??;
        is_answer(delivered.outcome, delivered.reason).then(|| AsOf(self.generation()))
    }

    /// READ: what one of the issuer's own pods holds (key protocol, line 14).
    async fn ask_issuer(&self, url: &Uri) -> Option<AsOf> {
        let mut request = Request::get(below(url, BUNDLE_PATH)?);
        if let Some(held) = self.held() {
            request = request.header(IF_NONE_MATCH, format!("\"{}\"", held.digest()));
        }
        let request = request.body(Full::new(Bytes::new())).ok()?;
        let reply = exchange(&self.client, request, MAX_BUNDLE_BYTES).await;
        let reply = reply
            .inspect_err(|error| tracing::warn!(%error, %url, "the issuer does not answer"))
            .ok()?;
        match reply.status {
            StatusCode::NOT_MODIFIED => {}
            StatusCode::OK => {
                let delivered = self.deliver(reply.body.to_vec()).await;
                if !is_answer(delivered.outcome, delivered.reason) {
                    return None;
                }
            }
            _ => return None,
        }
        Some(AsOf(self.generation()))
    }

    /// KNOCK: the operator fetches what the issuer publishes now (key protocol, line 15).
    async fn ask_operator(&self, issuer: &str) -> Option<AsOf> {
        let answer = self.knock(KnockReason::UnknownKid, Some(issuer)).await;
        let answer = answer
            .inspect_err(|error| tracing::warn!(%error, issuer, "no word from the operator"))
            .ok()?;
        match answer.fetched? {
            Fetched::New | Fetched::Same => answer.generation.map(AsOf),
            Fetched::Failed => None,
        }
    }
}

/// A bundle that is older than ours is an answer too: its holder knows no key that we do not know.
fn is_answer(outcome: Outcome, reason: Option<BundleRefusal>) -> bool {
    outcome != Outcome::Refused || reason == Some(BundleRefusal::Lower)
}

impl Inquiry {
    /// From now on whoever comes waits for the question after this one.
    fn begin(&self) -> u64 {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        schedule.begun += 1;
        schedule.last_began = Some(Instant::now());
        schedule.is_next_planned = false;
        schedule.begun
    }
}
