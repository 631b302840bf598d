//! `servicechain local`: the whole chain of a YAML file in this process: the real gateway, services and issuers on
//! loopback ports, and the real publisher of keys between them. The order of its life is in `run`; each step is a
//! module. It must decide nothing that the chain's own crates decide.

mod addresses;
mod config_maps;
mod configuration;
mod hops;
mod publisher;
mod show;
mod stores;
mod trail;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use servicechain_crds::ValidatedChain;
use servicechain_keys::{NumericDate, base64url};
use servicechain_runtime::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::outcome::Failure;
use crate::paint::Paint;
use crate::running::{Record, Running, RunningClient, RunningIssuer, StateArgs};
use crate::{print, running, token};
use addresses::bind;
use hops::Hops;
use publisher::{Authorities, Publisher};

const EXAMPLE: &str = include_str!("../../examples/shop.yaml");
/// Items are nobody's business but the user's.
const PRIVATE: u32 = 0o700;
/// Databases are created and migrated in it; on embedded stores it takes a fraction of a second.
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The chain, as Kubernetes gets it; default: a built-in example of three services
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print one line of JSON once everything is ready, and nothing else
    #[arg(long)]
    json: bool,
    /// Port of the gateway on 127.0.0.1; default: a free one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// PostgreSQL server to use, `postgres://USER:PASSWORD@HOST/`; each service gets a database of its own on it.
    /// Default: an SQLite file for each. With --data too, items are found again at the next start
    #[arg(
        long,
        value_name = "URL",
        env = "SERVICECHAIN_POSTGRES",
        hide_env_values = true
    )]
    postgres: Option<String>,
    /// Redis server to use, `redis://:PASSWORD@HOST`; each service gets a keyspace of its own on it. Default: a cache
    /// in this process for each
    #[arg(long, value_name = "URL", env = "SERVICECHAIN_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// Directory in which SQLite files are kept, and the issuer's port, which items' owners are named by; default:
    /// a temporary one, gone at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What a ConfigMap holds that an issuer names: its key set, or its certificates; may be repeated
    #[arg(long = "config-map", value_name = "NAME/KEY=FILE", value_parser = config_maps::given)]
    config_maps: Vec<config_maps::Given>,
}

pub(crate) async fn run(args: Args, state: &StateArgs, no_color: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let (document, chain) = read_chain(args.file.as_deref())?;
    let config_maps = config_maps::read(&chain, &args.config_maps)?;
    let mut signals = Signals::new().context("signals cannot be received")?;
    let events = start_telemetry(no_color);

    let folder = tempfile::Builder::new()
        .prefix("servicechain-")
        // Items are kept in it, and other users of this machine read the directory it is in.
        .permissions(fs::Permissions::from_mode(PRIVATE))
        .tempdir()
        .context("there is no temporary directory")?;
    if let Some(data) = &args.data {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(data)
            .with_context(|| format!("{} cannot be made: choose another --data", data.display()))?;
    }
    let bound = bind(&chain, args.data.as_deref())?;
    let chain = addressed(chain, |issuer| bound.url_of_issuer(issuer));
    let clients = clients_of(&chain)?;
    let data = args.data.clone().unwrap_or_else(|| folder.path().join("data"));
    let stores = stores::open(&chain, args.postgres.as_deref(), args.redis.as_deref(), &data).await?;

    let roots = publisher::roots()?;
    let chain_id = roots.chain.to_string();
    let trust_anchor = roots
        .trust_keys
        .anchors()
        .iter()
        .map(ToString::to_string)
        .collect();
    let plan = configuration::plan(&chain, &bound, &clients, &stores)?;
    let gateway = addresses::bind_gateway(args.port, &plan.gateway)?;
    let gateway_address = gateway.ports.main;
    let bundle_file = folder.path().join("bundle.jws");
    let addresses = bound.addresses(&gateway);
    let pods = publisher::pods(&bound, &gateway)?;
    let authorities = Authorities::bind(&chain, &bound)?;
    let hops = Hops::start(
        plan,
        bound,
        gateway,
        &roots,
        folder.path(),
        &bundle_file,
        &authorities,
    );
    let mut hops = hops?;
    let publisher = Publisher::start(&chain, &config_maps, pods, roots, &bundle_file, authorities)?;
    tokio::select! {
        ready = hops.ready(READY_WITHIN) => ready?,
        () = signals.next() => return Ok(()),
    }

    let record = Running {
        chain: chain.name.clone(),
        pid: std::process::id(),
        started: NumericDate::from(Clock::system().now()).as_seconds(),
        document,
        gateway: gateway_address,
        bundle_file,
        chain_id,
        trust_anchor,
        issuers: clients,
    };
    let directory = state
        .directory()
        .context("the running chain cannot be recorded")?;
    let others = running::all(&directory);
    let _record = Record::write(&directory, &record)
        .with_context(|| format!("the running chain cannot be recorded in {}", directory.display()))?;
    let paint = Paint::of(&io::stdout(), no_color);
    if args.json {
        let token = first_token(&record).await?;
        print(&format!("{}\n", show::json(&addresses, token.as_deref())))?;
    } else {
        let banner = show::Banner {
            chain: &chain,
            addresses: &addresses,
            stores: stores.kind(),
            keys: &publisher.active_keys(&chain),
            program: std::env::args()
                .next()
                .unwrap_or_else(|| "servicechain".to_owned()),
            is_alone: others.is_empty(),
            took: begun.elapsed(),
        };
        print(&banner.render(paint))?;
    }

    tokio::select! {
        () = signals.next() => {}
        ended = hops.ended() => ended?,
        () = show::follow(events, &chain, paint, !args.json) => {}
    }
    // A second signal ends at once.
    tokio::select! {
        () = hops.drain() => {}
        () = signals.next() => {}
    }
    Ok(())
}

