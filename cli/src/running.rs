//! The local chains that are running: each leaves a file, readable by its user alone, by which `token` and
//! `explain` find it. It must not know how a chain is run.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;

/// A process on this machine that does not accept within this time is gone.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);

/// Where the files are; the environment says it as XDG defines it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StateArgs {
    /// Directory in which running local chains are recorded
    #[arg(long, env = "SERVICECHAIN_STATE_DIR", value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    #[arg(long, env = "XDG_RUNTIME_DIR", hide = true, global = true)]
    pub xdg_runtime_dir: Option<PathBuf>,
    #[arg(long, env = "XDG_CACHE_HOME", hide = true, global = true)]
    pub xdg_cache_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true, global = true)]
    pub home: Option<PathBuf>,
}

impl StateArgs {
    pub(crate) fn directory(&self) -> io::Result<PathBuf> {
        if let Some(directory) = &self.state_dir {
            return Ok(directory.clone());
        }
        let cache = || {
            self.xdg_cache_home
                .clone()
                .or_else(|| self.home.as_ref().map(|home| home.join(".cache")))
        };
        let base = self
            .xdg_runtime_dir
            .clone()
            .filter(|directory| directory.is_dir())
            .or_else(cache);
        let none = || io::Error::other("there is no home directory: name one with --state-dir");
        Ok(base.ok_or_else(none)?.join("servicechain"))
    }
}

/// A local chain as others find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    pub chain: String,
    pub pid: u32,
    /// Seconds since 1970.
    pub started: u64,
    /// The chain's YAML.
    pub document: String,
    pub gateway: SocketAddr,
    /// Where its bundle is, and whose signature makes it authentic.
    pub bundle_file: PathBuf,
    pub chain_id: String,
    pub trust_anchor: String,
    pub issuers: Vec<RunningIssuer>,
}

/// A managed issuer of a local chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningIssuer {
    pub name: String,
    /// Its `iss`.
    pub url: String,
    pub clients: Vec<RunningClient>,
}

/// A client with the secret it was given for this run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningClient {
    pub id: String,
    pub secret: String,
}

impl fmt::Debug for RunningClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningClient")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The record of a chain; dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    /// Writes the file whole and for this user alone, then gives it its name.
    pub(crate) fn write(directory: &Path, running: &Running) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("local-{}-{}.json", running.chain, running.pid));
        let draft = path.with_extension("draft");
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(running)?)?;
        fs::rename(&draft, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The chains that still answer, the newest first. Records of others are taken away.
pub(crate) fn all(directory: &Path) -> Vec<Running> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !is_record(&path) {
            continue;
        }
        let read = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Running>(&bytes).ok());
        match read {
            Some(running) if is_alive(&running) => found.push(running),
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
    found.sort_by_key(|running| std::cmp::Reverse((running.started, running.pid)));
    found
}

/// By its name: the directory may be anybody's choice, and what else is in it is not ours to take away.
fn is_record(path: &Path) -> bool {
    let is_ours = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("local-"));
    is_ours && path.extension().is_some_and(|extension| extension == "json")
}

fn is_alive(running: &Running) -> bool {
    TcpStream::connect_timeout(&running.gateway, ALIVE_WITHIN).is_ok()
}

/// Which running chain is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Which {
    /// Port of the gateway, when several local chains are running
    #[arg(long, value_name = "N", conflicts_with = "chain")]
    pub port: Option<u16>,
}

/// Why no chain can be named.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoChain {
    #[error("no local chain is running; start one with `servicechain local`, or name a chain in the cluster")]
    None,
    #[error("no local chain is running on port {port}; there is {there_is}")]
    NoSuch { port: u16, there_is: String },
    #[error("several local chains are running: {0}; choose one with --port")]
    Several(String),
}

/// The one that is running, or of several the one that is meant.
pub(crate) fn find(state: &StateArgs, which: &Which) -> Result<Running, Failure> {
    let directory = state.directory().context("running chains cannot be looked up")?;
    Ok(choose(all(&directory), which).map_err(anyhow::Error::from)?)
}

fn choose(running: Vec<Running>, which: &Which) -> Result<Running, NoChain> {
    let describe = |chains: &[Running]| {
        let each = chains
            .iter()
            .map(|chain| format!("{} (port {})", chain.chain, chain.gateway.port()));
        each.collect::<Vec<_>>().join(", ")
    };
    let there_is = describe(&running);
    let is_meant = |chain: &Running| which.port.is_none_or(|port| chain.gateway.port() == port);
    let is_none = running.is_empty();
    let mut meant: Vec<Running> = running.into_iter().filter(is_meant).collect();
    match (meant.pop(), which.port) {
        (Some(_), _) if !meant.is_empty() => Err(NoChain::Several(there_is)),
        (Some(one), _) => Ok(one),
        (None, Some(port)) if !is_none => Err(NoChain::NoSuch { port, there_is }),
        (None, _) => Err(NoChain::None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn running(chain: &str, gateway: SocketAddr) -> Running {
        Running {
            chain: chain.to_owned(),
            pid: u32::from(gateway.port()),
            started: 1,
            document: String::new(),
            gateway,
            bundle_file: PathBuf::from("/x"),
            chain_id: "c".to_owned(),
            trust_anchor: "t".to_owned(),
            issuers: vec![RunningIssuer {
                name: "platform".to_owned(),
                url: "http://127.0.0.1:1".to_owned(),
                clients: vec![RunningClient {
                    id: "demo".to_owned(),
                    secret: "s3cret".to_owned(),
                }],
            }],
        }
    }

    #[test]
    fn a_record_is_found_while_its_chain_answers_and_only_its_user_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("servicechain");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shop = running("shop", listener.local_addr().unwrap());
        let record = Record::write(&directory, &shop).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&record.0)), (0o700, 0o600));
        assert_eq!(all(&directory), [shop]);
        drop(listener);
        assert_eq!(all(&directory), []);
        assert!(!record.0.exists(), "the record of a dead chain is taken away");
    }

    #[test]
    fn what_is_no_record_stays_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let others = directory.path().join("package.json");
        fs::write(&others, "{}").unwrap();
        assert_eq!(all(directory.path()), []);
        assert!(others.exists());
    }

    #[test]
    fn a_record_goes_with_its_chain() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record::write(directory.path(), &running("shop", ([127, 0, 0, 1], 1).into())).unwrap();
        let path = record.0.clone();
        drop(record);
        assert!(!path.exists());
    }

    #[test]
    fn one_chain_needs_no_port_and_several_do() {
        let (one, two) = (
            running("shop", ([127, 0, 0, 1], 1).into()),
            running("shop", ([127, 0, 0, 1], 2).into()),
        );
        let both = || vec![one.clone(), two.clone()];
        let on = |port: Option<u16>| Which { port };
        assert_eq!(choose(vec![], &on(None)), Err(NoChain::None));
        assert_eq!(choose(vec![], &on(Some(1))), Err(NoChain::None));
        assert_eq!(choose(vec![one.clone()], &on(None)).unwrap(), one);
        assert_eq!(choose(both(), &on(Some(2))).unwrap(), two);
        assert_eq!(
            choose(both(), &on(None)).unwrap_err().to_string(),
            "several local chains are running: shop (port 1), shop (port 2); choose one with --port"
        );
        assert_eq!(
            choose(vec![one], &on(Some(3))).unwrap_err().to_string(),
            "no local chain is running on port 3; there is shop (port 1)"
        );
    }

    #[test]
    fn a_clients_secret_is_not_shown() {
        assert!(!format!("{:?}", running("shop", ([127, 0, 0, 1], 1).into())).contains("s3cret"));
    }
}
