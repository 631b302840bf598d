//! The keys endpoint over loopback, with real bundles, MACs and files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode, Uri};
use servicechain_auth::keys_endpoint::{Offers, router, router_with_offers};
use servicechain_auth::specimen::{BEGINNING, Specimen, chain, new_key};
use servicechain_auth::{Hop, Verifier, VerifierConfig};
use servicechain_keys::{
    AckKey, Algorithm, Answer, Bundle, BundleRefusal, ChainId, Generation, HeldBundle, Mac, Nonce,
    NumericDate, Offer, Outcome, PodId, SigningKey, TrustKey, Workload,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::loopback::{DEADLINE, nobody, send, serve};

const NONCE: Nonce = Nonce::new([3; 16]);

pub(crate) struct Pod {
    pub(crate) chain: Specimen,
    pub(crate) verifier: Arc<Verifier>,
    url: Uri,
    key: AckKey,
    state: tempfile::TempDir,
}

impl Pod {
    pub(crate) async fn start() -> Self {
        let chain = Specimen::new();
        let state = tempfile::tempdir().unwrap();
        let verifier = Verifier::start(config(&chain, state.path())).await.unwrap();
        let url = serve(router(Arc::clone(&verifier))).await;
        let key = chain.ack_key(&Workload::new("gateway").unwrap());
        Self {
            chain,
            verifier,
            url,
            key,
            state,
        }
    }

    pub(crate) fn generation(&self, generation: u64) -> Arc<HeldBundle> {
        let mut bundle = self.chain.bundle();
        bundle.generation = Generation::new(generation);
        self.chain.sign(&bundle)
    }

    fn pod(&self) -> &PodId {
        &self.verifier.config().pod
    }

    pub(crate) async fn push(&self, bytes: &[u8]) -> (StatusCode, Answer) {
        let request =
            Request::put(format!("{}keys/v1/keys", self.url)).header("Pod-Uid", self.pod().as_str());
        let request = request
            .header("Nonce", NONCE.to_string())
            .body(bytes.to_vec())
            .unwrap();
        let (status, headers, body) = send(request).await;
        (
            status,
            Answer::open(&body, &mac(&headers), &self.key, &NONCE, self.pod()).unwrap(),
        )
    }

    async fn assert_refuses(&self, bytes: &[u8], reason: BundleRefusal) {
        let held = self.verifier.generation();
        let (status, answer) = self.push(bytes).await;
        assert_eq!(
            (status, answer.outcome, answer.reason),
            (StatusCode::CONFLICT, Outcome::Refused, Some(reason))
        );
        assert_eq!(self.verifier.generation(), held, "{reason:?}");
    }
}

fn config(chain: &Specimen, state: &Path) -> VerifierConfig {
    let mut config = chain.config(Hop::new("gateway"));
    config.state_dir = Some(state.to_owned());
    config
}

fn mac(headers: &HeaderMap) -> Mac {
    headers["Mac"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_pushed_bundle_is_taken_made_durable_and_acknowledged() {
    let pod = Pod::start().await;
    let bundle = pod.generation(1);
    let (status, answer) = pod.push(bundle.bytes()).await;
    assert_eq!(
        (status, answer.outcome, answer.reason),
        (StatusCode::OK, Outcome::Accepted, None)
    );
    assert!(answer.durable);
    let held = answer.held.unwrap();
    assert_eq!(
        (held.generation, held.digest),
        (Generation::new(1), bundle.digest())
    );
    assert_eq!(
        (&answer.pod, answer.workload.as_str(), answer.now),
        (pod.pod(), "gateway", BEGINNING)
    );
    assert_eq!(answer.anchors, [pod.chain.trust_key.anchor().kid()]);
    assert_eq!(answer.versions, [1]);
    assert_eq!(
        std::fs::read(pod.state.path().join("bundle.jws")).unwrap(),
        &bundle.bytes()[..]
    );
    assert_eq!(pod.verifier.held().unwrap().digest(), bundle.digest());

    let (status, again) = pod.push(bundle.bytes()).await;
    assert_eq!(
        (status, again.outcome, again.durable),
        (StatusCode::OK, Outcome::Unchanged, true)
    );
}

#[tokio::test]
async fn a_bundle_that_may_not_be_taken_is_refused_with_its_reason() {
    let pod = Pod::start().await;
    pod.push(pod.generation(5).bytes()).await;
    pod.assert_refuses(pod.generation(4).bytes(), BundleRefusal::Lower)
        .await;

    let mut fork = pod.chain.bundle();
    fork.generation = Generation::new(5);
    fork.policy.max_token_bytes += 1;
    pod.assert_refuses(pod.chain.sign(&fork).bytes(), BundleRefusal::Fork)
        .await;

    let next = Bundle {
        generation: Generation::new(6),
        ..pod.chain.bundle()
    };
    let stranger = TrustKey::from_seed(&[1; 32]).unwrap();
    pod.assert_refuses(next.sign(&stranger).unwrap().bytes(), BundleRefusal::Anchor)
        .await;
    let elsewhere = Bundle {
        chain: ChainId::new("elsewhere").unwrap(),
        ..next.clone()
    };
    pod.assert_refuses(pod.chain.sign(&elsewhere).bytes(), BundleRefusal::Chain)
        .await;
    let mut forged = pod.chain.sign(&next).bytes().to_vec();
    *forged.last_mut().unwrap() = if forged.ends_with(b"A") { b'Q' } else { b'A' };
    pod.assert_refuses(&forged, BundleRefusal::Signature).await;
    pod.assert_refuses(b"no bundle", BundleRefusal::Format).await;
    pod.assert_refuses(&vec![b'a'; 512 * 1024 + 1], BundleRefusal::TooLarge)
        .await;
    assert_eq!(
        pod.push(pod.chain.sign(&next).bytes()).await.1.outcome,
        Outcome::Accepted
    );
}

#[tokio::test]
async fn what_is_meant_for_another_pod_is_not_taken() {
    let pod = Pod::start().await;
    for method in ["PUT", "GET"] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}keys/v1/keys", pod.url));
        let request = request
            .header("Pod-Uid", "another-pod")
            .header("Nonce", NONCE.to_string());
        let (status, headers, body) = send(request.body(pod.generation(1).bytes().to_vec()).unwrap()).await;
        assert_eq!(status, StatusCode::CONFLICT);
        let answer = Answer::open(&body, &mac(&headers), &pod.key, &NONCE, pod.pod()).unwrap();
        assert_eq!(answer.reason, Some(BundleRefusal::WrongPod));
        assert!(pod.verifier.held().is_none());
    }
}

#[tokio::test]
async fn an_answer_is_for_one_nonce_and_one_key_only() {
    let pod = Pod::start().await;
    let request = Request::get(format!("{}keys/v1/keys", pod.url)).header("Pod-Uid", pod.pod().as_str());
    let request = request
        .header("Nonce", NONCE.to_string())
        .body(Vec::new())
        .unwrap();
    let (status, headers, body) = send(request).await;
    assert_eq!(status, StatusCode::OK);
    let mac = mac(&headers);
    let answer = Answer::open(&body, &mac, &pod.key, &NONCE, pod.pod()).unwrap();
    assert_eq!(
        (answer.outcome, answer.held, answer.durable),
        (Outcome::Unchanged, None, false)
    );
    assert!(Answer::open(&body, &mac, &pod.key, &Nonce::new([4; 16]), pod.pod()).is_err());
    let other = pod.chain.ack_key(&Workload::new("b").unwrap());
    assert!(Answer::open(&body, &mac, &other, &NONCE, pod.pod()).is_err());
}

#[tokio::test]
async fn a_message_without_one_pod_and_one_nonce_is_a_bad_request() {
    let pod = Pod::start().await;
    let uid = pod.pod().as_str();
    let nonce = NONCE.to_string();
    for headers in [
        vec![("Pod-Uid", uid)],
        vec![("Nonce", nonce.as_str())],
        vec![("Pod-Uid", uid), ("Nonce", "short")],
        vec![("Pod-Uid", uid), ("Pod-Uid", uid), ("Nonce", &nonce)],
        vec![("Pod-Uid", uid), ("Nonce", &nonce), ("Nonce", &nonce)],
    ] {
        let mut request = Request::put(format!("{}keys/v1/keys", pod.url));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        assert_eq!(
            send(request.body(Vec::new()).unwrap()).await.0,
            StatusCode::BAD_REQUEST
        );
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_is_used_and_not_called_durable() {
    let pod = Pod::start().await;
    // A directory where the temporary file would be: no process may write there, root included.
    let obstacle = pod.state.path().join("bundle.jws.new");
    std::fs::create_dir(&obstacle).unwrap();
    let (_, answer) = pod.push(pod.generation(1).bytes()).await;
    assert_eq!((answer.outcome, answer.durable), (Outcome::Accepted, false));
    assert_eq!(pod.verifier.counters().not_durable.get(), 1);
    std::fs::remove_dir(obstacle).unwrap();
    let (_, again) = pod.push(pod.generation(1).bytes()).await;
    assert_eq!(
        (again.outcome, again.durable),
        (Outcome::Unchanged, true),
        "a repeated push tries again"
    );
}

#[tokio::test]
async fn a_restarted_pod_holds_what_it_acknowledged() {
    let pod = Pod::start().await;
    pod.push(pod.generation(3).bytes()).await;
    let restarted = Verifier::start(config(&pod.chain, pod.state.path()))
        .await
        .unwrap();
    assert_eq!(restarted.generation(), Generation::new(3));
    let url = serve(router(restarted)).await;
    let request = Request::get(format!("{url}keys/v1/keys")).header("Pod-Uid", pod.pod().as_str());
    let (_, headers, body) = send(
        request
            .header("Nonce", NONCE.to_string())
            .body(Vec::new())
            .unwrap(),
    )
    .await;
    let answer = Answer::open(&body, &mac(&headers), &pod.key, &NONCE, pod.pod()).unwrap();
    assert!(answer.durable);
}

#[tokio::test]
async fn a_bundle_is_read_with_its_digest_as_tag() {
    let pod = Pod::start().await;
    let read = |tag: Option<String>| {
        let request = Request::get(format!("{}v1/bundle", pod.url));
        match tag {
            Some(tag) => send(request.header("If-None-Match", tag).body(Vec::new()).unwrap()),
            None => send(request.body(Vec::new()).unwrap()),
        }
    };
    assert_eq!(
        read(None).await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "who holds nothing is no authority"
    );
    let bundle = pod.generation(1);
    pod.push(bundle.bytes()).await;
    let (status, headers, body) = read(None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(&body[..], &bundle.bytes()[..]);
    assert_eq!(headers["etag"], format!("\"{}\"", bundle.digest()));
    assert_eq!(
        read(Some(format!("\"{}\"", bundle.digest()))).await.0,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(read(Some("\"other\"".to_owned())).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_unconfirmed_pod_is_read_by_its_name_only() {
    let pod = Pod::start().await;
    let mut config = config(&pod.chain, pod.state.path());
    config.operator_url = Some(nobody().await);
    let unconfirmed = Verifier::new(config);
    let bundle = pod.generation(1);
    unconfirmed.hold(Arc::clone(&bundle));
    let url = serve(router(unconfirmed)).await;
    let read = |name: Option<&str>| {
        let request = Request::get(format!("{url}v1/bundle"));
        match name {
            Some(name) => send(request.header("Pod-Uid", name).body(Vec::new()).unwrap()),
            None => send(request.body(Vec::new()).unwrap()),
        }
    };
    assert_eq!(read(None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(read(Some("another-pod")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(read(Some(pod.pod().as_str())).await.2, bundle.bytes()[..]);
}

#[tokio::test]
async fn many_pushes_at_once_are_all_answered_and_the_highest_is_held() {
    let pod = Pod::start().await;
    let bundles: Vec<_> = (1..=12).map(|generation| pod.generation(generation)).collect();
    let answers = futures_util::future::join_all(bundles.iter().map(|bundle| pod.push(bundle.bytes()))).await;
    for ((_, answer), bundle) in answers.iter().zip(&bundles) {
        let fits = match answer.outcome {
            Outcome::Accepted => answer.held.unwrap().generation >= bundle.generation(),
            Outcome::Refused => answer.reason == Some(BundleRefusal::Lower),
            Outcome::Unchanged => false,
        };
        assert!(fits, "{answer:?}");
    }
    assert_eq!(pod.verifier.generation(), Generation::new(12));
    let on_disk = std::fs::read(pod.state.path().join("bundle.jws")).unwrap();
    assert_eq!(on_disk, &bundles[11].bytes()[..]);
}

/// A stranger's push whose body does not come. It is being read once the pod has said that it may go on.
async fn begin_push(pod: &Pod) -> TcpStream {
    let mut stream = TcpStream::connect(pod.url.authority().unwrap().as_str())
        .await
        .unwrap();
    let head = format!(
        "PUT /keys/v1/keys HTTP/1.1\r\nHost: x\r\nPod-Uid: {}\r\nNonce: {NONCE}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        pod.pod().as_str()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_answers(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream
}

async fn assert_answers(stream: &mut TcpStream, beginning: &str) {
    let mut read = vec![0; beginning.len()];
    let answered = tokio::time::timeout(DEADLINE, stream.read_exact(&mut read)).await;
    answered.expect("an answer in time").unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), beginning);
}

#[tokio::test]
async fn pushes_that_strangers_send_slowly_keep_none_out() {
    let pod = Pod::start().await;
    let mut slow = Vec::new();
    for _ in 0..17 {
        slow.push(begin_push(&pod).await);
    }
    let (_, answer) = pod.push(pod.generation(1).bytes()).await;
    assert_eq!(answer.outcome, Outcome::Accepted);
    // The oldest gave way.
    assert_answers(&mut slow[0], "HTTP/1.1 503").await;
}

struct OneKey(SigningKey, PodId);

impl Offers for OneKey {
    fn offers(&self, nonce: &Nonce) -> Vec<Offer> {
        vec![Offer::new(&self.0, nonce, &chain(), &self.1).unwrap()]
    }

    fn stopped(&self) -> BTreeMap<String, NumericDate> {
        BTreeMap::from([("old".to_owned(), BEGINNING)])
    }
}

#[tokio::test]
async fn an_issuer_pod_offers_its_keys_with_proofs_over_the_nonce() {
    let pod = Pod::start().await;
    let offers = OneKey(new_key(Algorithm::ES256), pod.pod().clone());
    let url = serve(router_with_offers(Arc::clone(&pod.verifier), Arc::new(offers))).await;
    let request = Request::get(format!("{url}keys/v1/keys")).header("Pod-Uid", pod.pod().as_str());
    let (_, headers, body) = send(
        request
            .header("Nonce", NONCE.to_string())
            .body(Vec::new())
            .unwrap(),
    )
    .await;
    let answer = Answer::open(&body, &mac(&headers), &pod.key, &NONCE, pod.pod()).unwrap();
    assert_eq!(answer.stopped["old"], BEGINNING);
    let [offer] = &answer.offers[..] else {
        panic!("one offer")
    };
    assert!(
        offer
            .verify(Algorithm::ES256, &NONCE, &chain(), pod.pod())
            .is_ok()
    );
    assert!(
        offer
            .verify(Algorithm::ES256, &Nonce::new([9; 16]), &chain(), pod.pod())
            .is_err()
    );
}

#[tokio::test]
async fn proofs_are_made_for_whoever_means_this_pod_and_a_few_times_a_second_only() {
    let pod = Pod::start().await;
    let offers = OneKey(new_key(Algorithm::ES256), pod.pod().clone());
    let url = serve(router_with_offers(Arc::clone(&pod.verifier), Arc::new(offers))).await;
    let poll = async |name: &str| {
        let request = Request::get(format!("{url}keys/v1/keys")).header("Pod-Uid", name);
        let request = request
            .header("Nonce", NONCE.to_string())
            .body(Vec::new())
            .unwrap();
        let (_, headers, body) = send(request).await;
        Answer::open(&body, &mac(&headers), &pod.key, &NONCE, pod.pod()).unwrap()
    };
    let stranger = poll("another-pod").await;
    assert!(stranger.offers.is_empty() && stranger.stopped.is_empty());
    let polls = 200;
    let begun = std::time::Instant::now();
    let (mut proven, mut stopped) = (0, 0);
    for _ in 0..polls {
        let answer = poll(pod.pod().as_str()).await;
        proven += answer.offers.len();
        stopped += answer.stopped.len();
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    assert!((1..=10 * seconds).contains(&proven), "{proven}");
    assert_eq!(stopped, polls);
}
