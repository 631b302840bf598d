//! Running hops over their sockets, and asking them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_fixtures::Stores;
use servicechain_item_service::pause::PausePoints;
use servicechain_item_service::{Config, Places, run_with};
use servicechain_runtime::http_client::Client;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::Listeners;
use servicechain_runtime::upstream::UpstreamUrl;
use tower::ServiceExt as _;

use crate::support::DEADLINE;

/// One running hop. It ends when dropped.
pub(crate) struct Hop {
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

pub(crate) struct Setting<'a> {
    pub(crate) name: &'a str,
    pub(crate) database_url: String,
    pub(crate) redis_url: Option<String>,
    pub(crate) next: Option<(&'a str, String)>,
    pub(crate) yaml: &'a str,
    /// As YAML.
    pub(crate) audiences: &'a str,
    pub(crate) pauses: PausePoints,
}

impl Setting<'_> {
    pub(crate) fn embedded(name: &str) -> Setting<'_> {
        Setting {
            name,
            database_url: "sqlite::memory:".to_owned(),
            redis_url: Some("memory:".to_owned()),
            next: None,
            yaml: "",
            audiences: "[]",
            pauses: PausePoints::default(),
        }
    }

    pub(crate) fn real(name: &str) -> Setting<'_> {
        let Stores {
            database_url,
            redis_url,
        } = servicechain_fixtures::shared().unwrap();
        Setting {
            database_url,
            redis_url: Some(redis_url),
            ..Setting::embedded(name)
        }
    }

    /// Starts the hop, which verifies with `generation` of the specimen's bundle, and waits until it is ready.
    pub(crate) async fn start(self, specimen: &Specimen) -> Hop {
        let mut yaml = format!(
            "hop: {{name: {}, audiences: {}}}\n{}\n",
            self.name, self.audiences, self.yaml
        );
        let mut places = Places {
            database_url: self.database_url,
            redis_url: self.redis_url,
            next_hop_url: None,
        };
        if let Some((name, url)) = self.next {
            yaml = format!("{yaml}nextHop: {name}\n");
            places.next_hop_url = Some(url);
        }
        let config = Config::from_yaml(&yaml, &places).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle.jws");
        std::fs::write(&bundle, specimen.sign(&specimen.bundle()).bytes()).unwrap();
        let mut verifier = specimen.config(config.hop.clone());
        verifier.bundle_file = Some(bundle);
        let listeners = Listeners::on_loopback().unwrap();
        let url = format!("http://{}", listeners.main.local_addr().unwrap());
        let admin_url = format!("http://{}", listeners.admin.local_addr().unwrap());
        let lifecycle = Lifecycle::new(Duration::ZERO, Duration::from_secs(5));
        let running = Arc::clone(&lifecycle);
        let pauses = self.pauses;
        let task = tokio::spawn(async move {
            let _folder = folder;
            run_with(config, verifier, listeners, running, pauses).await
        });
        tokio::select! {
            ended = task => panic!("the hop ended: {ended:?}"),
            ready = tokio::time::timeout(DEADLINE, lifecycle.ready()) => ready.expect("not ready in time"),
        }
        Hop {
            url,
            admin_url,
            lifecycle,
        }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.lifecycle.end_at_once();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub(crate) fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }

    /// One member of every hop's entry.
    pub(crate) fn of_hops(&self, member: &str) -> Value {
        let reply = self.json();
        reply["hops"]
            .as_array()
            .unwrap_or_else(|| panic!("no hops: {reply}"))
            .iter()
            .map(|hop| hop[member].clone())
            .collect()
    }
}

pub(crate) async fn send(url: &str, request: Request<Full<Bytes>>) -> Answer {
    let url: UpstreamUrl = url.parse().unwrap();
    let client = Client::new("test", &url, DEADLINE);
    let response = await_client(client, request).await;
    let (head, body) = response.into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub(crate) async fn await_client(
    client: Client,
    request: Request<Full<Bytes>>,
) -> http::Response<servicechain_runtime::http_client::PooledBody> {
    client.resolver().answered().await;
    client.oneshot(request).await.unwrap()
}

pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

pub(crate) async fn get(hop: &Hop, token: &str, path: &str) -> Answer {
    get_with(hop, token, path, &[]).await
}

pub(crate) async fn get_with(hop: &Hop, token: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(Method::GET, path, headers, "");
    request.headers_mut().extend(bearing(token));
    send(&hop.url, request).await
}

pub(crate) async fn put(hop: &Hop, token: &str, path: &str, json: &str) -> Answer {
    put_with(hop, token, path, json, &[("content-type", "application/json")]).await
}

pub(crate) async fn put_with(
    hop: &Hop,
    token: &str,
    path: &str,
    json: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = request(Method::PUT, path, headers, json);
    request.headers_mut().extend(bearing(token));
    send(&hop.url, request).await
}

pub(crate) async fn metrics(hop: &Hop) -> String {
    let answer = send(&hop.admin_url, request(Method::GET, "/metrics", &[], "")).await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

pub(crate) async fn three_hops(
    specimen: &Specimen,
    setting: impl Fn(&'static str) -> Setting<'static>,
) -> [Hop; 3] {
    let c = setting("c").start(specimen).await;
    let b = Setting {
        next: Some(("c", c.url.clone())),
        ..setting("b")
    }
    .start(specimen)
    .await;
    let a = Setting {
        next: Some(("b", b.url.clone())),
        ..setting("a")
    }
    .start(specimen)
    .await;
    [a, b, c]
}
