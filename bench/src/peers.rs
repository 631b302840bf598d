//! Whom we measure ourselves against, each configured to do the same: HTTP/1.1 in and out over kept connections, one
//! worker, and for tokens the signature, `iss`, `aud` and `exp`. Each is one process with a port for each of its ways.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use servicechain_keys::Algorithm;

use crate::chain::{AUDIENCE, Chain, PATIENCE};
use crate::contest::Meter;
use crate::http;
use crate::process::Process;

/// Envoy's cache of verified tokens.
const ENVOY_CACHE: u32 = 10_000;

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) ports: Vec<(&'static str, SocketAddr)>,
}

/// What is needed to start one.
pub(crate) struct Setting<'a> {
    pub(crate) chain: &'a Chain,
    /// Configurations and logs.
    pub(crate) folder: &'a Path,
    pub(crate) upstream: SocketAddr,
}

impl Proxy {
    /// Where it listens in one of its ways.
    pub(crate) fn address(&self, way: &str) -> Result<SocketAddr> {
        let found = self.ports.iter().find(|(name, _)| *name == way);
        Ok(found.with_context(|| format!("no such way: {way}"))?.1)
    }

    /// Waits until every port takes connections.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        for (way, address) in &self.ports {
            while TcpStream::connect(address).is_err() {
                self.process.check()?;
                if Instant::now() > until {
                    bail!("nobody listens on {address} ({way}) after {PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Waits until it says on its port `admin` that it is ready.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let admin = self.address("admin")?;
        let begun = Instant::now();
        while !is_ready(admin).unwrap_or(false) {
            self.process.check()?;
            if begun.elapsed() > PATIENCE {
                bail!("{admin} does not say that it is ready after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Its processor time, for a contest.
    pub(crate) fn meter(&self, of: &'static str) -> Meter<'_> {
        Meter {
            of,
            read: Box::new(|| self.process.processor_time()),
        }
    }
}

fn is_ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(http::status(&answer) == Some(200))
}

/// Ports that the kernel says are free.
pub(crate) fn ports<const N: usize>(ways: [&'static str; N]) -> Result<Vec<(&'static str, SocketAddr)>> {
    let held: Vec<TcpListener> = ways
        .iter()
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()?;
    ways.iter()
        .zip(&held)
        .map(|(way, listener)| Ok((*way, listener.local_addr()?)))
        .collect()
}

pub(crate) fn start(
    setting: &Setting<'_>,
    name: &str,
    ports: Vec<(&'static str, SocketAddr)>,
    command: &mut Command,
) -> Result<Proxy> {
    let process = Process::start(command, &setting.folder.join(format!("{name}.log")))?;
    let mut proxy = Proxy { process, ports };
    proxy.wait()?;
    Ok(proxy)
}

pub(crate) fn nginx(setting: &Setting<'_>) -> Result<Proxy> {
    let ports = ports(["open"])?;
    let folder = setting.folder.join("nginx");
    fs::create_dir_all(&folder)?;
    let (folder_text, port, upstream) = (folder.display(), ports[0].1, setting.upstream);
    let text = format!(
        r"daemon off; master_process off; worker_processes 1; pid {folder_text}/pid; error_log {folder_text}/error.log;
events {{ worker_connections 8000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; client_max_body_size 10m;
  client_body_temp_path {folder_text}/body; proxy_temp_path {folder_text}/proxy;
  fastcgi_temp_path {folder_text}/f; uwsgi_temp_path {folder_text}/u; scgi_temp_path {folder_text}/s;
  upstream a {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen {port};
    location / {{ proxy_pass http://a; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0; }}
  }}
}}
"
    );
    let config = folder.join("nginx.conf");
    fs::write(&config, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(&config);
    start(setting, "nginx", ports, &mut command)
}

/// Debian's, with a frontend that verifies nothing and one for each algorithm it knows.
pub(crate) fn haproxy(setting: &Setting<'_>) -> Result<Proxy> {
    let ports = ports(["open", "open_logged", "RS256", "ES256"])?;
    let mut text = format!(
        "global
  nbthread 1
  maxconn 8000
  log stdout format raw local0
defaults
  mode http
  timeout client 75s
  timeout server 30s
  timeout connect 1s
  timeout http-request 10s
  timeout http-keep-alive 75s
  http-reuse always
backend a
  server a {}
",
        setting.upstream
    );
    for (way, address) in &ports {
        let _ = writeln!(text, "frontend {way}\n  bind {address}\n  default_backend a");
        if *way == "open_logged" {
            text.push_str("  log global\n  option httplog\n");
        }
        let Some(algorithm) = Algorithm::from_name(way) else {
            continue;
        };
        let issuer = setting.chain.issuer(algorithm)?;
        let key = setting.folder.join(format!("{way}.pem"));
        fs::write(&key, issuer.public_pem()?.context("no key for HAProxy")?)?;
        let _ = writeln!(
            text,
            "  http-request set-var(txn.token) http_auth_bearer
  http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.token),jwt_payload_query('$.iss')
  http-request set-var(txn.aud) var(txn.token),jwt_payload_query('$.aud')
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {way} }}
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {} }}
  http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify(txn.alg,\"{}\") -m int 1 }}",
            issuer.iss,
            key.display()
        );
    }
    let config = setting.folder.join("haproxy.cfg");
    fs::write(&config, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(&config);
    start(setting, "haproxy", ports, &mut command)
}

/// The Python package's binary, with one worker: no filter, `jwt_authn` without its cache, and with it.
pub(crate) fn envoy(setting: &Setting<'_>, program: &PathBuf) -> Result<Proxy> {
    let ports = ports(["open", "RS256", "ES256", "EdDSA", "cached"])?;
    let listeners: Vec<_> = ports
        .iter()
        .map(|(way, address)| envoy_listener(setting.chain, way, *address))
        .collect();
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let config = json!({"static_resources": {
        "listeners": listeners,
        "clusters": [{
            "name": "a", "type": "STATIC", "connect_timeout": "1s",
            "circuit_breakers": {"thresholds": [{"max_connections": 20000, "max_requests": 20000, "max_pending_requests": 20000}]},
            "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(setting.upstream)}}
            ]}]},
        }],
    }});
    let file = setting.folder.join("envoy.json");
    fs::write(&file, config.to_string())?;
    let mut command = Command::new(program);
    command
        .args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
            "-c",
        ])
        .arg(&file);
    start(setting, "envoy", ports, &mut command)
}

fn envoy_listener(chain: &Chain, way: &str, address: SocketAddr) -> serde_json::Value {
    let type_url = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    let mut filters = Vec::new();
    // One issuer each, as its neighbours have it: with several, every request would be tried against each.
    let algorithm = Algorithm::from_name(if way == "cached" { "RS256" } else { way });
    let issuers = chain.issuers().iter();
    for issuer in issuers.filter(|issuer| Some(issuer.key.algorithm()) == algorithm) {
        let mut provider = json!({
            "issuer": issuer.iss, "audiences": [AUDIENCE], "forward": true,
            "local_jwks": {"inline_string": issuer.jwks()},
        });
        if way == "cached" {
            provider["jwt_cache_config"] = json!({"jwt_cache_size": ENVOY_CACHE});
        }
        filters.push(json!({"name": "envoy.filters.http.jwt_authn", "typed_config": {
            "@type": type_url("http.jwt_authn.v3.JwtAuthentication"),
            "providers": {"issuer": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
        }}));
    }
    filters.push(json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": type_url("http.router.v3.Router"),
    }}));
    json!({
        "name": way,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": type_url("network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": way, "codec_type": "HTTP1", "http_filters": filters,
            "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "5s"}}
            ]}]},
        }}]}],
    })
}
