//! A real `HAProxy` from Debian in front of gateway replicas, as a cloud's load balancer would be: it asks for
//! readiness, and it never repeats a request that may have been sent.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use servicechain_fixtures::await_condition;

use crate::client::get;
use crate::process::{Process, from_debian};
use crate::running::START;

/// A port that was free may be taken before `HAProxy` binds it.
const PORTS_TRIED: usize = 5;

/// A running `HAProxy`.
#[derive(Debug)]
pub struct Balancer {
    pub address: SocketAddr,
    process: Process,
}

/// One server behind it.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    pub address: SocketAddr,
    /// Where `/readyz` is.
    pub admin: SocketAddr,
}

/// What `HAProxy` may do when a server does not take a connection; nothing was sent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnects {
    /// The client sees it.
    Never,
    /// It tries another server.
    Elsewhere,
}

impl Balancer {
    /// Starts it and waits until it passes requests on.
    pub async fn start(replicas: &[Replica], reconnects: Reconnects, folder: &Path) -> anyhow::Result<Self> {
        let program = from_debian("haproxy", "haproxy")?;
        for attempt in 0..PORTS_TRIED {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let file = folder.join(format!("haproxy-{attempt}.cfg"));
            std::fs::write(&file, configuration(address, replicas, reconnects))?;
            let process = Process::start(
                &program,
                &["-db".as_ref(), "-f".as_ref(), file.as_os_str()],
                folder,
            )?;
            let passes = await_condition("HAProxy to pass requests on", START, async || {
                match get(address, "/", None).await {
                    Ok(answer) if answer.status != 503 => Ok(true),
                    _ if process.log().contains("cannot bind") => Ok(false),
                    Ok(answer) => Err(answer.head),
                    Err(error) => Err(format!("{error:#}")),
                }
            });
            if passes.await? {
                return Ok(Self { address, process });
            }
        }
        bail!("HAProxy found no free port in {PORTS_TRIED} tries")
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How often a readiness check is sent. Tests that drain give it time for several.
    pub const CHECKS: Duration = Duration::from_millis(100);
}

fn configuration(address: SocketAddr, replicas: &[Replica], reconnects: Reconnects) -> String {
    let retries = match reconnects {
        Reconnects::Never => "retries 0",
        Reconnects::Elsewhere => "retries 3\n  option redispatch 1\n  retry-on conn-failure",
    };
    let mut text = format!(
        "global\n  maxconn 1000\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n  {retries}\n\
         frontend chain\n  bind {address}\n  default_backend gateways\n\
         backend gateways\n  balance roundrobin\n  option httpchk GET /readyz\n  http-check expect status 200\n"
    );
    for (number, replica) in replicas.iter().enumerate() {
        let every = Balancer::CHECKS.as_millis();
        let _ = writeln!(
            text,
            "  server gateway-{number} {} check addr {} port {} inter {every}ms fall 1 rise 1",
            replica.address,
            replica.admin.ip(),
            replica.admin.port()
        );
    }
    text
}
