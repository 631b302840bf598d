//! A pod whose end of the key protocol says what it is told to say, sealed as it has a key for it; and a stranger's push.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use kube::ResourceExt as _;
use servicechain_auth::Verifier;
use servicechain_keys::bundle::VERSION;
use servicechain_keys::wire::{BUNDLE_PATH, KEYS_PATH, MAC, NONCE, POD_UID};
use servicechain_keys::{
    AckKey, Answer, ChainId, Held, HeldBundle, Nonce, NumericDate, Outcome, PodId, Trust, Workload,
};
use servicechain_runtime::clock::Clock;
use tokio::task::JoinSet;

use crate::pods::{Cluster, RunningPod, Scheduled};

type Lie = Box<dyn Fn(&mut Answer, &Nonce, &ChainId) + Send>;

/// Dropping it ends its container.
pub(crate) struct Liar {
    end: Arc<End>,
    _tasks: JoinSet<()>,
}

struct End {
    pod: PodId,
    workload: Workload,
    key: AckKey,
    trust: Trust,
    held: Mutex<Option<Arc<HeldBundle>>>,
    lie: Mutex<Lie>,
    asked: AtomicUsize,
}

impl Liar {
    /// With the key of its own workload. `lie` is told what an honest pod would answer.
    pub(crate) fn start(
        cluster: &Cluster,
        scheduled: Scheduled,
        lie: impl Fn(&mut Answer, &Nonce, &ChainId) + Send + 'static,
    ) -> Self {
        Self::start_with(scheduled.workload, cluster, scheduled, lie)
    }

    /// With the key of this workload.
    pub(crate) fn start_with(
        key_of: &str,
        cluster: &Cluster,
        scheduled: Scheduled,
        lie: impl Fn(&mut Answer, &Nonce, &ChainId) + Send + 'static,
    ) -> Self {
        let chain = ChainId::new(cluster.uid()).unwrap();
        let key_of = Workload::new(key_of).unwrap();
        let end = Arc::new(End {
            pod: PodId::new(scheduled.object.uid().unwrap()).unwrap(),
            workload: Workload::new(scheduled.workload).unwrap(),
            key: cluster.roots.of(chain.clone()).ack_key(&key_of),
            trust: Trust::new(chain, cluster.roots.anchors()),
            held: Mutex::default(),
            lie: Mutex::new(Box::new(lie)),
            asked: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route(KEYS_PATH, get(answer).put(answer))
            .route(BUNDLE_PATH, get(read))
            .with_state(Arc::clone(&end));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = axum::serve(scheduled.listener, router).await;
        });
        Self { end, _tasks: tasks }
    }

    /// From now on.
    pub(crate) fn lie(&self, lie: impl Fn(&mut Answer, &Nonce, &ChainId) + Send + 'static) {
        *self.end.lie.lock().unwrap() = Box::new(lie);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.end.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(end): State<Arc<End>>, headers: HeaderMap, body: Bytes) -> Response {
    end.asked.fetch_add(1, Ordering::SeqCst);
    let nonce: Nonce = headers[NONCE].to_str().unwrap().parse().unwrap();
    let mut held = end.held.lock().unwrap();
    let mut outcome = Outcome::Unchanged;
    if let Ok(bundle) = HeldBundle::open(&body, &end.trust) {
        *held = Some(Arc::new(bundle));
        outcome = Outcome::Accepted;
    }
    let mut answer = Answer {
        pod: end.pod.clone(),
        workload: end.workload.clone(),
        held: held.as_deref().map(Held::from),
        outcome,
        reason: None,
        durable: true,
        now: NumericDate::from((Clock::system().as_fn())()),
        versions: vec![VERSION],
        anchors: end
            .trust
            .anchors
            .iter()
            .map(|anchor| anchor.kid().to_owned())
            .collect(),
        offers: Vec::new(),
        stopped: std::collections::BTreeMap::new(),
        refused: std::collections::BTreeSet::new(),
        unconfirmed: false,
    };
    (end.lie.lock().unwrap())(&mut answer, &nonce, &end.trust.chain);
    let sealed = answer.seal(&end.key, &nonce).unwrap();
    ([(MAC, sealed.mac.to_string())], sealed.body).into_response()
}

async fn read(State(end): State<Arc<End>>) -> Response {
    match end.held.lock().unwrap().as_ref() {
        Some(held) => held.bytes().to_vec().into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

pub(crate) struct Pushed {
    pub(crate) status: StatusCode,
}

/// What anybody can send who reaches the pod's keys port.
pub(crate) async fn push(pod: &RunningPod, bundle: &str) -> Pushed {
    push_to(pod.address, &pod.verifier, bundle).await
}

async fn push_to(address: SocketAddr, verifier: &Verifier, bundle: &str) -> Pushed {
    let mut connection = servicechain_e2e::client::Connection::open(address).await.unwrap();
    let nonce = Nonce::new([7; 16]);
    let request = format!(
        "PUT {KEYS_PATH} HTTP/1.1\r\nhost: pod\r\n{POD_UID}: {}\r\n{NONCE}: {nonce}\r\ncontent-length: {}\r\n\r\n{bundle}",
        verifier.config().pod,
        bundle.len(),
    );
    let answer = connection.ask(request.as_bytes()).await.unwrap();
    Pushed {
        status: StatusCode::from_u16(answer.status).unwrap(),
    }
}
