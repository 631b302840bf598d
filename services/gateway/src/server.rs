//! The gateway as a process: one thread per core, the admin port and the keys port, started and ended together.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use http::header::HeaderValue;
use servicechain_auth::{Verifier, VerifierConfig, keys_endpoint};
use servicechain_runtime::admin;
use servicechain_runtime::lifecycle::Lifecycle;
use servicechain_runtime::listeners::{CannotListen, ServerArgs, listen};
use servicechain_runtime::metrics::Metrics;
use servicechain_runtime::serve::{Limits, serve as serve_router};
use servicechain_runtime::upstream::Resolver;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::app::{Gateway, Worker};
use crate::config::Config;
use crate::forward::Upstream;
use crate::metrics::{self, Labels, WorkerMetrics};
use crate::open_requests::OpenRequests;
use crate::worker;

/// Connections that may wait to be accepted, per core: enough for a burst of clients reconnecting at once.
const BACKLOG: i32 = 1024;

/// The bound ports of a gateway; `main` has one socket per core, all on one port.
#[derive(Debug)]
pub struct Listeners {
    pub main: Vec<TcpListener>,
    pub admin: TcpListener,
    pub keys: TcpListener,
}

impl Listeners {
    /// The ports that the flags name, the main one shared by so many workers.
    ///
    /// # Errors
    /// [`CannotListen`] for the first port that cannot be had.
    pub fn bind(server: &ServerArgs, workers: usize) -> Result<Self, CannotListen> {
        let address = |port| SocketAddr::new(server.listen_address, port);
        Ok(Self {
            main: bind(address(server.port), workers)?,
            admin: listen(address(server.admin_port))?,
            keys: listen(address(server.keys_port))?,
        })
    }
}

/// Binds `workers` sockets to one address, among which the kernel spreads new connections (`SO_REUSEPORT`).
/// Port 0 picks a free one.
///
/// # Errors
/// [`CannotListen`] when the address cannot be had, also when another process shares out the same port.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, CannotListen> {
    if address.port() != 0 {
        // A port that others share would be shared with them, silently; asked for alone it is refused.
        drop(listen(address)?);
    }
    let first = bind_shared(address).map_err(|error| CannotListen::Other(address, error))?;
    let shared = first
        .local_addr()
        .map_err(|error| CannotListen::Other(address, error))?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_shared(shared).map_err(|error| CannotListen::Other(shared, error))?);
    }
    Ok(sockets)
}

