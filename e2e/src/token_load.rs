//! Clients that fetch tokens all the time, use each of them again and again until it ends, and look at every answer in
//! full. None repeats a request. What an answer may be follows from the token: whose it is, and when it was revoked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use servicechain_fixtures::await_condition;
use tokio::task::JoinSet;

use crate::client::{Answer, DEADLINE, Kept, Unanswered, request};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(25);
/// Between two tokens of one client.
const FETCH_EVERY: Duration = Duration::from_millis(250);
/// A token is used no more so long before its end: it ends on whole seconds, and a request takes its time.
const BEFORE_ITS_END: Duration = Duration::from_secs(2);
/// What every subject has on every hop: an item that says its own name.
pub const ITEM: &str = "/items/1";
pub const HOPS: [&str; 3] = ["a", "b", "c"];

/// Running clients; dropped, they end.
#[derive(Debug)]
pub struct TokenLoad {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    count: usize,
}

/// Who fetches tokens.
#[derive(Clone)]
pub struct Credentials {
    pub id: String,
    pub secret: String,
}

/// A token in use.
pub struct Token {
    pub text: String,
    pub subject: String,
    ends: Instant,
    /// Its revocation was ordered: from then on it may be refused.
    ordered: OnceLock<Instant>,
    /// Its revocation was answered: from then on it must be refused.
    answered: OnceLock<Instant>,
}

#[derive(Debug)]
struct Shared {
    gateway: SocketAddr,
    tokens: Mutex<Vec<Arc<Token>>>,
    turn: AtomicUsize,
    requests: AtomicU64,
    fetched: AtomicU64,
    mishaps: Mutex<Vec<Mishap>>,
    stop: AtomicBool,
}

/// A request that was not answered as it must be.
#[derive(Clone, Debug)]
pub struct Mishap {
    pub kind: Kind,
    pub began: Instant,
    pub ended: Instant,
    /// What the problem names, if there is one.
    pub hop: Option<String>,
    /// For people.
    pub story: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// 401 for a valid token.
    RefusedValid,
    /// 5xx.
    ServerError,
    /// A good answer for a token whose revocation was answered before.
    AcceptedRevoked,
    /// Any other answer, or a good one that is not about its subject.
    Wrong,
    /// The connection broke, or none came about.
    Broken,
}

/// What all clients saw together.
#[derive(Debug)]
pub struct Seen {
    /// For items and for tokens.
    pub requests: u64,
    /// Tokens that were issued meanwhile.
    pub fetched: u64,
    pub mishaps: Vec<Mishap>,
}

/// When a container was ended, as well as can be said from here.
#[derive(Clone, Debug)]
pub struct Killed {
    /// As problems name it.
    pub hop: String,
    pub not_before: Instant,
    pub not_after: Instant,
}

impl TokenLoad {
    /// `askers` clients that ask for [`ITEM`], and one for each of `credentials` that fetches tokens and uses each once.
    #[must_use]
    pub fn start(gateway: SocketAddr, askers: usize, credentials: &[Credentials]) -> Self {
        let shared = Arc::new(Shared {
            gateway,
            tokens: Mutex::default(),
            turn: AtomicUsize::default(),
            requests: AtomicU64::default(),
            fetched: AtomicU64::default(),
            mishaps: Mutex::default(),
            stop: AtomicBool::default(),
        });
        let mut clients = JoinSet::new();
        for _ in 0..askers {
            clients.spawn(Arc::clone(&shared).ask_again_and_again());
        }
        for credentials in credentials {
            clients.spawn(Arc::clone(&shared).fetch_again_and_again(credentials.clone()));
        }
        let count = clients.len();
        Self {
            shared,
            clients,
            count,
        }
    }

