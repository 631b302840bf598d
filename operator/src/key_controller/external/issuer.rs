//! One external issuer: a task that fetches its keys one fetch at a time, and what is known of it for everybody else. Its
//! last good answer stands until there is a better one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use servicechain_keys::{Algorithm, Fetched, NumericDate};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::answer::{NotGood, PublishedKeys, key_set_uri, published_keys};
use super::fetch::{self, Document, FetchError, Place, Validators};
use super::rules::FetchRules;
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::key_controller::chain_of;
use crate::metrics::keys::Fetches;

/// Where a discovery document said that the keys are is believed for so long.
const DISCOVERED_FOR: Duration = Duration::from_hours(1);

/// Everything that says how an issuer's keys are fetched. Another source is another issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// In the chain.
    pub name: String,
    /// The exact `iss`.
    pub url: String,
    /// None: where discovery says.
    pub jwks_uri: Option<String>,
    pub algorithms: Vec<Algorithm>,
    /// PEM, none for the public certificates; or why it is not there.
    pub ca_bundle: Result<Option<String>, String>,
    pub refresh_interval: Duration,
}

/// What is known of an issuer.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Fetches that have begun, that are wanted, and that have ended, counted from 1.
    begun: u64,
    wanted: u64,
    ended: u64,
    fetched: Option<Fetched>,
    held_until: Option<Instant>,
    pub published: Option<PublishedKeys>,
    /// When other keys were found in its answer.
    pub changed: Option<Instant>,
    /// Why the last fetch brought nothing.
    pub problem: Option<String>,
    pub fetches: Fetches,
    /// What was refused in an answer of which nothing could be used.
    pub refused: Vec<String>,
}

pub(super) struct Issuer {
    source: Source,
    known: watch::Sender<Known>,
    asked: Notify,
}

/// What a fetch goes by that another one found out.
#[derive(Default)]
struct Memory {
    discovered: Option<(Instant, String)>,
    /// Of the answer that is known, and where that came from.
    validators: Validators,
    place: Option<Place>,
}

#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Document(#[from] NotGood),
}

