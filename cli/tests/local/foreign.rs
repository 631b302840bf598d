//! Issuers that somebody else runs before the whole chain: every hop accepts what they sign, follows their keys, and
//! tells a key that is not theirs from one that nobody can be asked about.

use std::fs;
use std::time::Duration;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use servicechain_fixtures::await_condition;
use servicechain_keys::{NumericDate, SigningKey};
use servicechain_runtime::clock::Clock;
use tempfile::TempDir;

use super::program::{Http, Local, of_hops, text};
use super::provider::{Provider, jwk, new_key};

const DEADLINE: Duration = Duration::from_mins(1);
/// Nobody is there: its keys are given.
const PARTNER: &str = "https://partner.example.com";
const GRACE: &str = "2s";

/// A chain of three services that trusts `corp`, whose keys are fetched, and `partner`, whose key is given.
struct Shop {
    gateway: String,
    http: Http,
    corp: Provider,
    first: SigningKey,
    partners: SigningKey,
    _local: Local,
    _folder: TempDir,
}

impl Shop {
    async fn start() -> Self {
        let (corp, first, partners) = (Provider::start().await, new_key(), new_key());
        corp.publish(&[&first]);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: Value| {
            let path = folder.path().join(name);
            fs::write(&path, content.to_string()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let service =
            |name: &str| json!({"name": name, "database": {"managed": {}}, "cache": {"managed": {}}});
        let jwks = json!({"configMapKeyRef": {"name": "partner-jwks", "key": "jwks.json"}});
        // By itself corp is asked once a day: what is learned here is learned by asking.
        let chain = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [
                    {"name": "corp", "external": {"url": corp.url, "refreshInterval": "24h"}},
                    {"name": "partner", "static": {"url": PARTNER, "jwks": jwks}},
                ],
                "keyDistribution": {"withdrawnKeyGrace": GRACE},
                "gateway": {"routes": [{"name": "items", "service": "a"}]},
                "services": [service("a"), service("b"), service("c")],
            },
        });
        let chain = file("chain.yaml", chain);
        let jwks = file("jwks.json", json!({"keys": [jwk(&partners)]}));
        let config_map = format!("partner-jwks/jwks.json={jwks}");
        let args = ["-f", &chain, "--config-map", &config_map, "--json"];
        let mut local = Local::start(folder.path(), &args);
        let ready: Value = serde_json::from_str(&local.line()).unwrap();
        assert_eq!(ready["token"], Value::Null, "only an issuer of its own gives one");
        let shop = Self {
            gateway: text(&ready, "/gateway").to_owned(),
            http: Http::new(),
            corp,
            first,
            partners,
            _local: local,
            _folder: folder,
        };
        shop.await_passes(&shop.token(&shop.first)).await;
        shop
    }

    /// Of corp, by whichever key.
    fn token(&self, key: &SigningKey) -> String {
        token(&self.corp.url, key)
    }

    async fn get(&self, token: &str) -> StatusCode {
        let url = format!("{}/items/1", self.gateway);
        let (answer, body) = self.http.get(&url, Some(token)).await;
        match answer.status() {
            StatusCode::OK => assert_eq!(of_hops(&body, "service"), ["a", "b", "c"]),
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key(header::RETRY_AFTER), "{answer:?}");
            }
            // Whoever has no item was let in by the hop that would have it.
            StatusCode::NOT_FOUND => assert!(!of_hops(&body, "service").is_empty(), "{body}"),
            StatusCode::UNAUTHORIZED => {
                let challenge = answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
                assert!(challenge.contains("invalid_token"), "{challenge}");
            }
            _ => panic!("{answer:?} {body}"),
        }
        answer.status()
    }

    /// A client's item at every hop; one that heeds Retry-After may be told to wait, and is never refused.
    async fn await_passes(&self, token: &str) {
        let url = format!("{}/items/1", self.gateway);
        await_condition("the token to pass every hop", DEADLINE, async || {
            let item = Some(json!({"name": "lamp"}));
            let (answer, body) = self.http.send(Method::PUT, &url, Some(token), item).await;
            match answer.status() {
                StatusCode::OK | StatusCode::CREATED => Ok(()),
                StatusCode::SERVICE_UNAVAILABLE => Err(body),
                status => panic!("an honest token gets {status}: {body}"),
            }
        })
        .await
        .unwrap();
        assert_eq!(self.get(token).await, StatusCode::OK);
    }

    async fn await_refused(&self, token: &str) {
        await_condition("the token to be refused", DEADLINE, async || {
            match self.get(token).await {
                StatusCode::UNAUTHORIZED => Ok(()),
                status => Err(status),
            }
        })
        .await
        .unwrap();
    }
}

fn token(iss: &str, key: &SigningKey) -> String {
    let now = NumericDate::from(Clock::system().now()).as_seconds();
    let claims = json!({"iss": iss, "sub": "alice", "aud": "shop", "iat": now, "exp": now + 900});
    key.sign_compact("at+jwt", claims.to_string().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_other_peoples_issuers_pass_every_hop_and_no_others_do() {
    let shop = Shop::start().await;
    let partners = token(PARTNER, &shop.partners);
    let is_there = shop.get(&partners).await;
    assert_eq!(
        is_there,
        StatusCode::NOT_FOUND,
        "an item of corp's alice is not partner's"
    );
    shop.await_passes(&partners).await;

    let invented = new_key();
    assert_eq!(
        shop.get(&token(PARTNER, &invented)).await,
        StatusCode::UNAUTHORIZED
    );
    shop.await_refused(&shop.token(&invented)).await;
    // Each issuer's keys are good for its own tokens alone.
    assert_eq!(
        shop.get(&token(PARTNER, &shop.first)).await,
        StatusCode::UNAUTHORIZED
    );
    shop.await_refused(&shop.token(&shop.partners)).await;
    let nobodys = token("https://nobody.example.com", &invented);
    assert_eq!(shop.get(&nobodys).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_without_notice_is_followed_by_every_hop_and_a_dropped_key_refused_after_its_grace() {
    let shop = Shop::start().await;
    let before = shop.token(&shop.first);
    let next = new_key();
    shop.corp.publish(&[&next, &shop.first]);
    shop.await_passes(&shop.token(&next)).await;
    assert_eq!(shop.get(&before).await, StatusCode::OK);

    shop.corp.publish(&[&next]);
    // Whoever names an unknown key has the issuer asked.
    shop.await_refused(&shop.token(&new_key())).await;
    shop.await_refused(&before).await;
    assert_eq!(shop.get(&shop.token(&next)).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_issuer_is_away_its_known_keys_pass_and_unknown_ones_are_not_refused() {
    let mut shop = Shop::start().await;
    let (known, next) = (shop.token(&shop.first), new_key());
    shop.corp.publish(&[&next, &shop.first]);
    shop.corp.stop().await;
    let unknown = shop.token(&next);
    for _ in 0..3 {
        assert_eq!(shop.get(&known).await, StatusCode::OK);
        assert_eq!(shop.get(&unknown).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    let partners = token(PARTNER, &shop.partners);
    shop.await_passes(&partners).await;

    shop.corp.start_again();
    shop.await_passes(&unknown).await;
    assert_eq!(shop.get(&known).await, StatusCode::OK);
}
