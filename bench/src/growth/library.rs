//! Issuers and keys: one verification by bundles that hold more and more of them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use servicechain_auth::specimen::{managed_issuer, new_key, sign_claims};
use servicechain_auth::{Hop, verify};
use servicechain_keys::Algorithm::ES256;
use servicechain_keys::bundle::{MAX_ISSUERS, MAX_KEYS_PER_ISSUER};
use servicechain_keys::{Issuer, SigningKey};

use super::{BENCH, OURS};
use crate::calls::{self, Calls};
use crate::chain::{AUDIENCE, Chain};
use crate::process::{MEASURED_CORE, pin};
use crate::report::Row;
use crate::settings::{Budget, Settings};

/// What the others are compared with.
const FIRST: &str = "1 of them";

pub(super) fn measure(settings: &Settings, chain: &Chain, budget: Budget) -> Result<Vec<Row>> {
    pin(MEASURED_CORE)?;
    let most = settings.amount(MAX_KEYS_PER_ISSUER * MAX_ISSUERS, 64);
    let keys: Vec<SigningKey> = (0..most).map(|_| new_key(ES256)).collect();
    let (slice, rounds) = (
        Duration::from_millis(settings.amount(50, 2)),
        settings.rounds * settings.amount(4, 1),
    );
    let mut rows = Vec::new();
    let mut parts = 2;
    for (case, shapes) in [
        ("issuers", vec![(1, 1), (2, 1), (4, 1), (8, 1), (MAX_ISSUERS, 1)]),
        (
            "keys",
            vec![
                (1, 1),
                (1, 8),
                (1, MAX_KEYS_PER_ISSUER),
                (4, MAX_KEYS_PER_ISSUER),
                (MAX_ISSUERS, MAX_KEYS_PER_ISSUER),
            ],
        ),
    ] {
        let mut all = Vec::new();
        for (issuers, each) in shapes {
            let count = issuers * each;
            if count <= most {
                let row = Row::new(BENCH, case, OURS).at(u64::try_from(count)?);
                let call = verification(chain, &keys, issuers, each)?;
                all.push(if count == 1 {
                    Calls::new(FIRST, row, call)
                } else {
                    Calls::new("many", row, call).over(FIRST)
                });
            }
        }
        rows.extend(calls::measure(&mut all, rounds, slice, budget.share(parts))?);
        parts -= 1;
    }
    Ok(rows)
}

/// Of a token of the last issuer's last key.
fn verification<'a>(
    chain: &Chain,
    keys: &[SigningKey],
    issuers: usize,
    each: usize,
) -> Result<impl FnMut() -> bool + use<'a>> {
    let iss = |number: usize| format!("http://issuer-{number}.example");
    let mut bundle = chain.bundle();
    bundle.issuers = keys[..issuers * each]
        .chunks(each)
        .enumerate()
        .map(|(number, keys)| -> Issuer {
            let keys: Vec<&SigningKey> = keys.iter().collect();
            managed_issuer(&format!("issuer-{number}"), &iss(number), &keys)
        })
        .collect();
    let now = chain.now();
    let claims = json!({
        "iss": iss(issuers - 1), "sub": "alice", "aud": AUDIENCE, "client_id": "demo", "jti": "1",
        "iat": now.as_seconds() - 60, "exp": now.as_seconds() + 3600, "scope": "items:read",
    });
    let claims = claims.as_object().context("claims are an object")?;
    let token = sign_claims(&keys[issuers * each - 1], claims);
    let (held, hop) = (chain.sign(&bundle), Hop::new("gateway"));
    Ok(move || verify(&token, &held, &hop, now).is_ok())
}