    /// How many clients there are: no more requests are ever under way at once.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.count
    }

    /// Has the clients use this token too.
    pub fn take_up(&self, token: &Arc<Token>) {
        self.shared.tokens().push(Arc::clone(token));
    }

    /// Waits until `count` more requests were answered.
    pub async fn await_answers(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.shared.requests.load(Ordering::Relaxed) + count;
        await_condition(&format!("{count} more answers"), DEADLINE, async || {
            let answered = self.shared.requests.load(Ordering::Relaxed);
            if answered >= goal {
                Ok(())
            } else {
                Err(format!("{answered} of {goal}"))
            }
        })
        .await
    }

    /// So far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mishaps = self.shared.mishaps.lock();
        Seen {
            requests: self.shared.requests.load(Ordering::Relaxed),
            fetched: self.shared.fetched.load(Ordering::Relaxed),
            mishaps: mishaps.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Lets every client finish its request. A client that panicked is an error.
    pub async fn stop(mut self) -> anyhow::Result<Seen> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client?;
        }
        Ok(self.seen())
    }
}

impl Token {
    /// Good for `lifetime` from `since`.
    #[must_use]
    pub fn new(text: String, subject: &str, since: Instant, lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            text,
            subject: subject.to_owned(),
            ends: since + lifetime.saturating_sub(BEFORE_ITS_END),
            ordered: OnceLock::new(),
            answered: OnceLock::new(),
        })
    }

    /// Asks the issuer behind the gateway for one (RFC 6749, section 4.4).
    pub async fn fetch(gateway: SocketAddr, credentials: &Credentials) -> anyhow::Result<Arc<Self>> {
        let began = Instant::now();
        let answer = Kept::to(gateway).ask(&credentials.form()).await;
        match answer {
            Ok(answer) => token_of(&answer, credentials, began),
            Err(error) => bail!("no token: {error:?}"),
        }
    }

    pub fn is_ordered_revoked(&self) {
        let _ = self.ordered.set(Instant::now());
    }

    pub fn is_answered_revoked(&self) {
        let _ = self.answered.set(Instant::now());
    }

    /// A claim, read and not verified.
    pub fn claim(&self, name: &str) -> anyhow::Result<String> {
        word(&self.text, 1, name)
    }

    #[must_use]
    pub fn get(&self, path: &str, connection: &str) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.text);
        request(
            "GET",
            path,
            &[("authorization", &bearer), ("connection", connection)],
            "",
        )
    }
}

impl Credentials {
    fn form(&self) -> Vec<u8> {
        let (id, secret) = (&self.id, &self.secret);
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let head = format!(
            "POST /oauth2/token HTTP/1.1\r\nhost: shop.test\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        head.into_bytes()
    }
}

impl Shared {
    fn tokens(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Token>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One after the other, so that the oldest are used as often as the newest.
    fn next_token(&self) -> Option<Arc<Token>> {
        let mut tokens = self.tokens();
        let now = Instant::now();
        tokens.retain(|token| token.ends > now);
        if tokens.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % tokens.len();
        Some(Arc::clone(&tokens[turn]))
    }

    async fn ask_again_and_again(self: Arc<Self>) {
        let mut connection = Kept::to(self.gateway);
        let mut pace = pace(PAUSE);
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            if let Some(token) = self.next_token() {
                self.ask(&mut connection, &token).await;
            }
        }
    }

    async fn fetch_again_and_again(self: Arc<Self>, credentials: Credentials) {
        let mut connection = Kept::to(self.gateway);
        let mut pace = pace(FETCH_EVERY);
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let began = Instant::now();
            let answer = connection.ask(&credentials.form()).await;
            self.requests.fetch_add(1, Ordering::Relaxed);
            let issued = match &answer {
                Ok(answer) if answer.status == 200 => token_of(answer, &credentials, began),
                _ => Err(anyhow::anyhow!("no token")),
            };
            if let Ok(token) = issued {
                self.fetched.fetch_add(1, Ordering::Relaxed);
                // At once, by who has it, and then by everybody.
                self.ask(&mut connection, &token).await;
                self.tokens().push(token);
            } else {
                self.note(fault(&answer), "POST /oauth2/token", began, &answer);
            }
        }
    }