/// None where all issuers are somebody else's: so are their clients.
async fn first_token(record: &Running) -> anyhow::Result<Option<String>> {
    if record.issuers.iter().all(|issuer| issuer.clients.is_empty()) {
        return Ok(None);
    }
    token::get(record, &token::Wanted::default()).await.map(Some)
}

/// What ends a chain: Ctrl-C or SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Access events become trails; what else is worth a warning goes to standard error.
fn start_telemetry(no_color: bool) -> mpsc::Receiver<trail::Record> {
    let (collector, events) = trail::collector();
    let warnings = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(Paint::of(&io::stderr(), no_color) == Paint::Colours)
        .without_time()
        .with_target(false);
    let others = filter_fn(|metadata| !trail::is_access(metadata) && *metadata.level() <= Level::WARN);
    let subscriber = tracing_subscriber::registry()
        .with(collector.with_filter(filter_fn(trail::is_access)))
        .with(warnings.with_filter(others));
    // A second subscriber in one process is a mistake of this program, and no reason not to serve.
    let _ = subscriber.try_init();
    events
}

/// The chain as it runs here: the issuers that it runs are where this process serves them.
pub(crate) fn as_run(chain: ValidatedChain, running: &Running) -> ValidatedChain {
    addressed(chain, |name| {
        running
            .issuers
            .iter()
            .find(|issuer| issuer.name == name)
            .map(|issuer| issuer.url.clone())
            .unwrap_or_default()
    })
}

fn addressed(mut chain: ValidatedChain, url_of: impl Fn(&str) -> String) -> ValidatedChain {
    for issuer in chain
        .issuers
        .iter_mut()
        .filter(|issuer| issuer.managed().is_some())
    {
        issuer.url = url_of(&issuer.name);
    }
    chain
}

fn read_chain(file: Option<&std::path::Path>) -> Result<(String, ValidatedChain), Failure> {
    let (name, document) = match file {
        None => ("the built-in example".to_owned(), EXAMPLE.to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| {
                Failure::BadInput(format!("{name} cannot be read: {error}; name a chain with -f"))
            })?;
            (name, text)
        }
    };
    match servicechain_crds::read(&document) {
        Ok(chain) => Ok((document, chain)),
        Err(mistakes) => Err(Failure::BadInput(mistakes.about(&name))),
    }
}

/// Every client with a secret that is made for this run.
fn clients_of(chain: &ValidatedChain) -> anyhow::Result<Vec<RunningIssuer>> {
    let mut issuers = Vec::new();
    for (issuer, managed) in chain.managed_issuers() {
        let mut clients = Vec::new();
        for client in &managed.clients {
            clients.push(RunningClient {
                id: client.id.clone(),
                secret: base64url::encode(random()?),
            });
        }
        issuers.push(RunningIssuer {
            name: issuer.name.clone(),
            url: issuer.url.clone(),
            clients,
        });
    }
    Ok(issuers)
}

/// 256 random bits.
fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("there is no randomness"))?;
    Ok(bytes)
}
