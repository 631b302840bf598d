//! Keeps the addresses behind a name current: every two seconds, more often until there are any, and at once when a
//! connection failed.
//!
//! A name that stops resolving keeps its last good answer: a resolver that is down must not take the chain with it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Endpoint, Endpoints, UpstreamUrl};

const EVERY: Duration = Duration::from_secs(2);
/// Until the first good answer requests wait for it, as those of a service whose pods are just starting.
const EVERY_AT_FIRST: Duration = Duration::from_millis(250);
/// A storm of connection errors asks the resolver at most so often.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// A resolver that hangs is given up, so that the next attempt can come.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;
type Lookup = dyn Fn() -> BoxFuture<io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Follows one upstream. Its task ends when the last owner drops it.
pub struct Resolver {
    url: UpstreamUrl,
    shared: Arc<Shared>,
    _task: Option<AbortOnDropHandle<()>>,
}

struct Shared {
    endpoints: ArcSwap<Endpoints>,
    again: Notify,
    answered: watch::Sender<bool>,
}

impl Resolver {
    /// Begins to follow `url`; it must be called within a tokio runtime. A literal address needs no resolver.
    #[must_use]
    pub fn start(url: &UpstreamUrl) -> Arc<Self> {
        if let Ok(address) = url.host().trim_matches(['[', ']']).parse::<IpAddr>() {
            let endpoints = Endpoints::from_iter([Arc::new(Endpoint::new((address, url.port()).into()))]);
            return Arc::new(Self {
                url: url.clone(),
                shared: Arc::new(Shared::new(endpoints, true)),
                _task: None,
            });
        }
        let (host, port) = (Arc::<str>::from(url.host()), url.port());
        Self::follow(
            url,
            Box::new(move || {
                let host = Arc::clone(&host);
                Box::pin(async move { Ok(tokio::net::lookup_host((&*host, port)).await?.collect()) })
            }),
        )
    }

    /// Addresses that stay as they are.
    #[must_use]
    pub fn fixed(url: &UpstreamUrl, addresses: &[SocketAddr]) -> Arc<Self> {
        let endpoints = addresses
            .iter()
            .map(|address| Arc::new(Endpoint::new(*address)))
            .collect();
        Arc::new(Self {
            url: url.clone(),
            shared: Arc::new(Shared::new(endpoints, true)),
            _task: None,
        })
    }

    fn follow(url: &UpstreamUrl, lookup: Box<Lookup>) -> Arc<Self> {
        let shared = Arc::new(Shared::new(Endpoints::default(), false));
        let task = tokio::spawn(follow(url.clone(), Arc::clone(&shared), lookup));
        Arc::new(Self {
            url: url.clone(),
            shared,
            _task: Some(AbortOnDropHandle::new(task)),
        })
    }

    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    /// The addresses of now; empty until the first answer. No lock is taken.
    #[must_use]
    pub fn endpoints(&self) -> Guard<Arc<Endpoints>> {
        self.shared.endpoints.load()
    }

    /// Tells that a connection failed, so that the name is resolved again at once.
    pub fn resolve_again(&self) {
        self.shared.again.notify_one();
    }

