//! Every bad token at every hop: 401, and nothing goes on from there. One test for each pair.

use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::json;
use servicechain_auth::attacks::attacks;
use servicechain_auth::specimen::sign_claims;
use servicechain_e2e::client::{Answer, Connection, exchange, request};
use servicechain_e2e::keys::PLATFORM;
use servicechain_e2e::{Chain, Keys, Plan};
use tokio::runtime::Runtime;

/// One chain for all tests of this file, on a runtime that outlives each of them.
fn shared_chain() -> &'static (Runtime, Chain) {
    static SHARED: OnceLock<(Runtime, Chain)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let chain = runtime.block_on(Chain::start(Plan::new().unwrap())).unwrap();
        (runtime, chain)
    })
}

/// How many requests for this item went on from a hop.
fn forwarded(chain: &Chain, hop: &str, id: &str) -> usize {
    let path = format!(" /items/{id} ");
    let (_, links) = chain.hop(hop);
    links
        .iter()
        .flat_map(|link| link.recorder.received())
        .filter(|received| received.head().contains(&path))
        .count()
}

fn refuses(hop: &str, name: &str, token: impl FnOnce(&Keys) -> String) {
    let (runtime, chain) = shared_chain();
    runtime.block_on(async {
        let (address, links) = chain.hop(hop);
        let id = format!("{name}-at-{hop}");
        let ask = async |token: &str, id: &str| -> Answer {
            let bearer = format!("Bearer {token}");
            let ask = request("GET", &format!("/items/{id}"), &[("authorization", &bearer)], "");
            Connection::open(address).await.unwrap().ask(&ask).await.unwrap()
        };
        let refused = ask(&token(&chain.keys), &id).await;
        assert_eq!(refused.status, 401, "{}", refused.head);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
            "{challenge}"
        );
        assert_eq!(forwarded(chain, hop, &id), 0);
        // The same question with a good token does go on, so the recorders would have seen it.
        let control = format!("{id}-control");
        let passed = ask(&chain.keys.token("alice"), &control).await;
        assert_eq!(passed.status, 404, "{}", passed.head);
        assert_eq!(forwarded(chain, hop, &control), links.len());
    });
}

fn expired(keys: &Keys) -> String {
    let long_ago = keys.now().minus(Duration::from_hours(1)).as_seconds();
    keys.token_with(|claims| {
        claims.insert("iat".into(), (long_ago - 600).into());
        claims.insert("exp".into(), long_ago.into());
    })
}

fn by_another_key(keys: &Keys) -> String {
    let header = json!({"alg": "ES256", "kid": keys.platform().kid(), "typ": "at+jwt"});
    let payload = serde_json::Value::Object(keys.claims("mallory")).to_string();
    keys.stranger
        .sign_compact_with(header.as_object().unwrap(), payload.as_bytes())
        .unwrap()
}

fn of_another_issuer(keys: &Keys) -> String {
    keys.token_with(|claims| drop(claims.insert("iss".into(), "https://idp.example.com".into())))
}

/// A trusted issuer's token that claims to be of the other trusted issuer.
fn of_the_wrong_issuer(keys: &Keys) -> String {
    let mut claims = keys.claims("mallory");
    claims.insert("iss".into(), PLATFORM.into());
    sign_claims(&keys.partner, &claims)
}

fn for_another_audience(keys: &Keys) -> String {
    keys.token_with(|claims| drop(claims.insert("aud".into(), "billing".into())))
}

fn of_wrong_type(keys: &Keys) -> String {
    let payload = serde_json::Value::Object(keys.claims("mallory")).to_string();
    keys.platform().sign_compact("JWT", payload.as_bytes()).unwrap()
}

/// The token of an attack in the table, by its name there.
fn attack(keys: &Keys, name: &str) -> String {
    let all = attacks(&keys.target());
    let attack = all
        .iter()
        .find(|attack| attack.name == name)
        .expect("the table has it");
    let value = attack.headers["authorization"].to_str().unwrap();
    value.strip_prefix("Bearer ").unwrap().to_owned()
}

fn unsigned(keys: &Keys) -> String {
    attack(keys, "alg none")
}

fn by_hmac_with_the_public_key(keys: &Keys) -> String {
    attack(keys, "HS256 with the JWK as secret")
}

macro_rules! each_is_refused_by_each_hop {
    ($($token:ident),* $(,)?) => {$(
        mod $token {
            #[test]
            fn is_refused_by_the_gateway() {
                super::refuses("gateway", stringify!($token), super::$token);
            }

            #[test]
            fn is_refused_by_a() {
                super::refuses("a", stringify!($token), super::$token);
            }

            #[test]
            fn is_refused_by_b() {
                super::refuses("b", stringify!($token), super::$token);
            }

            #[test]
            fn is_refused_by_c() {
                super::refuses("c", stringify!($token), super::$token);
            }
        }
    )*};
}

each_is_refused_by_each_hop!(
    by_another_key,
    expired,
    of_another_issuer,
    of_the_wrong_issuer,
    for_another_audience,
    of_wrong_type,
    unsigned,
    by_hmac_with_the_public_key,
);

/// The whole table. A server may refuse the largest heads before it looks at any token.
fn withstands_every_attack(hop: &str) {
    let (runtime, chain) = shared_chain();
    runtime.block_on(async {
        let (address, _) = chain.hop(hop);
        let all = attacks(&chain.keys.target());
        assert!(all.len() >= 30, "{}", all.len());
        let mut passed = Vec::new();
        for (number, attack) in all.iter().enumerate() {
            let id = format!("attack-{number}-at-{hop}");
            let answer = exchange(address, &with_headers(&id, &attack.headers))
                .await
                .unwrap();
            let status = answer.as_ref().map(|answer| answer.status);
            let is_refused = status == Some(attack.status.as_u16())
                || status == Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16());
            if !is_refused || forwarded(chain, hop, &id) > 0 {
                passed.push(format!(
                    "{}: {status:?} instead of {}",
                    attack.name, attack.status
                ));
            }
        }
        assert_eq!(passed, Vec::<String>::new());
    });
}

fn with_headers(id: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut bytes = format!("GET /items/{id} HTTP/1.1\r\nhost: shop.test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn the_gateway_withstands_every_attack() {
    withstands_every_attack("gateway");
}

#[test]
fn a_withstands_every_attack() {
    withstands_every_attack("a");
}

#[test]
fn b_withstands_every_attack() {
    withstands_every_attack("b");
}

#[test]
fn c_withstands_every_attack() {
    withstands_every_attack("c");
}
