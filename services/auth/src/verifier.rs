//! A process's verifier: the bundle it holds, the verdicts it remembers, and the judgement of a request by both. It
//! swaps bundles under running requests; how bundles reach it is its submodules' to know.

mod authority;
mod config;
mod counters;
mod delivery;
mod exchange;
mod follow;
pub(crate) mod knock;
mod start;
mod unknown_key;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use servicechain_keys::{Generation, HeldBundle, NumericDate};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bearer;
use crate::caller::Caller;
use crate::rejected::{Rejected, TokenFault, Unavailable};
use crate::verified_cache::VerifiedCache;
use crate::verify::{issuer_of, largest_token, reach_verdict, still_holds};

use authority::Authority;
pub use config::{ArgsError, Clock, UnconfirmedStart, VerifierArgs, VerifierConfig};
pub use counters::Counters;
pub use delivery::Delivered;
use exchange::HttpClient;
pub use follow::Follower;
pub use start::StartError;
use start::Word;
use unknown_key::Inquiries;

/// Judges tokens for one process, by the newest bundle it holds and for one hop.
///
/// ```
/// # use servicechain_auth::specimen::{Specimen, bearing};
/// # let chain = Specimen::new();
/// # let verifier = chain.verifier();
/// # let headers = bearing(&chain.token());
/// use servicechain_auth::Judged;
///
/// match verifier.judge(&headers) {
///     Judged::Verified(caller) => println!("{caller} calls"),
///     Judged::Absent => println!("nobody calls"),
///     Judged::Rejected(rejected) => println!("{}: {}", rejected.status(), rejected.reason()),
///     // `authenticate` asks its authority.
///     Judged::UnknownKey(_) => println!("who signed this?"),
/// }
/// # assert!(matches!(verifier.judge(&headers), Judged::Verified(_)));
/// ```
pub struct Verifier {
    config: VerifierConfig,
    held: ArcSwapOption<HeldBundle>,
    /// The generation held, 0 for none; raised right after `held` was swapped.
    generation: AtomicU64,
    /// Told after every swap.
    generations: watch::Sender<Generation>,
    /// The generation that each of those who keep something open has judged by.
    followers: Mutex<Vec<watch::Receiver<Generation>>>,
    cache: VerifiedCache,
    counters: Counters,
    /// One bundle is taken at a time.
    taking: Mutex<()>,
    /// The generation that would survive a restart of the container, 0 for none.
    durable: AtomicU64,
    /// What the operator said since the start.
    word: watch::Sender<Word>,
    authority: Mutex<Authority>,
    started: Instant,
    /// When the operator last said anything, in milliseconds after `started`.
    confirmed_after: AtomicU64,
    inquiries: Inquiries,
    knocks: tokio::sync::Mutex<Option<Instant>>,
    client: HttpClient,
    tasks: Mutex<JoinSet<()>>,
    this: Weak<Self>,
}

/// What a request is, as far as can be said without asking anybody.
#[derive(Clone, Debug)]
pub enum Judged {
    /// It carries no token.
    Absent,
    Verified(Caller),
    Rejected(Rejected),
    /// Its token breaks no rule and names a key this verifier does not know. [`Verifier::authenticate`] asks.
    UnknownKey(Question),
}

/// What a request is. An unknown key about which nobody could be asked is a rejection with 503.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// It carries no token.
    Absent,
    Verified(Caller),
    Rejected(Rejected),
}

/// Whose key is unknown, and since when somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The issuer's name in the bundle.
    issuer: String,
    arrived: Instant,
}