fn bind_shared(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts a verifier and runs the gateway with it. The hop it verifies for is the configuration's.
///
/// # Errors
/// When the verifier cannot start, or as [`run_with`].
pub async fn run(
    config: Config,
    mut verifier: VerifierConfig,
    listeners: Listeners,
    lifecycle: Arc<Lifecycle>,
) -> anyhow::Result<()> {
    verifier.hop = config.verifier_hop();
    let verifier = Verifier::start(verifier)
        .await
        .context("the verifier cannot start")?;
    run_with(config, verifier, listeners, lifecycle).await
}

/// Runs the gateway until the lifecycle has closed. All its threads end with it, also when it is dropped.
///
/// # Errors
/// When a socket or a thread cannot be used, or a thread ended before its time; the others are ended then.
pub async fn run_with(
    config: Config,
    verifier: Arc<Verifier>,
    listeners: Listeners,
    lifecycle: Arc<Lifecycle>,
) -> anyhow::Result<()> {
    let upstreams = follow_upstreams(&config);
    let gateway = Arc::new(Gateway {
        routes: config.route_table(),
        upstreams,
        verifier: Arc::clone(&verifier),
        lifecycle: Arc::clone(&lifecycle),
        config,
    });
    let counted: Vec<Arc<WorkerMetrics>> = listeners
        .main
        .iter()
        .map(|_| Arc::new(WorkerMetrics::new(gateway.config.routes.len())))
        .collect();

    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let mut workers = Vec::with_capacity(listeners.main.len());
    for (index, (listener, metrics)) in listeners.main.into_iter().zip(&counted).enumerate() {
        let (gateway, metrics, stop) = (Arc::clone(&gateway), Arc::clone(metrics), stop.clone());
        let make = move || Worker {
            via: via(&gateway.config.hop.name),
            gateway,
            pool: Rc::default(),
            metrics,
            open_requests: OpenRequests::default(),
        };
        workers.push(start_thread(format!("gateway-{index}"), move || {
            worker::serve(listener, &stop, make)
        })?);
    }

    let keys_gate = lifecycle.gate("keys");
    let ready = async {
        verifier.ready().await;
        keys_gate.open();
        std::future::pending::<anyhow::Result<()>>().await
    };
    let admin = admin::router(
        Arc::clone(&lifecycle),
        Arc::new(gather_metrics(&gateway, counted)),
    );
    let admin = serve_router(listeners.admin, admin, Arc::clone(&lifecycle), Limits::default());
    let keys = keys_endpoint::router(Arc::clone(&verifier));
    let keys = serve_router(listeners.keys, keys, Arc::clone(&lifecycle), Limits::default());
    let serving = async {
        tokio::try_join!(
            all_ended(workers),
            async { admin.await.context("the admin port failed") },
            async { keys.await.context("the keys port failed") },
        )
        .map(drop)
    };
    tokio::select! {
        served = serving => served,
        never = ready => never,
    }
}

/// One resolver for each upstream, however many routes lead to it.
fn follow_upstreams(config: &Config) -> Vec<Upstream> {
    let mut resolvers = std::collections::HashMap::new();
    let follow = |route: &crate::config::Route| Upstream {
        resolver: Arc::clone(
            resolvers
                .entry(route.upstream.clone())
                .or_insert_with(|| Resolver::start(&route.upstream)),
        ),
        service: route.service.clone(),
    };
    config.routes.iter().map(follow).collect()
}

/// Runs `work` on a thread of its own. Whoever waits for the end notices a panic too.
fn start_thread(
    name: String,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<std::io::Result<()>>> {
    let (end, ended) = oneshot::channel();
    let body = move || {
        // A panic drops `end` unsent.
        let _ = end.send(work());
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .context("a worker thread cannot be started")?;
    Ok(ended)
}

/// A thread that ends early is an end of all: half a gateway would look alive.
async fn all_ended(threads: Vec<oneshot::Receiver<std::io::Result<()>>>) -> anyhow::Result<()> {
    let ends = threads.into_iter().map(|ended| async {
        ended
            .await
            .context("a worker thread panicked")?
            .context("a worker thread failed")
    });
    futures_util::future::try_join_all(ends).await.map(drop)
}

/// The name of a hop is a DNS label, which any header can hold.
fn via(hop: &str) -> [HeaderValue; 2] {
    ["1.0", "1.1"].map(|version| {
        HeaderValue::try_from(format!("{version} {hop}")).unwrap_or(HeaderValue::from_static("1.1 gateway"))
    })
}

fn gather_metrics(gateway: &Arc<Gateway>, workers: Vec<Arc<WorkerMetrics>>) -> Metrics {
    let mut metrics = Metrics::new();
    let labels: Vec<Labels> = gateway
        .config
        .routes
        .iter()
        .map(|route| Labels {
            route: route.name.clone(),
            service: route.service.clone(),
        })
        .collect();
    let hop = gateway.config.hop.name.clone();
    metrics.append(move |text| metrics::write(text, &hop, &labels, &workers));
    let verifier = Arc::clone(&gateway.verifier);
    metrics.append(move |text| text.push_str(&verifier.metrics_text()));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_or_fails_ends_the_wait_for_all() {
        let forever = start_thread("forever".to_owned(), || {
            std::thread::park();
            Ok(())
        });
        let panics = start_thread("panics".to_owned(), || panic!("on purpose"));
        let error = all_ended(vec![forever.unwrap(), panics.unwrap()])
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "a worker thread panicked");
        let fails = start_thread("fails".to_owned(), || Err(std::io::ErrorKind::Other.into()));
        assert_eq!(
            all_ended(vec![fails.unwrap()]).await.unwrap_err().to_string(),
            "a worker thread failed"
        );
    }

    #[test]
    fn running_can_be_spawned_on_any_runtime() {
        fn is_send<T: Send>(_: impl FnOnce(Config, VerifierConfig, Listeners, Arc<Lifecycle>) -> T) {}
        is_send(run);
    }

    #[test]
    fn sockets_share_a_port_among_themselves_and_with_nobody_else() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(
            sockets
                .iter()
                .all(|socket| socket.local_addr().unwrap() == address)
        );
        assert!(matches!(bind(address, 1), Err(CannotListen::InUse(_))));
    }
}