impl Issuer {
    pub(super) fn new(source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            known: watch::Sender::default(),
            asked: Notify::new(),
        })
    }

    pub(super) const fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// What a fetch brings that begins from now on; at once where it wants to be left alone.
    pub(super) async fn fetch_now(&self) -> Fetched {
        let mut number = None;
        self.known.send_modify(|known| {
            if known.held_until.is_none_or(|until| until <= Instant::now()) {
                known.wanted = known.wanted.max(known.begun + 1);
                number = Some(known.wanted);
            }
        });
        let Some(number) = number else {
            return Fetched::Failed;
        };
        self.asked.notify_one();
        let mut known = self.known.subscribe();
        let ended = known.wait_for(|known| known.ended >= number).await;
        ended
            .ok()
            .and_then(|known| known.fetched)
            .unwrap_or(Fetched::Failed)
    }

    /// Fetches until it is dropped. `changed` is told when something else is known.
    pub(super) async fn run(self: Arc<Self>, rules: FetchRules, clock: Clock, changed: Arc<Notify>) {
        let tls = match self.trust() {
            Ok(tls) => tls,
            Err(problem) => {
                tracing::warn!(
                    issuer = self.source.name,
                    problem,
                    "an issuer's keys cannot be fetched"
                );
                self.known.send_modify(|known| known.problem = Some(problem));
                changed.notify_one();
                return self.answer_nothing().await;
            }
        };
        let mut schedule = Schedule::new(self.source.refresh_interval, Instant::now());
        let mut memory = Memory::default();
        loop {
            self.until_due(&schedule).await;
            schedule.begin(Instant::now(), rand::random_range(0.0..1.0));
            self.known.send_modify(|known| {
                known.begun += 1;
                known.held_until = None;
            });
            let outcome = self.fetch(&mut memory, &rules, &tls, clock()).await;
            let jitter = rand::random_range(0.0..1.0);
            match &outcome {
                Ok((_, max_age)) => schedule.succeeded(Instant::now(), *max_age, jitter),
                Err(error) => {
                    let retry_after = match error {
                        NoKeys::Fetch(FetchError::Status { retry_after, .. }) => *retry_after,
                        _ => None,
                    };
                    schedule.failed(Instant::now(), retry_after, jitter);
                    let (issuer, error) = (&self.source.name, chain_of(error));
                    tracing::warn!(
                        issuer,
                        error,
                        "an issuer's keys were not fetched; those that are known stay"
                    );
                }
            }
            let outcome = outcome.map(|(published, _)| published);
            if self.take_in(outcome, schedule.held_until(), clock().into()) {
                changed.notify_one();
            }
        }
    }

    fn trust(&self) -> Result<TlsConnector, String> {
        let given = self.source.ca_bundle.as_ref().map_err(Clone::clone)?;
        fetch::tls(given.as_deref()).map_err(|error| error.to_string())
    }

    /// Nothing can be fetched, so whoever asks hears that at once.
    async fn answer_nothing(&self) {
        loop {
            self.asked.notified().await;
            self.known.send_modify(|known| {
                known.begun = known.wanted;
                known.ended = known.wanted;
                known.fetched = Some(Fetched::Failed);
            });
        }
    }

    async fn until_due(&self, schedule: &Schedule) {
        loop {
            let is_asked = {
                let known = self.known.borrow();
                known.wanted > known.begun
            };
            tokio::select! {
                () = tokio::time::sleep_until(schedule.due(is_asked)) => return,
                () = self.asked.notified() => {}
            }
        }
    }

    /// None: the answer that is known still stands.
    async fn fetch(
        &self,
        memory: &mut Memory,
        rules: &FetchRules,
        tls: &TlsConnector,
        now: SystemTime,
    ) -> Result<(Option<PublishedKeys>, Option<Duration>), NoKeys> {
        let fetched = self.fetch_key_set(memory, rules, tls, now).await;
        if fetched.is_err() {
            // Its keys may be somewhere else by now, and what is known must be confirmed as a whole.
            *memory = Memory::default();
        }
        fetched
    }

    async fn fetch_key_set(
        &self,
        memory: &mut Memory,
        rules: &FetchRules,
        tls: &TlsConnector,
        now: SystemTime,
    ) -> Result<(Option<PublishedKeys>, Option<Duration>), NoKeys> {
        let uri = match (&self.source.jwks_uri, &memory.discovered) {
            (Some(given), _) => given.clone(),
            (None, Some((when, uri))) if when.elapsed() < DISCOVERED_FOR => uri.clone(),
            (None, _) => {
                let uri = self.discover(rules, tls, now).await?;
                memory.discovered = Some((Instant::now(), uri.clone()));
                uri
            }
        };
        let place = Place::parse(&uri, rules)?;
        if memory.place.as_ref() != Some(&place) {
            memory.validators = Validators::default();
        }
        let document = fetch::fetch(&place, rules, tls, &memory.validators, now).await?;
        let Document {
            bytes,
            validators,
            max_age,
        } = document;
        let published = bytes
            .map(|bytes| published_keys(&bytes, &self.source.algorithms))
            .transpose()?;
        memory.validators = validators;
        memory.place = Some(place);
        Ok((published, max_age))
    }

    /// `OpenID` Connect Discovery section 4.
    async fn discover(
        &self,
        rules: &FetchRules,
        tls: &TlsConnector,
        now: SystemTime,
    ) -> Result<String, NoKeys> {
        let issuer = &self.source.url;
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let place = Place::parse(&url, rules)?;
        let document = fetch::fetch(&place, rules, tls, &Validators::default(), now).await?;
        Ok(key_set_uri(&document.bytes.unwrap_or_default(), issuer)?)
    }

    /// Whether something else is known now.
    fn take_in(
        &self,
        outcome: Result<Option<PublishedKeys>, NoKeys>,
        held_until: Option<Instant>,
        now: NumericDate,
    ) -> bool {
        let mut is_news = false;
        self.known.send_modify(|known| {
            known.ended = known.begun;
            known.held_until = held_until;
            if outcome.is_ok() {
                known.fetches.good += 1;
                known.fetches.last_good = Some(now);
            } else {
                known.fetches.failed += 1;
            }
            let (fetched, problem, refused) = match outcome {
                Ok(Some(published)) if known.published.as_ref() != Some(&published) => {
                    let before = known.published.as_ref().map(|before| &before.keys);
                    let are_other_keys = before != Some(&published.keys);
                    if are_other_keys {
                        known.changed = Some(Instant::now());
                    }
                    known.published = Some(published);
                    is_news = true;
                    let fetched = if are_other_keys {
                        Fetched::New
                    } else {
                        Fetched::Same
                    };
                    (fetched, None, Vec::new())
                }
                Ok(_) => (Fetched::Same, None, Vec::new()),
                Err(error) => {
                    let refused = match &error {
                        NoKeys::Document(NotGood::NoUsableKey(refused)) => refused.clone(),
                        _ => Vec::new(),
                    };
                    (Fetched::Failed, Some(error.to_string()), refused)
                }
            };
            is_news |= known.problem != problem || known.refused != refused;
            known.fetched = Some(fetched);
            known.problem = problem;
            known.refused = refused;
        });
        is_news
    }
}