impl Verifier {
    /// A verifier that holds nothing yet, reads no file and starts no task: [`Verifier::hold`] gives it a bundle.
    /// Unknown keys are answered 503, since it has nobody to ask. Most processes want [`Verifier::start`].
    #[must_use]
    pub fn new(config: VerifierConfig) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            held: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            generations: watch::Sender::new(Generation::default()),
            followers: Mutex::default(),
            cache: VerifiedCache::new(config.cache),
            counters: Counters::default(),
            taking: Mutex::new(()),
            durable: AtomicU64::new(0),
            word: watch::Sender::new(Word::Awaited),
            authority: Mutex::new(Authority::new(Instant::now())),
            started: Instant::now(),
            confirmed_after: AtomicU64::new(0),
            inquiries: Inquiries::default(),
            knocks: tokio::sync::Mutex::new(None),
            client: exchange::client(),
            tasks: Mutex::new(JoinSet::new()),
            this: this.clone(),
            config,
        })
    }

    /// Judges a request by its headers, without waiting for anybody: one header, one cache look-up and the clock where
    /// the token was verified before, else a whole verification.
    #[must_use]
    pub fn judge(&self, headers: &HeaderMap) -> Judged {
        match bearer::presented(headers) {
            Ok(Some(token)) => self.judge_token(token),
            Ok(None) => Judged::Absent,
            Err(rejected) => self.reject(rejected),
        }
    }

    /// Judges a caller again: at a new bundle, for what outlives its request (a stream).
    #[must_use]
    pub fn judge_again(&self, caller: &Caller) -> Judged {
        self.judge_token(caller.token().as_bytes())
    }

    /// As [`Verifier::judge`], and asks the issuer's authority about a key that is not known here (key protocol, line
    /// 18): for at most 1.5 s and not beyond the deadline.
    pub async fn authenticate(&self, headers: &HeaderMap, deadline: Option<Instant>) -> Authentication {
        match self.judge(headers) {
            Judged::Absent => Authentication::Absent,
            Judged::Verified(caller) => Authentication::Verified(caller),
            Judged::Rejected(rejected) => Authentication::Rejected(rejected),
            Judged::UnknownKey(question) => self.inquire(headers, question, deadline).await,
        }
    }

    /// The bundle held, if any.
    #[must_use]
    pub fn held(&self) -> Option<Arc<HeldBundle>> {
        self.held.load_full()
    }

    /// The generation held; 0 where none is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::new(self.generation.load(Ordering::SeqCst))
    }

    /// Tells every new generation, after requests are judged by it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.generations.subscribe()
    }

    /// What it was started with.
    #[must_use]
    pub const fn config(&self) -> &VerifierConfig {
        &self.config
    }

    /// Counted since the process started.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Tokens in the cache of verdicts.
    #[must_use]
    pub fn cached_tokens(&self) -> usize {
        self.cache.len()
    }

    /// The time by this verifier's clock.
    #[must_use]
    pub fn now(&self) -> NumericDate {
        (self.config.clock)().into()
    }

    fn judge_token(&self, token: &[u8]) -> Judged {
        if self.is_stale() {
            return self.reject(Unavailable::Stale);
        }
        loop {
            let held = self.held.load();
            let Some(bundle) = held.as_deref() else {
                return self.reject(Unavailable::NoBundle);
            };
            let judged = self.judge_under(token, bundle);
            // A bundle that was swapped in meanwhile may revoke what was just accepted. Once it is acknowledged, no
            // judgement by an older one may come out of here.
            if bundle.generation() >= self.generation() {
                return judged;
            }
        }
    }

    fn judge_under(&self, token: &[u8], bundle: &HeldBundle) -> Judged {
        if token.len() > largest_token(bundle) {
            return self.reject(TokenFault::TooLarge);
        }
        let now = self.now();
        let generation = bundle.generation();
        if let Some(verdict) = self.cache.get(token) {
            let holds = if verdict.was_judged_under(generation) {
                verdict.window.contains(now)
            } else {
                still_holds(&verdict, bundle, &self.config.hop, now)
            };
            if holds {
                verdict.judged_under(generation);
                self.counters.cache_hits.increment();
                return Judged::Verified(Caller::new(verdict, generation));
            }
            self.cache.remove(token);
        }
        match reach_verdict(token, bundle, &self.config.hop, now) {
            Ok(verdict) => {
                let verdict = Arc::new(verdict);
                self.cache.insert(Arc::clone(&verdict));
                self.counters.verified.increment();
                Judged::Verified(Caller::new(verdict, generation))
            }
            Err(Rejected::Unavailable(Unavailable::UnknownKey)) => match issuer_of(token, bundle) {
                Some(issuer) => Judged::UnknownKey(Question {
                    issuer: issuer.name.clone(),
                    arrived: Instant::now(),
                }),
                None => self.reject(TokenFault::UnknownIssuer),
            },
            Err(rejected) => self.reject(rejected),
        }
    }

    fn reject(&self, rejected: impl Into<Rejected>) -> Judged {
        let rejected = rejected.into();
        if matches!(rejected, Rejected::Unavailable(_)) {
            self.counters.unavailable.increment();
        } else {
            self.counters.rejected.increment();
            self.counters.refusals.token(&rejected);
        }
        Judged::Rejected(rejected)
    }

    fn is_stale(&self) -> bool {
        let longest = self.config.max_staleness;
        if longest.is_zero() || self.config.operator_url.is_none() {
            return false;
        }
        let confirmed_after = Duration::from_millis(self.confirmed_after.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(confirmed_after) > longest
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verifier")
            .field("hop", &self.config.hop.name)
            .field("generation", &self.generation())
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
