//! A chain that trusts issuers of others: the publisher with its knock port, and pods that verify.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use servicechain_auth::rejected::{TokenFault, Unavailable};
use servicechain_auth::{Authentication, Hop, Rejected, Verifier, VerifierConfig, keys_endpoint};
use servicechain_crds::ValidatedChain;
use servicechain_fixtures::await_condition;
use servicechain_keys::rotation::ListedPod;
use servicechain_keys::{ChainId, PodId, RootSecret, SigningKey, TrustKey, Workload};
use servicechain_operator::clock::Clock;
use servicechain_operator::key_controller::knock::serve;
use servicechain_operator::key_controller::state::IssuerStanding;
use servicechain_operator::key_controller::{BundleFile, KeyController, KeyState, Pod, Roots, TrustKeys};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Some day in 2027.
const BEGINNING: u64 = 1_800_000_000;
const PODS: [&str; 2] = ["gateway", "a"];

/// What a verifier says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passes,
    /// 401.
    UnknownKey,
    /// 503.
    Unavailable,
}

pub(crate) struct Chain {
    pub controller: KeyController,
    pub verifiers: Vec<Arc<Verifier>>,
    now: Arc<AtomicU64>,
    _folder: TempDir,
    _shutdown: DropGuard,
}

/// Issuers by name, each as its spec says.
pub(crate) fn spec(issuers: &[(&str, Value)]) -> ValidatedChain {
    let issuers = issuers.iter().map(|(name, kind)| {
        let mut issuer = kind.clone();
        issuer["name"] = (*name).into();
        issuer
    });
    let chain = json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "audiences": ["shop"],
            "issuers": issuers.collect::<Vec<_>>(),
            "gateway": {"routes": [{"name": "items", "service": "a"}]},
            "services": [{"name": "a", "database": {"managed": {}}}],
        },
    });
    servicechain_crds::read(&chain.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// By default it is asked by itself once a day: what is learned in a test is learned by asking.
pub(crate) fn external(url: &str) -> Value {
    json!({"external": {"url": url, "refreshInterval": "24h"}})
}

impl Chain {
    pub(crate) async fn start(issuers: &[(&str, Value)]) -> Self {
        Self::start_with(issuers, &Arc::default()).await
    }

    /// With the time of day: for tokens of somebody who has no other.
    pub(crate) async fn start_now(issuers: &[(&str, Value)]) -> Self {
        let clock = servicechain_operator::clock::system();
        let now = clock().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self::start_by(issuers, &Arc::default(), Arc::new(AtomicU64::new(now)), clock).await
    }

    /// `config_map` has the keys of the one `ConfigMap` there is.
    pub(crate) async fn start_with(
        issuers: &[(&str, Value)],
        config_map: &Arc<Mutex<BTreeMap<String, String>>>,
    ) -> Self {
        let now = Arc::new(AtomicU64::new(BEGINNING));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(now.load(Ordering::SeqCst)))
        };
        Self::start_by(issuers, config_map, now, clock).await
    }

    async fn start_by(
        issuers: &[(&str, Value)],
        config_map: &Arc<Mutex<BTreeMap<String, String>>>,
        now: Arc<AtomicU64>,
        clock: Clock,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots {
            chain: ChainId::new("chain-1").unwrap(),
            trust_keys: TrustKeys::only(TrustKey::from_seed(&[1; 32]).unwrap()),
            secret: Arc::new(RootSecret::new([2; 32])),
        };
        let shutdown = CancellationToken::new();
        let config_map = Arc::clone(config_map);
        let controller = KeyController::of_chain(
            &spec(issuers),
            |key| {
                let found = config_map.lock().unwrap().get(&key.key).cloned();
                found.ok_or_else(|| format!("ConfigMap {} does not exist", key.name))
            },
            roots.clone(),
            BundleFile::new(folder.path().join("bundle.jws")),
            Arc::clone(&clock),
            shutdown.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let knock_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(
            listener,
            controller.knock_port().router(),
            shutdown.clone(),
        ));
        let mut pods = Vec::new();
        let mut sockets = Vec::new();
        for name in PODS {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            pods.push(Pod {
                name: name.to_owned(),
                listed: ListedPod {
                    pod: PodId::new(name).unwrap(),
                    issuer: None,
                    addressed: true,
                    runs: true,
                    ready: true,
                    ended: false,
                },
                workload: Workload::new(name).unwrap(),
                keys_address: Some(socket.local_addr().unwrap().to_string()),
            });
            sockets.push(socket);
        }
        controller.set_pods(pods);
        let mut verifiers = Vec::new();
        for (name, socket) in PODS.into_iter().zip(sockets) {
            let workload = Workload::new(name).unwrap();
            let trust = roots.trust();
            let pod = PodId::new(name).unwrap();
            let mut config =
                VerifierConfig::new(trust, pod, workload.clone(), Hop::new(name), Arc::clone(&clock));
            config.ack_key = Some(roots.ack_key(&workload));
            config.state_dir = Some(folder.path().join(name));
            config.operator_url = Some(knock_url.parse().unwrap());
            let verifier = Verifier::start(config).await.unwrap();
            let router = keys_endpoint::router(Arc::clone(&verifier));
            tokio::spawn(async move { axum::serve(socket, router).await });
            verifiers.push(verifier);
        }
        let chain = Self {
            controller,
            verifiers,
            now,
            _folder: folder,
            _shutdown: shutdown.drop_guard(),
        };
        chain
            .await_state("every verifier in sync", |state| {
                state.in_sync && state.verifiers == PODS.len()
            })
            .await;
        chain
    }

    pub(crate) async fn await_state(
        &self,
        what: &str,
        is_reached: impl Fn(&KeyState) -> bool,
    ) -> Arc<KeyState> {
        let mut states = self.controller.state();
        let reached = tokio::time::timeout(DEADLINE, states.wait_for(|state| is_reached(state))).await;
        let Ok(state) = reached else {
            panic!("{what}: {:#?}", self.controller.state().borrow());
        };
        Arc::clone(&state.unwrap())
    }

    pub(crate) async fn await_standing(
        &self,
        issuer: &str,
        what: &str,
        is_reached: impl Fn(&IssuerStanding) -> bool,
    ) -> IssuerStanding {
        let state = self
            .await_state(what, |state| state.issuers.get(issuer).is_some_and(&is_reached))
            .await;
        state.issuers[issuer].clone()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_secs(), Ordering::SeqCst);
        self.controller.wake();
    }

    /// An access token of an issuer, good but for who signed it.
    pub(crate) fn token(&self, iss: &str, key: &SigningKey) -> HeaderMap {
        let now = self.now.load(Ordering::SeqCst);
        let claims = json!({"iss": iss, "sub": "alice", "aud": "shop", "iat": now, "exp": now + 900});
        let token = key.sign_compact("at+jwt", claims.to_string().as_bytes());
        bearing(&token.unwrap())
    }

    /// What the gateway says, and the service behind it, at the same time.
    pub(crate) async fn present(&self, headers: &HeaderMap) -> [Verdict; 2] {
        let [gateway, service] = self.verifiers.as_slice() else {
            panic!("two verifiers");
        };
        let (gateway, service) = tokio::join!(verdict(gateway, headers), verdict(service, headers));
        [gateway, service]
    }

    /// Presents a token again and again, as a client that heeds Retry-After would, until every verifier lets it pass. None
    /// may ever answer 401.
    pub(crate) async fn await_passes(&self, headers: &HeaderMap) {
        await_condition("the token to pass everywhere", DEADLINE, async || {
            let verdicts = self.present(headers).await;
            assert!(
                !verdicts.contains(&Verdict::UnknownKey),
                "an honest token is refused"
            );
            if verdicts == [Verdict::Passes; 2] {
                Ok(())
            } else {
                Err(format!("{verdicts:?}"))
            }
        })
        .await
        .unwrap();
    }
}

impl Chain {
    /// Presents a token until every verifier has refused it: its issuer said that it does not know the key.
    pub(crate) async fn await_refused(&self, headers: &HeaderMap) {
        for verifier in &self.verifiers {
            await_condition("the token to be refused", DEADLINE, async || {
                match verdict(verifier, headers).await {
                    Verdict::UnknownKey => Ok(()),
                    Verdict::Unavailable => Err("503"),
                    Verdict::Passes => panic!("it passes"),
                }
            })
            .await
            .unwrap();
        }
    }
}

/// The headers of a request with this token.
pub(crate) fn bearing(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

pub(crate) async fn verdict(verifier: &Verifier, headers: &HeaderMap) -> Verdict {
    match verifier.authenticate(headers, None).await {
        Authentication::Verified(_) => Verdict::Passes,
        Authentication::Rejected(Rejected::Token(TokenFault::UnknownKey)) => Verdict::UnknownKey,
        Authentication::Rejected(Rejected::Unavailable(Unavailable::UnknownKey | Unavailable::NoKeys)) => {
            Verdict::Unavailable
        }
        other => panic!("{other:?}"),
    }
}