    async fn ask(&self, connection: &mut Kept, token: &Token) {
        let began = Instant::now();
        let answer = connection.ask(&token.get(ITEM, "keep-alive")).await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = judge(token, began, &answer) {
            let kid = word(&token.text, 0, "kid").unwrap_or_default();
            let left = token.ends.saturating_duration_since(began) + BEFORE_ITS_END;
            let about = format!(
                "{ITEM} of {} by key {kid}, {} s before its end",
                token.subject,
                left.as_secs()
            );
            self.note(kind, &about, began, &answer);
        }
    }

    fn note(&self, kind: Kind, about: &str, began: Instant, answer: &Result<Answer, Unanswered>) {
        let hop = answer
            .as_ref()
            .ok()
            .and_then(|answer| answer.json().ok()?["hop"].as_str().map(str::to_owned));
        let mishap = Mishap {
            kind,
            began,
            ended: Instant::now(),
            hop,
            story: format!("{about}: {answer:?}"),
        };
        self.mishaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mishap);
    }
}

impl Seen {
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.mishaps.iter().filter(|mishap| mishap.kind == kind).count()
    }

    /// How many mishaps of each kind there were.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for mishap in &self.mishaps {
            *counts.entry(mishap.kind).or_default() += 1;
        }
        counts
    }

    /// Takes out what was inside containers when they were ended, and says how many that were by container.
    pub fn take_inside(&mut self, killed: &[Killed]) -> BTreeMap<String, usize> {
        let mut inside = BTreeMap::new();
        self.mishaps.retain(|mishap| {
            let killed = killed.iter().find(|killed| mishap.was_inside(killed));
            if let Some(killed) = killed {
                *inside.entry(killed.hop.clone()).or_default() += 1;
            }
            killed.is_none()
        });
        inside
    }
}

impl Mishap {
    /// It was under way when the container was ended, and what failed is named to be there. A wrong answer, or a 401, is
    /// never excused.
    fn was_inside(&self, killed: &Killed) -> bool {
        self.kind == Kind::ServerError
            && self.hop.as_deref() == Some(&killed.hop)
            && self.began <= killed.not_after
            && self.ended >= killed.not_before
    }
}

/// None for what must be.
fn judge(token: &Token, began: Instant, answer: &Result<Answer, Unanswered>) -> Option<Kind> {
    match answer {
        Ok(answer) if answer.status == 200 && is_whole(answer, &token.subject) => {
            let is_revoked = token.answered.get().is_some_and(|answered| *answered < began);
            is_revoked.then_some(Kind::AcceptedRevoked)
        }
        Ok(answer) if answer.status == 401 && token.ordered.get().is_some() => None,
        _ => Some(fault(answer)),
    }
}

fn fault(answer: &Result<Answer, Unanswered>) -> Kind {
    match answer {
        Ok(answer) if answer.status == 401 => Kind::RefusedValid,
        Ok(answer) if answer.status >= 500 => Kind::ServerError,
        Ok(_) => Kind::Wrong,
        Err(_) => Kind::Broken,
    }
}

/// All hops in their order, each with this subject's item.
fn is_whole(answer: &Answer, subject: &str) -> bool {
    let Ok(body) = answer.json() else { return false };
    let hops = body["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    hops.len() == HOPS.len()
        && hops
            .iter()
            .zip(HOPS)
            .all(|(hop, name)| hop["service"] == name && hop["item"]["name"] == subject)
}

fn token_of(answer: &Answer, credentials: &Credentials, since: Instant) -> anyhow::Result<Arc<Token>> {
    let body = answer.json()?;
    let (Some(text), Some(lifetime)) = (body["access_token"].as_str(), body["expires_in"].as_u64()) else {
        bail!("no token: {answer:?}");
    };
    let lifetime = Duration::from_secs(lifetime);
    Ok(Token::new(text.to_owned(), &credentials.id, since, lifetime))
}

/// A member of a token's header (0) or claims (1).
fn word(token: &str, part: usize, name: &str) -> anyhow::Result<String> {
    let part = token.split('.').nth(part).context("a token has three parts")?;
    let object: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?;
    let word = object[name].as_str();
    Ok(word
        .with_context(|| format!("a token says no {name}"))?
        .to_owned())
}

fn pace(every: Duration) -> tokio::time::Interval {
    let mut pace = tokio::time::interval(every);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Token")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