    /// Waits for the first good answer.
    pub async fn answered(&self) {
        // The sender lives in `self`.
        let _ = self
            .shared
            .answered
            .subscribe()
            .wait_for(|answered| *answered)
            .await;
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("url", &self.url)
            .field("endpoints", &**self.endpoints())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(endpoints: Endpoints, answered: bool) -> Self {
        Self {
            endpoints: ArcSwap::from_pointee(endpoints),
            again: Notify::new(),
            answered: watch::Sender::new(answered),
        }
    }

    fn take(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        let before = self.endpoints.load();
        if before
            .as_slice()
            .iter()
            .map(|endpoint| endpoint.address())
            .eq(addresses.iter().copied())
        {
            return;
        }
        // An address that stays keeps its count of requests in flight.
        let keep_or_make = |address: SocketAddr| {
            let known = before
                .as_slice()
                .iter()
                .find(|endpoint| endpoint.address() == address);
            known.map_or_else(|| Arc::new(Endpoint::new(address)), Arc::clone)
        };
        self.endpoints
            .store(Arc::new(addresses.into_iter().map(keep_or_make).collect()));
    }
}

async fn follow(url: UpstreamUrl, shared: Arc<Shared>, lookup: Box<Lookup>) {
    let mut failing = false;
    loop {
        let begun = Instant::now();
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup())
            .await
            .unwrap_or_else(|late| Err(late.into()))
        {
            Ok(addresses) if !addresses.is_empty() => {
                shared.take(addresses);
                shared.answered.send_replace(true);
                failing = false;
            }
            answer => {
                // Said once, not every two seconds.
                if !failing {
                    let error = answer
                        .err()
                        .map_or_else(|| "no addresses".to_owned(), |error| error.to_string());
                    tracing::warn!(upstream = %url, error, "name does not resolve; the last good answer stays");
                }
                failing = true;
            }
        }
        tokio::time::sleep_until(begun + AT_MOST_EVERY).await;
        let every = if *shared.answered.borrow() {
            EVERY
        } else {
            EVERY_AT_FIRST
        };
        let _ = tokio::time::timeout_at(begun + every, shared.again.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Script {
        resolver: Arc<Resolver>,
        answer: Arc<Mutex<io::Result<Vec<u16>>>>,
        asked: watch::Receiver<Vec<Instant>>,
    }

    fn script(ports: &[u16]) -> Script {
        let answer = Arc::new(Mutex::new(io::Result::Ok(ports.to_vec())));
        let (asking, asked) = watch::channel(Vec::new());
        let current = Arc::clone(&answer);
        let lookup: Box<Lookup> = Box::new(move || {
            asking.send_modify(|times: &mut Vec<Instant>| times.push(Instant::now()));
            let answer = match &*current.lock().unwrap() {
                Ok(ports) => Ok(ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect()),
                Err(error) => Err(io::Error::from(error.kind())),
            };
            Box::pin(std::future::ready(answer))
        });
        let resolver = Resolver::follow(&"http://b:1".parse().unwrap(), lookup);
        Script {
            resolver,
            answer,
            asked,
        }
    }

    fn ports(resolver: &Resolver) -> Vec<u16> {
        resolver
            .endpoints()
            .as_slice()
            .iter()
            .map(|endpoint| endpoint.address().port())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_resolved_again_every_two_seconds() {
        let mut script = script(&[2, 1, 2]);
        script.resolver.answered().await;
        assert_eq!(ports(&script.resolver), [1, 2]);
        *script.answer.lock().unwrap() = Ok(vec![2, 3]);
        script.asked.wait_for(|times| times.len() == 2).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(ports(&script.resolver), [2, 3]);
        let times = script.asked.borrow();
        assert_eq!(times[1] - times[0], EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_resolved_is_asked_for_more_often_until_it_does() {
        let mut script = script(&[]);
        let begun = Instant::now();
        script.asked.wait_for(|times| times.len() == 3).await.unwrap();
        *script.answer.lock().unwrap() = Ok(vec![1]);
        script.resolver.answered().await;
        assert_eq!(ports(&script.resolver), [1]);
        assert_eq!(Instant::now() - begun, 3 * EVERY_AT_FIRST);
        script.asked.wait_for(|times| times.len() == 5).await.unwrap();
        let times = script.asked.borrow();
        assert_eq!(times[4] - times[3], EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_error_resolves_at_once_and_a_storm_at_most_every_100_ms() {
        let mut script = script(&[1]);
        script.resolver.answered().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reported = Instant::now();
        script.resolver.resolve_again();
        script.asked.wait_for(|times| times.len() == 2).await.unwrap();
        assert_eq!(script.asked.borrow()[1], reported);
        for _ in 0..50 {
            script.resolver.resolve_again();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = script.asked.borrow().len();
        assert!((6..=8).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_outlives_a_resolver_that_fails() {
        let mut script = script(&[1]);
        script.resolver.answered().await;
        let count = script.resolver.endpoints().as_slice()[0].begin();
        for bad in [Err(io::ErrorKind::NotFound.into()), Ok(vec![])] {
            *script.answer.lock().unwrap() = bad;
            let so_far = script.asked.borrow().len();
            script
                .asked
                .wait_for(|times| times.len() > so_far + 1)
                .await
                .unwrap();
            assert_eq!(ports(&script.resolver), [1]);
        }
        *script.answer.lock().unwrap() = Ok(vec![1, 2]);
        let so_far = script.asked.borrow().len();
        script
            .asked
            .wait_for(|times| times.len() > so_far + 1)
            .await
            .unwrap();
        assert_eq!(ports(&script.resolver), [1, 2]);
        assert_eq!(script.resolver.endpoints().as_slice()[0].in_flight(), 1);
        drop(count);
    }

    #[tokio::test]
    async fn a_literal_address_is_there_at_once() {
        let resolver = Resolver::start(&"http://[::1]:81".parse().unwrap());
        resolver.answered().await;
        assert_eq!(
            resolver.endpoints().as_slice()[0].address(),
            "[::1]:81".parse().unwrap()
        );
    }

    #[tokio::test]
    async fn localhost_is_resolved_by_the_system() {
        let resolver = Resolver::start(&"http://localhost:81".parse().unwrap());
        resolver.answered().await;
        assert!(resolver.endpoints().contains("127.0.0.1:81".parse().unwrap()));
    }
}
