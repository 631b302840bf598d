//! Tells the operator that this verifier started or met an unknown key (key protocol, line 15), and believes the
//! answer only by its MAC over the nonce of this knock.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use servicechain_keys::knock::MAX_KNOCK_BYTES;
use servicechain_keys::wire::{KNOCK_PATH, MAC};
use servicechain_keys::{Knock, KnockAnswer, KnockReason, Mac, Nonce};
use tokio::time::Instant;

use super::Verifier;
use super::exchange::{ExchangeError, exchange};
use super::start::BETWEEN_KNOCKS;

/// Why a knock brought no word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWord {
    #[error("no operator to knock at, or no key to knock with")]
    Nobody,
    #[error("the address to knock at is no http URL")]
    Address,
    #[error("the knock could not be sealed")]
    Seal(#[from] serde_json::Error),
    #[error("no answer")]
    Exchange(#[from] ExchangeError),
    #[error("it cannot say yet")]
    NotYet,
    #[error("the answer is not authentic")]
    NotAuthentic,
    #[error("nobody there is surely the leader")]
    NoLeader,
}

impl Verifier {
    /// Knocks, follows a non-leader's word to the leader once, and returns the leader's answer.
    pub(super) async fn knock(
        &self,
        reason: KnockReason,
        issuer: Option<&str>,
    ) -> Result<KnockAnswer, NoWord> {
        let operator = self.config.operator_url.as_ref().ok_or(NoWord::Nobody)?;
        let mut last = self.knocks.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep_until(last + BETWEEN_KNOCKS).await;
        }
        *last = Some(Instant::now());
        drop(last);
        let mut answer = self.knock_at(operator, reason, issuer).await?;
        if answer.generation.is_none() {
            let leader = answer.leader.as_deref().ok_or(NoWord::NoLeader)?;
            let leader = leader_url(leader).ok_or(NoWord::Address)?;
            answer = self.knock_at(&leader, reason, issuer).await?;
        }
        if answer.generation.is_none() {
            return Err(NoWord::NoLeader);
        }
        let after = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.confirmed_after.store(after, Ordering::Relaxed);
        Ok(answer)
    }

    async fn knock_at(
        &self,
        operator: &Uri,
        reason: KnockReason,
        issuer: Option<&str>,
    ) -> Result<KnockAnswer, NoWord> {
        let key = self.config.ack_key.as_ref().ok_or(NoWord::Nobody)?;
        let nonce = Nonce::new(rand::random());
        let knock = Knock {
            chain: self.config.trust.chain.clone(),
            pod: self.config.pod.clone(),
            workload: self.config.workload.clone(),
            generation: self.generation(),
            reason,
            issuer: issuer.map(str::to_owned),
            nonce,
            time: self.now(),
        };
        let sealed = knock.seal(key)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(below(operator, KNOCK_PATH).ok_or(NoWord::Address)?)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(MAC, sealed.mac.to_string())
            .body(Full::new(Bytes::from(sealed.body)))
            .map_err(|_| NoWord::Address)?;
        let reply = exchange(&self.client, request, MAX_KNOCK_BYTES).await?;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(NoWord::NotYet);
        }
        let mac: Option<Mac> = reply
            .headers
            .get(MAC)
            .and_then(|mac| mac.to_str().ok()?.parse().ok());
        KnockAnswer::open(
            &reply.body,
            &mac.ok_or(NoWord::NotAuthentic)?,
            key,
            &nonce,
            &self.config.pod,
        )
        .map_err(|_| NoWord::NotAuthentic)
    }
}

/// A path below a base URL, whether that ends in a slash or not.
pub(super) fn below(base: &Uri, path: &str) -> Option<Uri> {
    base.scheme()?;
    format!("{}{path}", base.to_string().trim_end_matches('/'))
        .parse()
        .ok()
}

/// A leader is named by its URL, or by host and port.
fn leader_url(leader: &str) -> Option<Uri> {
    let url: Uri = if leader.contains("://") {
        leader.parse().ok()?
    } else {
        format!("http://{leader}").parse().ok()?
    };
    (url.scheme_str() == Some("http")).then_some(url)
}
