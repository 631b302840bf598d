//! What one request meets on its way through the chain, hop by hop, when all is well and when something is not.
#![cfg(test)]

mod bad_token;
mod cache_race;
mod gateway_replica;
mod malformed;
mod metrics;
mod outage;
mod owner;
mod token_passed_on;

use servicechain_e2e::client::{Answer, get, put};
use servicechain_e2e::{Chain, Plan};

/// A chain as most tests want it.
async fn chain() -> Chain {
    Chain::start(Plan::new().unwrap()).await.unwrap()
}

async fn read(chain: &Chain, id: &str, token: &str) -> Answer {
    get(chain.gateway.address, &format!("/items/{id}"), Some(token))
        .await
        .unwrap()
}

async fn write(chain: &Chain, id: &str, token: &str, item: &str) -> Answer {
    put(chain.gateway.address, &format!("/items/{id}"), token, item)
        .await
        .unwrap()
}

/// A member of A's entry in the folded reply.
fn at_a(answer: &Answer, member: &str) -> serde_json::Value {
    answer.json().unwrap()["hops"][0][member].clone()
}
