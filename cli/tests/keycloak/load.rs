//! Requests without a pause, each with a token that was just signed, and with the one that was given at the beginning.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::{StatusCode, header};
use serde_json::Value;
use servicechain_fixtures::await_condition;
use servicechain_keys::base64url;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::program::{Http, of_hops};
use super::{DEADLINE, provider};

/// Each asks for a token, and then for an item with it.
const CLIENTS: usize = 2;

pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
    over: CancellationToken,
}

/// What came of the requests so far.
#[derive(Debug, Default)]
struct Seen {
    passed: usize,
    /// 503 with Retry-After, and repeated.
    postponed: usize,
    refused: Vec<String>,
    /// The ids of keys whose tokens passed.
    keys: BTreeSet<String>,
    newest: String,
}

impl Load {
    pub(crate) fn start(url: &str, issuer: &str, first: &str) -> Self {
        let (seen, over) = (Arc::<Mutex<Seen>>::default(), CancellationToken::new());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (url, issuer, first) = (url.to_owned(), issuer.to_owned(), first.to_owned());
            let (seen, over) = (Arc::clone(&seen), over.clone());
            let asks = async move || {
                let http = Http::new();
                while !over.is_cancelled() {
                    let fresh = provider::access_token(&issuer).await;
                    get(&http, &url, &fresh, &seen).await;
                    get(&http, &url, &first, &seen).await;
                    seen.lock().unwrap().newest = fresh;
                }
            };
            clients.spawn_blocking(move || Handle::current().block_on(asks()));
        }
        Self { seen, clients, over }
    }

    /// Waits until tokens of so many keys have passed.
    pub(crate) async fn await_keys(&self, count: usize) {
        let what = format!("tokens of {count} keys to pass");
        await_condition(&what, DEADLINE, async || {
            let seen = self.seen.lock().unwrap();
            if seen.keys.len() == count {
                Ok(())
            } else {
                Err(format!("{} passed, {:?}", seen.passed, seen.refused))
            }
        })
        .await
        .unwrap();
    }

    /// The newest token there was.
    pub(crate) async fn end(self) -> String {
        self.over.cancel();
        tokio::time::timeout(DEADLINE, self.clients.join_all())
            .await
            .unwrap();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        println!(
            "requests {}, of {} keys, postponed {}, refused {}",
            seen.passed,
            seen.keys.len(),
            seen.postponed,
            seen.refused.len()
        );
        assert_eq!(seen.refused, [] as [String; 0]);
        seen.newest
    }
}

/// Asks until it is let through or refused, as a client that heeds Retry-After.
async fn get(http: &Http, url: &str, token: &str, seen: &Mutex<Seen>) {
    let asked = await_condition("an answer that is none to wait for", DEADLINE, async || {
        let (answer, body) = http.get(url, Some(token)).await;
        let mut seen = seen.lock().unwrap();
        match answer.status() {
            StatusCode::OK if of_hops(&body, "service") == ["a", "b", "c"] => {
                seen.passed += 1;
                seen.keys.insert(key_of(token));
                Ok(())
            }
            StatusCode::SERVICE_UNAVAILABLE if answer.headers().contains_key(header::RETRY_AFTER) => {
                seen.postponed += 1;
                Err(body)
            }
            status => {
                seen.refused.push(format!("{status}: {body}"));
                Ok(())
            }
        }
    });
    asked.await.unwrap();
}

fn key_of(token: &str) -> String {
    let head = base64url::decode(token.split('.').next().unwrap()).unwrap();
    let head: Value = serde_json::from_slice(&head).unwrap();
    head["kid"].as_str().unwrap().to_owned()
}
